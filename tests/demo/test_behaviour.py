"""SFT against DPO in the demo: shares counted by hand, and the table a user sees."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.demo import behaviour
from tulu_recipes.demo.behaviour import Share
from tulu_recipes.errors import TrainingError

STOP = "End every answer with a full stop."

# system turn, the answer preferred, what SFT said, what DPO said
ANSWERS = [
    (None, "11!", "11", "11!"),  # right twice, ends well after
    (None, "c a t!", "c a t", "c a t"),  # right twice, never ends well
    (None, "Oslo!", "Rome!", " Oslo! "),  # wrong, then right; ends well twice
    (None, "old!", "old", "new!"),  # right, then wrong
    (STOP, "4 5 6.", "4 5 6.", "4 5 6!"),  # right twice, loses its ending
]


def make_run(folder: Path, answers: list[tuple[str | None, str, str, str]]) -> tuple[Path, Path]:
    """A DPO run folder and the held-out pairs that it was sampled from, which go on after the sampled ones."""
    pairs: list[dict[str, Any]] = []
    for number, (system, expected, _, _) in enumerate([*answers, (None, "unread!", "", "")]):
        asked = [{"role": "user", "content": f"question {number}"}]
        chosen = [*([{"role": "system", "content": system}] if system else []), *asked]
        pairs.append({"prompt": f"question {number}", "chosen": [*chosen, {"role": "assistant", "content": expected}]})
    samples = [{"expected": expected, "before": before, "after": after} for _, expected, before, after in answers]
    metrics = [
        {"step": 0, "eval_rewards/accuracies": 0.0},
        {"step": 1, "rewards/accuracies": 0.5, "loss": 0.7},
        {"step": 2, "rewards/accuracies": 1.0, "loss": 0.1},
        {"step": 2, "eval_rewards/accuracies": 0.75},
    ]
    (folder / "samples.json").write_text(json.dumps(samples))
    for name, lines in (("heldout.jsonl", pairs), ("metrics.jsonl", metrics)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder, folder / "heldout.jsonl"


def test_shares_are_those_counted_by_hand(tmp_path: Path) -> None:
    assert behaviour.measure(behaviour.read_answers(*make_run(tmp_path, ANSWERS))) == [
        Share("right answer", 5, 4 / 5, 4 / 5),
        Share('ends with "!", as the pairs prefer', 4, 1 / 4, 3 / 4),
        Share("ends as its system turn asks", 1, 1.0, 0.0),
    ]


def test_the_table_and_the_plot_set_dpo_against_sft(tmp_path: Path) -> None:
    folder, heldout = make_run(tmp_path, ANSWERS)
    assert [line.split() for line in behaviour.compare(folder, heldout).splitlines()] == [
        ["held-out", "prompts", "SFT", "DPO"],
        ["right", "answer", "(5)", "0.80", "0.80"],
        ["ends", "with", '"!",', "as", "the", "pairs", "prefer", "(4)", "0.25", "0.75"],
        ["ends", "as", "its", "system", "turn", "asks", "(1)", "1.00", "0.00"],
        ["question", "0", "11", "11!"],
        ["question", "1", "c", "a", "t", "c", "a", "t"],
        ["question", "2", "Rome!", "Oslo!"],
    ]
    assert (folder / behaviour.PLOT).read_bytes().startswith(b"\x89PNG")


def test_the_curve_leaves_out_the_evaluation_in_which_both_models_are_one(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path, ANSWERS)
    assert behaviour.read_accuracy(folder) == {"training": [(1, 0.5), (2, 1.0)], "held-out": [(2, 0.75)]}


def test_a_new_manner_at_the_cost_of_right_answers_is_a_failure(tmp_path: Path) -> None:
    spoilt = [(system, expected, expected, "wrong!") for system, expected, _, _ in ANSWERS]
    with pytest.raises(TrainingError) as caught:
        behaviour.compare(*make_run(tmp_path, spoilt))
    assert caught.value.slugs == ["demo-did-not-learn"]
    assert "Right answers fell from 1.00 to 0.00" in str(caught.value)
