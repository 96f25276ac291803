"""The gradient of a preference step depends on its pairs and its loss, not on how they were cut into micro-batches."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests import pair_oracle
from tests.layouts import LAYOUTS, copy_weights, update
from tests.oracle import worst_difference
from tests.pair_layouts import pair_config, pair_rows, pair_trainer, read_scorer, save_models
from tulu_recipes.trainers.reward import load_scorer

pytestmark = pytest.mark.integration

TOLERANCE = 1e-5  # float32, another order of summation
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid_norm": {"loss_type": ["sigmoid_norm"], "beta": 5.0},
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.1},
    "sigmoid+sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "beta": 0.1},
    "apart": {"loss_type": ["sigmoid_norm"], "beta": 5.0, "concatenated_forward": False},
    "cached": {"loss_type": ["sigmoid_norm"], "beta": 5.0, "precompute_ref_log_probs": True},
}
# pairs, pairs in a micro-batch, micro-batches in a step; the last are 4 and 3 of the 16 that a step could hold
CUTS = [*((8, *cut) for cut in LAYOUTS), (7, 4, 4)]
BOTH = [*((loss, *cut) for loss in ("sigmoid_norm", "sigmoid+sft") for cut in CUTS)]
BOTH += [*((loss, *cut) for loss in ("sigmoid", "apart", "cached") for cut in ((8, 8, 1), (7, 4, 4)))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


def causal(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def both(models: Path) -> tuple[Any, Any]:
    """Policy and reference."""
    return causal(models / "base"), causal(models / "reference")


def layout(per_device: int, accumulation: int) -> dict[str, int]:
    return {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}


def assert_is_step(trainer: Any, before: Any, want: pair_oracle.Step) -> None:
    trainer.train()
    found = update(before, copy_weights(trainer.model))
    assert worst_difference(found, want.gradients) < TOLERANCE
    line = trainer.state.log_history[0]
    assert line["loss"] == pytest.approx(want.loss, rel=1e-5)
    assert {key: line[key] for key in want.logged} == pytest.approx(want.logged, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("loss", "rows", "per_device", "accumulation"), BOTH)
def test_every_layout_makes_the_dpo_step_of_one_pair_at_a_time(
    tmp_path: Path, models: Path, loss: str, rows: int, per_device: int, accumulation: int
) -> None:
    keys, pairs = LOSSES[loss], pair_rows(rows)
    weights = dict(zip(keys["loss_type"], keys.get("loss_weights", [1.0]), strict=True))
    want = pair_oracle.dpo_step(*both(models), pairs.to_list(), weights, keys["beta"])
    model, reference = both(models)
    before = copy_weights(model)
    args = pair_config("dpo", tmp_path, **keys, **layout(per_device, accumulation))
    trainer = pair_trainer("dpo", model, args, pairs, ref_model=reference)
    assert_is_step(trainer, before, want)


@pytest.mark.parametrize(("rows", "per_device", "accumulation"), CUTS)
def test_every_layout_makes_the_simpo_step_of_one_pair_at_a_time(
    tmp_path: Path, models: Path, rows: int, per_device: int, accumulation: int
) -> None:
    pairs = pair_rows(rows)
    want = pair_oracle.simpo_step(causal(models / "base"), pairs.to_list(), beta=2.0, gamma=0.5)
    model = causal(models / "base")
    before = copy_weights(model)
    args = pair_config("simpo", tmp_path, beta=2.0, simpo_gamma=0.5, **layout(per_device, accumulation))
    assert_is_step(pair_trainer("simpo", model, args, pairs), before, want)


@pytest.mark.parametrize(("rows", "per_device", "accumulation"), CUTS)
def test_every_layout_makes_the_reward_step_of_one_pair_at_a_time(
    tmp_path: Path, models: Path, rows: int, per_device: int, accumulation: int
) -> None:
    pairs = pair_rows(rows)
    want = pair_oracle.reward_step(read_scorer(models / "scorer"), pairs.to_list())
    model = load_scorer(str(models / "scorer"))
    before = copy_weights(model)
    args = pair_config("reward", tmp_path, **layout(per_device, accumulation))
    assert_is_step(pair_trainer("reward", model, args, pairs), before, want)
