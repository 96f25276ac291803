"""The tiny recipes train what they trained when they were recorded: a default changed anywhere turns this red."""

import math

import pytest

from tests.golden.trajectory import CHAIN, STEPS, Trajectory, differences, fingerprint, read, run

# The record is of one machine. Others add in another order, and steps of Adam make more of it.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectory]:
    folder = tmp_path_factory.mktemp("golden")
    return {name: run(name, folder) for name in CHAIN}


@pytest.mark.integration
@pytest.mark.parametrize("name", list(CHAIN))
def test_every_scalar_of_the_first_steps_is_the_recorded_one(name: str, trained: dict[str, Trajectory]) -> None:
    assert len(trained[name].steps) == STEPS[name] + 1  # and the held-out rows
    assert differences(trained[name], read(name), TOLERANCE) == []


@pytest.mark.integration
def test_the_first_loss_of_dpo_is_ln_2_and_nothing_is_preferred_yet(trained: dict[str, Trajectory]) -> None:
    first = trained["dpo"].steps[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["kl/chosen"] == first["rewards/margins"] == 0.0


@pytest.mark.integration
def test_the_first_step_of_rlvr_is_on_policy(trained: dict[str, Trajectory]) -> None:
    for name in ("rlvr", "rlvr-grpo", "rlvr-rloo"):
        first = trained[name].steps[0]
        assert first["kl"] == pytest.approx(0.0, abs=1e-6), name
        assert first["clip_ratio/region_mean"] == 0.0, name


@pytest.mark.parametrize("name", list(CHAIN))
def test_a_recipe_that_would_train_other_weights_has_another_version(name: str) -> None:
    record = read(name)
    assert record.fingerprint == fingerprint(name), (
        f"recipes/tiny/{name}.yaml changed: raise its Version, say why in CHANGELOG.md, and run  make golden"
    )


def test_a_difference_is_said_with_its_step_and_name() -> None:
    record = Trajectory(1, "", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    moved = Trajectory(1, "", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.1}])
    assert differences(record, record, TOLERANCE) == []
    assert differences(moved, record, TOLERANCE) == ["step 2: loss is 1.1, recorded is 1.0"]
    assert differences(Trajectory(1, "", record.steps[:1]), record, TOLERANCE) == ["1 lines, recorded were 2"]
