"""Run our stage and `trl sft` in turn on the same model, rows and settings, and put the figures side by side."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.data.template import TULU_TEMPLATE


@dataclass(frozen=True)
class Measured:
    """tokens_per_second: padding not counted, after the warm-up steps. peak_bytes: of the GPU where there is one."""

    tokens_per_second: float
    peak_bytes: int


@dataclass(frozen=True)
class Job:
    """base: model folder. rows: folder with train.jsonl. settings: keys that both sides know, and call alike."""

    base: Path
    rows: Path
    settings: Mapping[str, Any]
    warmup_steps: int


def measure(side: str, job: Job, folder: Path) -> Measured:
    """One run in a process of its own; `side` is ours or trl."""
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
        ours = {"chat_template": "tulu", "loss_reduction": "sum", "max_cut_answer_fraction": 1.0}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(shared | ours), encoding="utf-8")
        arguments = [str(folder / "recipe.yaml")]
    else:
        trl = {"chat_template_path": str(TULU_TEMPLATE), "assistant_only_loss": True, "disable_tqdm": True}
        arguments = [part for key, value in (shared | trl).items() for part in (f"--{key}", str(value))]
    result = folder / "result.json"
    command = [sys.executable, "-m", "benchmarks.timed_run", side, str(result), *arguments]
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    figures = json.loads(result.read_text(encoding="utf-8"))
    (start, before), (end, after) = figures["steps"][job.warmup_steps - 1], figures["steps"][-1]
    return Measured((after - before) / (end - start), figures["peak_gpu_bytes"] or figures["peak_rss_bytes"])


def compare(jobs: Mapping[str, tuple[str, Job]], repeats: int, folder: Path) -> dict[str, list[Measured]]:
    """Each job `repeats` times, in turn, so that whatever else the machine does meets all of them alike."""
    found: dict[str, list[Measured]] = {name: [] for name in jobs}
    for number in range(repeats):
        for name, (side, job) in jobs.items():
            found[name].append(measure(side, job, folder / f"{number}-{name.replace(' ', '-')}"))
            print(
                f"  {number + 1}/{repeats}  {name:<14} {found[name][-1].tokens_per_second:>10,.0f} tokens/s",
                flush=True,
            )
    return found


def ratio(ours: list[Measured], peer: list[Measured]) -> str:
    """min, median and max of the ratio of neighbouring runs."""
    ratios = sorted(a.tokens_per_second / b.tokens_per_second for a, b in zip(ours, peer, strict=True))
    return f"{ratios[0]:.2f} – {statistics.median(ratios):.2f} – {ratios[-1]:.2f}"


def peak(runs: list[Measured]) -> int:
    return max(run.peak_bytes for run in runs)
