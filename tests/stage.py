"""Run a stage as a user does: a recipe file, a subprocess, a run folder."""

import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import conversation, pair, save_base, write_rows

QUIET = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}

RECIPE: dict[str, Any] = {
    "chat_template": "tulu",
    "max_length": 128,
    "global_batch_size": 8,
    "learning_rate": 1.0e-3,
    "num_train_epochs": 2,
    "loss_reduction": "sum",
    "dtype": "float32",
    "bf16": False,
    "logging_steps": 1,
    "save_steps": 3,
    "report_to": "none",
}


def write_recipe(folder: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """A recipe in `folder` with a tiny base model and its rows beside it; `keys` add to or replace `RECIPE`."""
    folder.mkdir(parents=True, exist_ok=True)
    if "model_name_or_path" not in keys and not (folder / "base").exists():
        save_base(folder / "base")
    if "dataset_name" not in keys:
        write_rows(folder / "rows.jsonl", rows or [conversation(i, 1 + i % 3, 9) for i in range(40)])
    defaults = {
        "model_name_or_path": str(folder / "base"),
        "dataset_name": str(folder / "rows.jsonl"),
        "output_dir": str(folder / "run"),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(defaults | RECIPE | keys, sort_keys=False), encoding="utf-8")
    return path


def write_pair_recipe(folder: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """As `write_recipe` for the stages dpo and reward: 40 pairs."""
    rows = rows or [pair(i, 1 + i % 3) for i in range(40)]
    path = write_recipe(folder, rows, **keys)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    del recipe["loss_reduction"]
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def sft_command(recipe: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "tulu_recipes.sft", str(recipe), *overrides]


def run_sft(
    recipe: Path, *overrides: str, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the stage to its end; the caller looks at returncode, stderr and the run folder."""
    return subprocess.run(
        sft_command(recipe, *overrides),
        env=os.environ | QUIET | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run_sft_here(recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, without the seconds that a start takes: what the command's entry point does."""
    return run_here("sft", recipe, *overrides)


def run_here(stage: str, recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`python -m tulu_recipes.STAGE RECIPE …` in this process."""
    import torch

    from tulu_recipes.config.entry import run_cli

    main = import_module(f"tulu_recipes.{stage}").main
    torch.set_num_threads(1)  # as QUIET does: threads that wait for each other make tiny steps slow
    argv = [str(recipe), *overrides]
    with redirect_stderr(StringIO()) as errors, redirect_stdout(StringIO()) as output:
        code = run_cli(lambda: main(argv))
    return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())


def run_module(name: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m name arguments` to its end."""
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        env=os.environ | QUIET | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def slugs(text: str) -> set[str]:
    """The slugs of the problems in a message as a user reads it."""
    return set(re.findall(r"^([a-z][a-z0-9]*(?:-[a-z0-9]+)+)(?:  .*)?\n    .*\n    Mend: ", text, re.MULTILINE))
