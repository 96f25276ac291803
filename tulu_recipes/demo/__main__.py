"""The whole pipeline on this machine, as far as it exists: run it, then say whether it learned.

    python -m tulu_recipes.demo              bundled rows, a model of under a million parameters, under 2 minutes
    python -m tulu_recipes.demo --smollm2    SmolLM2-135M and real conversations, up to 15 minutes

Every stage is the public command a user would type. An interrupted demo goes on where it stopped; a finished one
is set aside under a numbered name, and a new one begins.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.data.mixing.lock import LOCK, read_lock
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.data.mixing.use import default_folder
from tulu_recipes.errors import Problem, TrainingError, TuluError

FINISHED = "finished"
REPORT_FILES = ("report.md", "loss.png", "samples.md", "recipe.resolved.yaml")
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
    threads: OMP_NUM_THREADS where it is not set; None leaves it to torch.
    """

    module: str
    file: Path
    min_exact_match: float | None = None
    min_loss_drop: float | None = None
    threads: int | None = None

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, str(self.file)]

    @property
    def folder(self) -> Path:
        return Path(yaml.safe_load(self.file.read_text(encoding="utf-8"))["output_dir"])


# Later stages join these lists in pipeline order.
# A model this small gains little from a second thread, and waits for it where the machine has other work.
TINY: list[Mixing | Stage] = [
    Mixing(Path("data_mixes/tiny/sft.yaml")),
    Stage("tulu_recipes.sft", Path("recipes/tiny/sft.yaml"), min_exact_match=0.5, threads=1),
]
SMOLLM2: list[Mixing | Stage] = [Stage("tulu_recipes.sft", Path("recipes/smollm2/sft.yaml"), min_loss_drop=0.5)]
PREPARE_SMOLLM2 = [sys.executable, "-m", "tulu_recipes.demo.smollm2", "runs/smollm2-base", "runs/smollm2-data"]


def set_aside(folder: Path, fresh: bool) -> Path | None:
    """Rename an earlier run folder to `<name>.1`, `.2`, … if it is finished or `fresh`; the new name, or None."""
    if not folder.exists() or not (fresh or _read_run(folder).get("status") == FINISHED):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return folder.rename(aside)


def check_learned(stage: Stage, folder: Path) -> str:
    """The sentence with the held-out figures before and after.

    Raises:
        TrainingError: slug demo-did-not-learn, when the figures miss what the stage states.
    """
    if stage.min_exact_match is not None:
        samples = _read_run(folder)["samples"]
        before, after = samples["exact_match_before"], samples["exact_match_after"]
        sentence = f"held-out exact match {before:.2f} -> {after:.2f}"
        learned = after >= stage.min_exact_match
        wanted = f"at least {stage.min_exact_match:.2f}"
    else:
        losses = _heldout_losses(folder)
        sentence = f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per supervised token"
        learned = losses[0] - losses[-1] >= (stage.min_loss_drop or 0.0)
        wanted = f"a fall of at least {stage.min_loss_drop}"
    if not learned:
        raise TrainingError(
            Problem(
                "demo-did-not-learn",
                str(folder),
                f"{sentence}, where {wanted} is expected: something in the training path is broken.",
                f"read {folder / 'report.md'}, then run the demo again with --fresh",
            )
        )
    return sentence


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


def run_stage(stage: Stage, fresh: bool) -> str:
    """Run one training stage to its end and return what to tell the user about it.

    Raises:
        TrainingError: slug demo-stage-failed, or demo-did-not-learn.
    """
    folder = stage.folder
    aside = set_aside(folder, fresh)
    if aside is not None:
        _say(f"The earlier run is kept as {aside}")
    _run(stage.command, stage.threads)
    return _told(stage.file, check_learned(stage, folder), folder, REPORT_FILES)


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
        reports = [
            run_mixing(stage) if isinstance(stage, Mixing) else run_stage(stage, arguments.fresh) for stage in stages
        ]
    except TuluError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say("\nInterrupted. The same command goes on where this one stopped.")
        return 130
    _say("\nDone.\n" + "\n".join(reports))
    return 0


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
