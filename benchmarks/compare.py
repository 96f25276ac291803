"""Run our stage and TRL's script in turn on the same model, rows and settings, and put the figures side by side."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml

from tulu_recipes.data.template import TULU_TEMPLATE


@dataclass(frozen=True)
class Measured:
    """per_second: the job's unit, padding not counted, after the warm-up steps. tokens: of all steps.

    peak_bytes: of the GPU where there is one.
    """

    per_second: float
    tokens: int
    peak_bytes: int


@dataclass(frozen=True)
class Job:
    """base: model folder. rows: folder with train.jsonl. settings: keys that both sides know, and call alike.

    stage: sft, counted in tokens, or dpo, in pairs. ours: keys of our recipe alone.
    """

    base: Path
    rows: Path
    settings: Mapping[str, Any]
    warmup_steps: int
    stage: str = "sft"
    ours: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return {"sft": "tokens", "dpo": "pairs"}[self.stage]


# What makes the two sides do the same: our keys, and TRL's
OURS: Mapping[str, Mapping[str, Any]] = {
    "sft": {"chat_template": "tulu", "loss_reduction": "sum", "max_cut_answer_fraction": 1.0},
    "dpo": {"chat_template": "tulu", "max_cut_answer_fraction": 1.0},
}
TRL: Mapping[str, Mapping[str, Any]] = {
    "sft": {"chat_template_path": str(TULU_TEMPLATE), "assistant_only_loss": True, "disable_tqdm": True},
    "dpo": {"disable_tqdm": True},  # it has no key for a template: the model brings it
}


def measure(side: str, job: Job, folder: Path, *, quick: bool = False) -> Measured:
    """One run in a process of its own; `side` is ours or trl. quick: see `_fork`."""
    folder.mkdir(parents=True)
    shared = {
        "model_name_or_path": str(job.base),
        "dataset_name": str(job.rows),
        "output_dir": str(folder / "run"),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 1,
        **job.settings,
    }
    if side == "ours":
        recipe = yaml.safe_dump(shared | OURS[job.stage] | job.ours)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        arguments = [str(folder / "recipe.yaml")]
    else:
        arguments = [part for key, value in (shared | TRL[job.stage]).items() for part in (f"--{key}", str(value))]
    result = folder / "result.json"
    (_fork if quick else _start)([side, job.stage, str(result), *arguments], folder / "output.txt")
    figures = json.loads(result.read_text(encoding="utf-8"))
    (start, before), (end, after) = figures["steps"][job.warmup_steps - 1], figures["steps"][-1]
    amount = after - before
    if job.unit == "pairs":
        batch = job.settings["per_device_train_batch_size"] * job.settings["gradient_accumulation_steps"]
        amount = batch * (len(figures["steps"]) - job.warmup_steps)
    return Measured(amount / (end - start), after, figures["peak_gpu_bytes"] or figures["peak_rss_bytes"])


def _start(arguments: list[str], output: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.timed_run", *arguments]
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with output.open("w") as file:
        done = subprocess.run(command, env=environ, stdout=file, stderr=file)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{output.read_text()[-4000:]}")


def _fork(arguments: list[str], output: Path) -> None:
    """The same in a copy of this process, which has imported everything: no seconds to start, and no fair memory."""
    from benchmarks import timed_run

    torch.set_num_threads(1)  # a pool of threads does not survive the copy
    for stage in ("sft", "dpo"):
        import_module(f"trl.scripts.{stage}").make_parser()
    for name in ("trainers.arguments", "prepare", "finish"):
        import_module(f"tulu_recipes.{name}")
    process = get_context("fork").Process(target=_run_into, args=(timed_run.main, arguments, output))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"timed_run {' '.join(arguments)}\n{output.read_text()[-4000:]}")


def _run_into(run: Callable[[list[str]], None], arguments: list[str], output: Path) -> None:
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run(arguments)


def compare(
    jobs: Mapping[str, tuple[str, Job]], repeats: int, folder: Path, *, quick: bool = False
) -> dict[str, list[Measured]]:
    """Each job `repeats` times, in turn, so that whatever else the machine does meets all of them alike."""
    found: dict[str, list[Measured]] = {name: [] for name in jobs}
    for number in range(repeats):
        for name, (side, job) in jobs.items():
            found[name].append(measure(side, job, folder / f"{number}-{name.replace(' ', '-')}", quick=quick))
            places = 0 if job.unit == "tokens" else 1
            print(
                f"  {number + 1}/{repeats}  {name:<16} {found[name][-1].per_second:>10,.{places}f} {job.unit}/s",
                flush=True,
            )
    return found


def ratio(ours: list[Measured], peer: list[Measured]) -> str:
    """min, median and max of the ratio of neighbouring runs."""
    ratios = sorted(a.per_second / b.per_second for a, b in zip(ours, peer, strict=True))
    return f"{ratios[0]:.2f} – {statistics.median(ratios):.2f} – {ratios[-1]:.2f}"


def peak(runs: list[Measured]) -> int:
    return max(run.peak_bytes for run in runs)
