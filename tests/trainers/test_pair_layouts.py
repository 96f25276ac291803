"""The gradient of a preference step depends on its pairs and its loss, not on how they were cut into micro-batches."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests import pair_oracle
from tests.layouts import LAYOUTS, ONE_STEP, copy_weights, update
from tests.oracle import worst_difference
from tests.pair_layouts import pair_config, pair_rows, pair_rows_of, pair_trainer, read_scorer, save_models
from tests.tiny import pair, tiny_model, tiny_tokenizer
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


@pytest.mark.parametrize("cached", [False, True], ids=["adapter off", "cached"])
def test_an_adapter_is_compared_with_its_base_and_needs_no_second_model(
    tmp_path: Path, models: Path, cached: bool
) -> None:
    pairs = pair_rows(8)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)  # policy and base differ from the start
    keys = LOSSES["sigmoid_norm"] | {"precompute_ref_log_probs": cached}
    args = pair_config("dpo", tmp_path, **keys, **layout(4, 2))
    trainer = pair_trainer("dpo", causal(models / "base"), args, pairs, peft_config=lora)
    assert trainer.ref_model is None
    before = copy_weights(trainer.model)
    policy = get_peft_model(causal(models / "base"), lora)
    policy.load_state_dict(trainer.model.state_dict())
    want = pair_oracle.dpo_step(policy, causal(models / "base"), pairs.to_list(), {"sigmoid_norm": 1.0}, 5.0)
    assert all("lora_" in name for name in want.gradients)
    trainer.train()
    found = update(before, copy_weights(trainer.model))
    assert worst_difference({name: found[name] for name in want.gradients}, want.gradients) < TOLERANCE
    assert all(not difference.any() for name, difference in found.items() if name not in want.gradients)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(want.loss, rel=1e-5)


@pytest.mark.parametrize("keys", [{}, {"precompute_ref_log_probs": True}, {"concatenated_forward": False}], ids=str)
def test_a_policy_that_is_its_reference_starts_at_the_logarithm_of_two(
    tmp_path: Path, models: Path, keys: dict[str, Any]
) -> None:
    args = pair_config("dpo", tmp_path, **LOSSES["sigmoid_norm"] | keys)
    trainer = pair_trainer("dpo", causal(models / "base"), args, pair_rows(8), ref_model=causal(models / "base"))
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == torch.tensor(math.log(2)).item()
    assert (trainer.ref_model is None) == ("precompute_ref_log_probs" in keys)


# Answers of 3 and 2 words, and of 3 and 3, a word is a token and each answer has its EOS. The policy gives each of 320
# tokens the same probability: −ln 320 = −5.768321 a token. The reference is said to sum to −42 and −44.
#   all turns: means −42/7 = −6 and −44/8 = −5.5; 5 × (0.231679 − −0.268321) = 2.5; ln(1 + e^−2.5) = 0.078890
#   last turn: means −42/3 = −14 and −44/4 = −11;  5 × (8.231679 − 5.231679) = 15;  ln(1 + e^−15)  = 3.059e-7
BY_HAND = [
    (
        "all_assistant_turns",
        0.0788897,
        {"rewards/chosen": 1.158395, "rewards/rejected": -1.341605, "lengths/chosen": 7},
    ),
    ("last_turn", 3.059023e-7, {"rewards/chosen": 41.158395, "rewards/rejected": 26.158395, "lengths/chosen": 3}),
]


@pytest.mark.parametrize(("masking", "loss", "logged"), BY_HAND, ids=["all turns", "last turn"])
def test_a_pair_of_two_turns_has_the_loss_computed_by_hand(
    tmp_path: Path, masking: Any, loss: float, logged: dict[str, float]
) -> None:
    shared = [("user", "how many"), ("assistant", "the cat sat"), ("user", "and then")]
    turns = {"chosen": [*shared, ("assistant", "the mat")], "rejected": [*shared, ("assistant", "the red blue")]}
    row = {side: [{"role": role, "content": text} for role, text in found] for side, found in turns.items()}
    rows = pair_rows_of([row], masking)
    rows = rows.add_column("ref_chosen_logps", [-42.0]).add_column("ref_rejected_logps", [-44.0])
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    args = pair_config("dpo", tmp_path, loss_type=["sigmoid_norm"], beta=5.0, learning_rate=0.0)
    trainer = pair_trainer("dpo", model, args, rows, ref_model=tiny_model())
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["loss"] == pytest.approx(loss, rel=1e-4)
    assert {key: line[key] for key in logged} == pytest.approx(logged, rel=1e-5)
    assert line["logps_per_token/chosen"] == pytest.approx(-5.768321, rel=1e-6)


@pytest.mark.parametrize(("stage", "theirs"), [("dpo", "DPO"), ("reward", "Reward")])
def test_single_turn_pairs_train_as_in_trls_own_trainer(tmp_path: Path, models: Path, stage: str, theirs: str) -> None:
    rows = [pair(number) for number in range(8)]
    keys = {"beta": 5.0, "loss_type": ["sigmoid_norm"], "masking": "last_turn"} if stage == "dpo" else {}
    keys |= layout(2, 2) | {"learning_rate": 0.05}

    def models_of() -> tuple[Any, dict[str, Any]]:
        if stage == "reward":
            return load_scorer(str(models / "scorer")), {}
        policy, reference = both(models)
        return policy, {"ref_model": reference}

    model, others = models_of()
    ours = pair_trainer(stage, model, pair_config(stage, tmp_path / "ours", **keys), pair_rows_of(rows), **others)
    ours.train()
    model, others = models_of()
    settings = ONE_STEP | {"max_length": 128} | {key: value for key, value in keys.items() if key != "masking"}
    plain = getattr(trl, f"{theirs}Trainer")(
        model,
        args=getattr(trl, f"{theirs}Config")(str(tmp_path / "trl"), **settings),
        train_dataset=Dataset.from_list([{side: row[side] for side in ("chosen", "rejected")} for row in rows]),
        processing_class=tiny_tokenizer(),
        **others,
    )
    plain.train()
    assert len(ours.state.log_history) == len(plain.state.log_history) == 3
    for line, want in zip(ours.state.log_history[:2], plain.state.log_history[:2], strict=True):
        shared = {"loss", "grad_norm", "num_tokens", "logps/chosen", "accuracy", "margin"} & want.keys()
        assert {key: line[key] for key in shared} == pytest.approx({key: want[key] for key in shared}, rel=1e-5)
    assert worst_difference(copy_weights(ours.model), copy_weights(plain.model)) < TOLERANCE
