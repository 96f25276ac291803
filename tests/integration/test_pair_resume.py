"""A preference run that is stopped or killed and started again logs what the uninterrupted run does. Exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.layouts import StopAt
from tests.pair_layouts import pair_config, pair_rows, pair_trainer, save_models
from tests.stage import QUIET, run_here, write_pair_recipe
from tulu_recipes.run import newest_checkpoint, read_json, read_metrics
from tulu_recipes.trainers.reward import load_scorer

pytestmark = pytest.mark.integration

TWO_EPOCHS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "learning_rate": 1e-2,
    "optim": "adamw_torch",
    "train_sampling_strategy": "random",
}
NORM = {"loss_type": ["sigmoid_norm"], "beta": 5.0}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "two models": ("dpo", NORM),
    "cached": ("dpo", NORM | {"precompute_ref_log_probs": True}),
    "imitating": ("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "beta": 0.1}),
    "simpo": ("simpo", {"beta": 2.0, "simpo_gamma": 0.5}),
    "reward": ("reward", {}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


def train(models: Path, folder: Path, kind: str, stop_at: int = 0, resume: Path | None = None) -> Any:
    """Two epochs over 11 pairs, 3 steps each; returns what is logged and the weights."""
    stage, keys = STAGES[kind]
    args = pair_config(stage, folder, **TWO_EPOCHS | keys)
    others: dict[str, Any] = {"callbacks": [StopAt(stop_at)]}
    if stage == "reward":
        model: Any = load_scorer(str(models / "scorer"))
    else:
        model = AutoModelForCausalLM.from_pretrained(models / "base", dtype="float32")
    if stage == "dpo":
        others["ref_model"] = AutoModelForCausalLM.from_pretrained(models / "reference", dtype="float32")
    trainer = pair_trainer(stage, model, args, pair_rows(11), **others)
    try:
        trainer.train(resume_from_checkpoint=resume and str(resume))
    except KeyboardInterrupt:
        return None
    logged = trainer.state.log_history
    weights = {name: parameter.tolist() for name, parameter in trainer.model.named_parameters()}
    return [*logged[:-1], logged[-1]["train_loss"]], weights


@pytest.mark.parametrize("kind", STAGES)
def test_a_stop_between_two_logs_and_between_epochs_leaves_no_trace(tmp_path: Path, models: Path, kind: str) -> None:
    whole = train(models, tmp_path / "whole", kind)
    assert [line["step"] for line in whole[0][:-1]] == [2, 4, 6]
    for step in (2, 4):  # checkpoints 1, inside a line, and 3, inside a line and at the end of an epoch
        folder = tmp_path / f"stopped-{step}"
        assert train(models, folder, kind, stop_at=step) is None
        checkpoint = newest_checkpoint(folder, 1)
        assert checkpoint == folder / f"checkpoint-{step - 1}"
        assert train(models, folder, kind, resume=checkpoint) == whole


def test_kill_9_of_a_dpo_run_and_the_same_command_give_the_uninterrupted_run(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"beta": 5.0, "loss_type": "sigmoid_norm", "masking": "all_assistant_turns"}
    keys |= {"precompute_ref_log_probs": True, "logging_steps": 2, "num_train_epochs": 3}
    whole = write_pair_recipe(tmp_path / "whole", **keys)
    shared = {"model_name_or_path": str(whole.parent / "base"), "dataset_name": str(whole.parent / "rows.jsonl")}
    shared |= {"ref_log_probs_cache": str(tmp_path / "reference")}
    whole = write_pair_recipe(tmp_path / "whole", **keys, **shared)
    done = run_here("dpo", whole)
    assert done.returncode == 0, done.stderr

    killed, run = write_pair_recipe(tmp_path / "killed", **keys, **shared), tmp_path / "killed" / "run"
    command = [sys.executable, "-m", "tulu_recipes.dpo", str(killed)]
    process = subprocess.Popen(command, env=os.environ | QUIET, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not any(line["step"] >= 8 for line in read_metrics(run)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = run_here("dpo", killed)
    assert done.returncode == 0, done.stderr
    assert read_json(run / "run.json")["resumed_at_steps"][0] >= 6
    assert read_metrics(run) == read_metrics(tmp_path / "whole" / "run")
    assert same_weights(run, tmp_path / "whole" / "run")


def test_a_reward_run_that_lost_its_end_makes_it_again_exactly(tmp_path: Path) -> None:
    recipe, run = write_pair_recipe(tmp_path, logging_steps=2), tmp_path / "run"
    done = run_here("reward", recipe)
    assert done.returncode == 0, done.stderr
    lines = read_metrics(run)
    shutil.copytree(run, tmp_path / "first")
    # as if killed at step 10, before its checkpoint; the newest is then of step 9, between two log lines
    shutil.rmtree(run / "checkpoint-10")
    (run / "model.safetensors").unlink()
    (run / "run.json").write_text(json.dumps(read_json(run / "run.json") | {"status": "started"}), encoding="utf-8")
    done = run_here("reward", recipe)
    assert done.returncode == 0, done.stderr
    assert read_json(run / "run.json")["resumed_at_steps"] == [9]
    assert read_metrics(run) == lines
    assert same_weights(run, tmp_path / "first")


def same_weights(run: Path, other: Path) -> bool:
    found, want = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    return found.keys() == want.keys() and all(torch.equal(found[name], want[name]) for name in want)
