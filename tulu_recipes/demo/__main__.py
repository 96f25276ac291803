"""The whole pipeline on this machine, as far as it exists: run it, then say whether it learned.

    python -m tulu_recipes.demo              mix, SFT, reward model, DPO and RLVR: bundled rows, a model of under a
                                             million parameters, some 4 minutes
    python -m tulu_recipes.demo --smollm2    SmolLM2-135M and real conversations, up to 15 minutes

Every stage is the public command a user would type. An interrupted demo goes on where it stopped; a finished one
is set aside under numbered names, and a new one begins.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.data.mixing.lock import LOCK, read_lock
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.data.mixing.use import default_folder
from tulu_recipes.demo import behaviour, verified
from tulu_recipes.errors import Problem, TrainingError, TuluError

FINISHED = "finished"
REPORT_FILES = ("report.md", "loss.png", "samples.md", behaviour.PLOT, "recipe.resolved.yaml")
# What a run of the stage calls the share of held-out pairs in which the chosen answer is ranked first.
PAIR_ACCURACY = {"tulu_recipes.reward": "eval_accuracy", "tulu_recipes.dpo": "eval_rewards/accuracies"}
MIX_FILES = ("README.md", "length_histogram.png", "contamination.md", LOCK)


@dataclass(frozen=True)
class Mixing:
    """The command that builds the mix a later stage trains on; it finds one that is built already."""

    file: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tulu_recipes.mix", str(self.file)]

    @property
    def folder(self) -> Path:
        return default_folder(load_mix(self.file))


@dataclass(frozen=True)
class Stage:
    """One public command that trains, and what it must reach to count as learned.

    file: its recipe.
    min_exact_match: 0-1, share of held-out rows answered exactly after training.
    min_loss_drop: nats per supervised token, held-out loss before training less that after.
    min_pair_accuracy: 0-1, share of held-out pairs ranked rightly after training; 0.5 is chance.
    min_verified_gain: share of held-out prompts answered rightly by their verifiers, after training less before it.
    compare: (run folder, held-out rows) -> the table of its answers beside those of the models before it.
    threads: OMP_NUM_THREADS where it is not set; None leaves it to torch.
    """

    module: str
    file: Path
    min_exact_match: float | None = None
    min_loss_drop: float | None = None
    min_pair_accuracy: float | None = None
    min_verified_gain: float | None = None
    compare: Callable[[Path, Path], str] | None = None
    threads: int | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, str(self.file)]

    @property
    def folder(self) -> Path:
        return Path(self.recipe["output_dir"])

    @property
    def recipe(self) -> dict[str, Any]:
        keys: dict[str, Any] = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        return keys


# Later stages join these lists in pipeline order.
# A model this small gains little from a second thread, and waits for it where the machine has other work.
TINY: list[Mixing | Stage] = [
    Mixing(Path("data_mixes/tiny/sft.yaml")),
    Stage("tulu_recipes.sft", Path("recipes/tiny/sft.yaml"), min_exact_match=0.5, threads=1),
    Mixing(Path("data_mixes/tiny/preference.yaml")),
    Stage("tulu_recipes.reward", Path("recipes/tiny/reward.yaml"), min_pair_accuracy=0.8, threads=1),
    Stage(
        "tulu_recipes.dpo",
        Path("recipes/tiny/dpo.yaml"),
        min_exact_match=0.7,
        min_pair_accuracy=0.8,
        compare=behaviour.compare,
        threads=1,
    ),
    Mixing(Path("data_mixes/tiny/rlvr.yaml")),
    Stage(
        "tulu_recipes.rlvr",
        Path("recipes/tiny/rlvr.yaml"),
        min_verified_gain=0.1,
        compare=verified.compare,
        threads=1,
    ),
]
SMOLLM2: list[Mixing | Stage] = [Stage("tulu_recipes.sft", Path("recipes/smollm2/sft.yaml"), min_loss_drop=0.5)]
PREPARE_SMOLLM2 = [sys.executable, "-m", "tulu_recipes.demo.smollm2", "runs/smollm2-base", "runs/smollm2-data"]


def begins_anew(stages: Sequence[Mixing | Stage], fresh: bool) -> bool:
    """Whether earlier runs are put away: one that was asked for, or after a demo that reached its end."""
    runs = [_read_run(stage.folder) for stage in stages if isinstance(stage, Stage)]
    return fresh or all(run.get("status") == FINISHED for run in runs)


def set_aside(folder: Path) -> Path | None:
    """Rename an earlier run folder to `<name>.1`, `.2`, …; the new name, or None where there is none."""
    if not folder.exists():
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def check_learned(stage: Stage, folder: Path) -> str:
    """The sentences with the held-out figures.

    Raises:
        TrainingError: slug demo-did-not-learn, when a figure misses what the stage states.
    """
    figures = list(_figures(stage, folder))
    missed = [(sentence, wanted) for sentence, learned, wanted in figures if not learned]
    if missed:
        sentence, wanted = missed[0]
        raise TrainingError(
            Problem(
                "demo-did-not-learn",
                str(folder),
                f"{sentence}, where {wanted} is expected: something in the training path is broken.",
                f"read {folder / 'report.md'}, then run the demo again with --fresh",
            )
        )
    return "; ".join(sentence for sentence, _, _ in figures)


def _figures(stage: Stage, folder: Path) -> Iterator[tuple[str, bool, str]]:
    """Of each figure that the stage states: the sentence, whether it is reached, and what is expected."""
    run = _read_run(folder)
    if stage.min_exact_match is not None:
        before, after = run["samples"]["exact_match_before"], run["samples"]["exact_match_after"]
        sentence = f"held-out exact match {before:.2f} -> {after:.2f}"
        yield sentence, after >= stage.min_exact_match, f"at least {stage.min_exact_match:.2f}"
    if stage.min_verified_gain is not None:
        before, after = run["samples"]["verified_before"], run["samples"]["verified_after"]
        sentence = f"held-out answers verified {before:.2f} -> {after:.2f}"
        yield sentence, after - before >= stage.min_verified_gain, f"a rise of at least {stage.min_verified_gain:.2f}"
    if stage.min_pair_accuracy is not None:
        accuracy = run["final_metrics"][PAIR_ACCURACY[stage.module]]
        sentence = f"held-out pairs ranked rightly {accuracy:.2f} (chance 0.50)"
        yield sentence, accuracy >= stage.min_pair_accuracy, f"at least {stage.min_pair_accuracy:.2f}"
    if stage.min_loss_drop is not None:
        losses = _heldout_losses(folder)
        sentence = f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per supervised token"
        yield sentence, losses[0] - losses[-1] >= stage.min_loss_drop, f"a fall of at least {stage.min_loss_drop}"


def run_mixing(mixing: Mixing) -> str:
    """Build a mix and return what to tell the user about it.

    Raises:
        TrainingError: slug demo-stage-failed.
    """
    _run(mixing.command)
    lock = read_lock(mixing.folder / LOCK)
    sources = len(lock["sources"])
    rows = f"{lock['result']['rows']:,} rows from {sources} source{'s' if sources > 1 else ''}"
    return _told(mixing.file, rows, mixing.folder, MIX_FILES)


def run_stage(stage: Stage) -> str:
    """Run one training stage to its end, or on to it, and return what to tell the user about it.

    Raises:
        TrainingError: slug demo-stage-failed, or demo-did-not-learn.
    """
    folder = stage.folder
    _run(stage.command, stage.threads)
    sentence = check_learned(stage, folder)
    table = stage.compare(folder, Path(stage.recipe["eval_dataset_name"])) if stage.compare else None
    told = _told(stage.file, sentence, folder, REPORT_FILES)
    return told if table is None else f"{told}\n\n{table}"


def _told(file: Path, sentence: str, folder: Path, names: tuple[str, ...]) -> str:
    """What came of a file, and where to look at it."""
    there = [f"    {folder / name}" for name in names if (folder / name).exists()]
    return "\n".join([f"{file}: {sentence}", *there])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--smollm2", action="store_true", help="the real small model instead of the tiny one")
    parser.add_argument("--fresh", action="store_true", help="set an unfinished earlier run aside, do not resume it")
    arguments = parser.parse_args(argv)
    stages = SMOLLM2 if arguments.smollm2 else TINY
    try:
        _check_in_checkout(stages)
        if arguments.smollm2:
            _run(PREPARE_SMOLLM2)
        if begins_anew(stages, arguments.fresh):
            _put_away(stages)
        reports = [run_mixing(stage) if isinstance(stage, Mixing) else run_stage(stage) for stage in stages]
    except TuluError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say("\nInterrupted. The same command goes on where this one stopped.")
        return 130
    _say("\nDone.\n" + "\n".join(reports))
    return 0


def _put_away(stages: Sequence[Mixing | Stage]) -> None:
    for folder in [stage.folder for stage in stages if isinstance(stage, Stage)]:
        aside = set_aside(folder)
        if aside is not None:
            _say(f"The earlier run is kept as {aside}")


def _check_in_checkout(stages: list[Mixing | Stage]) -> None:
    for stage in stages:
        if not stage.file.exists():
            raise TrainingError(
                Problem(
                    "demo-not-in-checkout",
                    str(stage.file),
                    "No such file from this folder; the demo reads the recipes and rows of a checkout.",
                    "run the demo from the root of the repository",
                )
            )


def _run(command: list[str], threads: int | None = None) -> None:
    _say("$ " + shlex.join(["python", *command[1:]]))
    environ = ({"OMP_NUM_THREADS": str(threads)} if threads else {}) | os.environ
    code = subprocess.run(command, check=False, env=environ).returncode
    if code != 0:
        raise TrainingError(
            Problem(
                "demo-stage-failed",
                shlex.join(["python", *command[1:]]),
                f"The command ended with exit code {code}; its own message is above.",
                "mend what it names, then run the demo again: it resumes where it can",
            )
        )


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.exists():
        return {}
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run


def _heldout_losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(row["eval_loss"]) for row in map(json.loads, lines) if "eval_loss" in row]


def _say(text: str) -> None:
    # Flushed, so that it stands before what the command writes.
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
