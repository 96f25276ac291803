"""What preference tuning did to the answers of the demo: the same held-out prompts before it (SFT) and after (DPO)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tulu_recipes.demo.mix_rows import PREFERRED_ENDING
from tulu_recipes.errors import Problem, TrainingError
from tulu_recipes.run import read_json, read_metrics

matplotlib.use("Agg")  # no screen on a training node

PLOT = "behaviour.png"
ENDINGS = "!."
# Share of the right answers of before that have to stay right.
KEPT = 0.9


@dataclass(frozen=True)
class Answer:
    """
    asked: whether a system turn asked for the ending.   expected: the right answer with the ending it should have.
    before, after: what the model said, without white space around it.
    """

    prompt: str
    asked: bool
    expected: str
    before: str
    after: str

    def is_right(self, said: str) -> bool:
        return said.rstrip(ENDINGS) == self.expected.rstrip(ENDINGS)

    def ends_well(self, said: str) -> bool:
        return said.endswith(self.expected[-1])


@dataclass(frozen=True)
class Share:
    """Shares (0-1) of `rows` prompts before and after."""

    name: str
    rows: int
    before: float
    after: float


def read_answers(folder: Path, heldout: Path) -> list[Answer]:
    """The samples of a DPO run beside the held-out pairs that they were drawn from, the first of the file."""
    samples: list[dict[str, str]] = read_json(folder / "samples.json")
    with heldout.open(encoding="utf-8") as lines:
        pairs: list[dict[str, Any]] = [json.loads(line) for line in islice(lines, len(samples))]
    return [
        Answer(
            prompt=pair["prompt"],
            asked=pair["chosen"][0]["role"] == "system",
            expected=pair["chosen"][-1]["content"],
            before=sample["before"].strip(),
            after=sample["after"].strip(),
        )
        for sample, pair in zip(samples, pairs, strict=True)
    ]


def measure(answers: list[Answer]) -> list[Share]:
    """Right answers whatever their ending; then endings, without a system turn and with one."""
    asked = [answer for answer in answers if answer.asked]
    free = [answer for answer in answers if not answer.asked]
    return [
        _share("right answer", answers, Answer.is_right),
        _share(f'ends with "{PREFERRED_ENDING}", as the pairs prefer', free, Answer.ends_well),
        _share("ends as its system turn asks", asked, Answer.ends_well),
    ]


def _share(name: str, answers: list[Answer], holds: Callable[[Answer, str], bool]) -> Share:
    before = sum(holds(answer, answer.before) for answer in answers) / len(answers)
    after = sum(holds(answer, answer.after) for answer in answers) / len(answers)
    return Share(name, len(answers), before, after)


def compare(folder: Path, heldout: Path) -> str:
    """Draw behaviour.png into a finished DPO run and return the table of SFT against DPO, with three answers.

    Raises:
        TrainingError: slug demo-did-not-learn, when right answers were lost.
    """
    answers = read_answers(folder, heldout)
    shares = measure(answers)
    draw(shares, read_accuracy(folder), folder / PLOT)
    right = shares[0]
    if right.after < KEPT * right.before:
        raise TrainingError(
            Problem(
                "demo-did-not-learn",
                str(folder),
                f"Right answers fell from {right.before:.2f} to {right.after:.2f} of the held-out prompts.",
                f"read {folder / 'samples.md'}, then run the demo again with --fresh",
            )
        )
    return render(shares, [answer for answer in answers if not answer.asked][:3])


def render(shares: list[Share], shown: list[Answer]) -> str:
    lines = [f"{'held-out prompts':<46}    SFT    DPO"]
    lines += [f"{f'{share.name} ({share.rows})':<46} {share.before:6.2f} {share.after:6.2f}" for share in shares]
    lines += [f"{answer.prompt:<46} {answer.before:>6} {answer.after:>6}" for answer in shown]
    return "\n".join(lines)


def read_accuracy(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, share of pairs ranked rightly), of the training batches and of the held-out pairs.

    Without step 0: there the model is the reference, and ranks nothing.
    """
    rows = read_metrics(folder)
    keys = {"training": "rewards/accuracies", "held-out": "eval_rewards/accuracies"}
    return {
        name: [(row["step"], row[key]) for row in rows if key in row and row["step"]] for name, key in keys.items()
    }


def draw(shares: list[Share], accuracy: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Pairs ranked rightly over the steps, and what the answers were like before and after."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, points), style in zip(accuracy.items(), ("-", "o-"), strict=True):
        left.plot(*zip(*points, strict=True), style, label=name, markersize=4, linewidth=1.3)
    left.set_xlabel("optimizer step")
    left.set_title("pairs ranked rightly", fontsize=10)
    _draw_bars(right, shares)
    for axes in (left, right):
        axes.set_ylim(0, 1.2)
        axes.grid(alpha=0.3, axis="y")
        axes.legend(loc="upper center", ncols=2)
    figure.savefig(path, dpi=110)


def _draw_bars(axes: Axes, shares: list[Share]) -> None:
    places = range(len(shares))
    for shift, name, heights in (
        (-0.2, "SFT", [share.before for share in shares]),
        (0.2, "DPO", [share.after for share in shares]),
    ):
        bars = axes.bar([place + shift for place in places], heights, width=0.38, label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    names = [share.name.replace(", ", ",\n") + f"\n({share.rows})" for share in shares]
    axes.set_xticks(list(places), names, fontsize=8)
    axes.set_title("share of held-out prompts", fontsize=10)
