"""Verdicts as rewards: mixed verifiers in a batch, errors that are no 0, and a run that stops when they are many."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.errors import TrainingError
from tulu_recipes.verifiers.scoring import VerifiableReward, text_of

CHOICE = "multiple_choice"


def score(reward: VerifiableReward, *rows: tuple[str, str, Any], **more: Any) -> list[float | None]:
    names, completions, labels = zip(*rows, strict=True)
    return reward(completions=completions, ground_truth=labels, dataset=names, prompts=[""] * len(rows), **more)


def test_a_batch_may_mix_verifiers_and_only_the_completion_is_graded() -> None:
    mixed = [
        ("gsm8k", "That makes 7.", "7"),
        ("GSM8K", "That makes 8.", "7"),
        (CHOICE, "The answer is (B).", "B"),
        ("string_match", "<answer>Paris</answer>", "paris"),
        ("ifeval", "no commas here", json.dumps({"func_name": "validate_no_commas"})),
    ]
    assert score(VerifiableReward(), *mixed) == [10.0, 0.0, 10.0, 10.0, 10.0]
    # the prompt's exemplars hold the right answer: they earn nothing
    reward = VerifiableReward()
    graded = reward(completions=["I do not know"], ground_truth=["7"], dataset=["gsm8k"], prompts=["#### 7"])
    assert graded == [0.0]


def test_messages_and_text_are_the_same_completion() -> None:
    said = [{"role": "assistant", "content": "It is 7."}]
    assert text_of(said) == text_of("It is 7.") == "It is 7."
    assert VerifiableReward(reward=1.0)([said], ["7"], ["gsm8k"]) == [1.0]


def test_an_error_is_not_scored_and_as_released_it_is_zero() -> None:
    rows = [
        ("gsm8k", "7", "seven"),
        ("gsm8k", "7", None),
        ("gsm8k", "7", ""),
        ("nobody", "7", "7"),
        ("gsm8k", "7", "7"),
    ]
    assert score(VerifiableReward(max_error_fraction=1.0), *rows) == [None, None, None, None, 10.0]
    released = VerifiableReward("as_released", max_error_fraction=1.0)
    assert score(released, ("ifeval", "yes", "no json"), ("gsm8k", "7", "7")) == [0.0, 10.0]
    with pytest.raises(ValueError, match="semantics"):
        VerifiableReward("right")


def test_metrics_are_row_by_row_and_the_table_gets_the_verdicts() -> None:
    metrics: dict[str, list[float]] = defaultdict(list)
    columns: dict[str, list[Any]] = {}
    rows = [("gsm8k", "7", "7"), ("gsm8k", "8", "7"), (CHOICE, "B", "B"), (CHOICE, "B", "")]
    score(
        VerifiableReward(),
        *rows,
        log_metric=lambda name, value: metrics[name].append(value),
        log_extra=lambda name, values: columns.update({name: values}),
    )
    assert columns == {"verdict": ["correct", "wrong", "correct", "error"]}
    assert metrics == {
        "verifier/accuracy": [1.0, 0.0, 1.0, 0.0],
        "verifier/accuracy/gsm8k": [1.0, 0.0],
        f"verifier/accuracy/{CHOICE}": [1.0, 0.0],
        "verifier/error_rate": [0.0, 0.0, 0.0, 1.0],
    }


def test_many_errors_stop_the_run_with_their_samples(tmp_path: Path) -> None:
    kept = tmp_path / "run" / "verifier-errors.jsonl"
    reward = VerifiableReward(max_error_fraction=0.05, samples_path=kept)
    good = [("gsm8k", "7", "7")] * 91
    score(reward, *good, *[("gsm8k", "7", "seven")] * 9)  # few are never a reason
    assert len(kept.read_text().splitlines()) == 9
    with pytest.raises(TrainingError) as stopped:
        score(reward, *good[:9], ("gsm8k", "\ud800 7", "eight"))
    (problem,) = stopped.value.problems
    assert problem.slug == "verifier-errors"
    assert "10 of the last 110 completions could not be graded: gsm8k: label is no number (1)" in problem.what
    assert "max_verifier_error_fraction" in problem.mend
    last = json.loads(kept.read_text().splitlines()[-1])
    assert (last["reason"], last["ground_truth"]) == ("label is no number", "eight")
    # 10 in 1,000 are below the limit
    calm = VerifiableReward(max_error_fraction=0.05)
    for _ in range(10):
        score(calm, *good, *good[:8], ("gsm8k", "7", "seven"))
