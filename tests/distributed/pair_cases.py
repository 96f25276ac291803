"""Steps of the preference stages on two processes: what a worker runs, and what one pair at a time makes of it."""

from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from tests import pair_oracle
from tests.pair_layouts import pair_rows, read_scorer


def _half(rows: int, batches: int) -> dict[str, int]:
    """Of 8 pairs, for each of two processes."""
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}


def _cases() -> dict[str, dict[str, Any]]:
    norm = {"stage": "dpo", "loss_type": ["sigmoid_norm"], "beta": 5.0, "reference": "reference"}
    summed = norm | {"loss_type": ["sigmoid"], "beta": 0.1}
    own = norm | {"reference": None, "precompute_ref_log_probs": True}  # the policy before its first step
    imitating = summed | {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}
    simpo = {"stage": "simpo", "beta": 2.0, "simpo_gamma": 0.5}
    reward = {"stage": "reward"}
    # stopped before checkpoint 4; the one before it is inside a log line and at the end of an epoch
    resumed = _half(1, 2) | {
        "rows": 12,
        "num_train_epochs": 2,
        "logging_steps": 2,
        "learning_rate": 0.01,
        "stop_at": 4,
    }
    resumed |= {"save_strategy": "steps", "save_steps": 3, "train_sampling_strategy": "random", "optim": "adamw_torch"}
    few = _half(1, 4) | {"rows": 6}  # of the 8 that a step could hold
    # the last micro-batch: one pair and a repeat for one process, two repeats for the other
    odd = _half(2, 2) | {"rows": 5}
    # seven pairs in batches of two: one process evaluates a repeat
    evaluated = {"learning_rate": 0.0, "eval_rows": 7, "per_device_eval_batch_size": 2}
    return {
        "norm-4x1": norm | _half(4, 1),
        "norm-1x4": norm | _half(1, 4),
        "norm-few": norm | few,
        "norm-odd": norm | odd,
        "sft-odd": imitating | odd,
        "simpo-odd": simpo | odd,
        "reward-odd": reward | odd,
        "reward-seven": reward | odd | {"rows": 7},
        "norm-seven": norm | odd | {"rows": 7},
        "sigmoid-2x2": summed | _half(2, 2),
        "sft-1x4": imitating | _half(1, 4),
        "sft-few": imitating | few,
        "norm-apart": norm | _half(2, 2) | {"concatenated_forward": False},
        # 3, 3 and 2 rows: the processes share none of them evenly
        "norm-cached": norm | _half(2, 2) | {"precompute_ref_log_probs": True, "part_rows": 3},
        "start": norm | _half(2, 2) | {"reference": "base"},
        "start-cached": own | _half(2, 2),
        "start-lora": norm | _half(2, 2) | {"reference": None, "lora": {"r": 4}},
        "simpo-2x2": simpo | _half(2, 2),
        "reward-4x1": reward | _half(4, 1),
        "reward-few": reward | few,
        "new-head": reward | _half(4, 1) | {"model": "base", "learning_rate": 0.0},
        "evaluated-norm": norm | _half(2, 2) | evaluated,
        "evaluated-reward": reward | _half(2, 2) | evaluated,
        "resumed-norm": norm | resumed | {"precompute_ref_log_probs": True},
        "resumed-reward": reward | resumed,
    }


PAIR_CASES = _cases()
RESUMED = [case for case in PAIR_CASES if case.startswith("resumed")]
# An adapter starts from random numbers of its own; tests/trainers/test_pair_layouts.py compares its gradient
EVALUATED = [case for case in PAIR_CASES if case.startswith("evaluated")]
ONE_STEP_CASES = [case for case in PAIR_CASES if case not in (*RESUMED, *EVALUATED, "start-lora", "new-head")]


@cache
def expected_pairs(folder: Path, case: str) -> pair_oracle.Step:
    """`folder`: of `save_models`."""
    keys = PAIR_CASES[case]
    pairs = pair_rows(keys.get("eval_rows") or keys.get("rows", 8)).to_list()
    if keys["stage"] == "reward":
        return pair_oracle.reward_step(read_scorer(folder / "scorer"), pairs)
    policy, reference = (_read(folder / name) for name in ("base", keys.get("reference") or "base"))
    if keys["stage"] == "simpo":
        return pair_oracle.simpo_step(policy, pairs, keys["beta"], keys["simpo_gamma"])
    weights = dict(zip(keys["loss_type"], keys.get("loss_weights", [1.0]), strict=True))
    return pair_oracle.dpo_step(policy, reference, pairs, weights, keys["beta"])


def _read(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
