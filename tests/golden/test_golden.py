"""The tiny recipes train what they trained when they were recorded: a default changed anywhere turns this red."""

import math

import pytest

from tests.golden.trajectory import CHAIN, STEPS, Trajectory, differences, fingerprint, read, run

# The record is of one machine. Others add in another order, and twenty steps of Adam make more of it.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectory]:
    folder = tmp_path_factory.mktemp("golden")
    return {stage: run(stage, folder) for stage in CHAIN}


@pytest.mark.integration
@pytest.mark.parametrize("stage", list(CHAIN))
def test_every_scalar_of_twenty_steps_is_the_recorded_one(stage: str, trained: dict[str, Trajectory]) -> None:
    assert len(trained[stage].steps) == STEPS + 1  # and the held-out rows
    assert differences(trained[stage], read(stage), TOLERANCE) == []


@pytest.mark.integration
def test_the_first_loss_of_dpo_is_ln_2_and_nothing_is_preferred_yet(trained: dict[str, Trajectory]) -> None:
    first = trained["dpo"].steps[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["kl/chosen"] == first["rewards/margins"] == 0.0


@pytest.mark.parametrize("stage", list(CHAIN))
def test_a_recipe_that_would_train_other_weights_has_another_version(stage: str) -> None:
    record = read(stage)
    assert record.fingerprint == fingerprint(stage), (
        f"recipes/tiny/{stage}.yaml changed: raise its Version, say why in CHANGELOG.md, and run  make golden"
    )


def test_a_difference_is_said_with_its_step_and_name() -> None:
    record = Trajectory(1, "", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    moved = Trajectory(1, "", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.1}])
    assert differences(record, record, TOLERANCE) == []
    assert differences(moved, record, TOLERANCE) == ["step 2: loss is 1.1, recorded is 1.0"]
    assert differences(Trajectory(1, "", record.steps[:1]), record, TOLERANCE) == ["1 lines, recorded were 2"]
