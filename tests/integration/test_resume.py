"""A run that is killed and started again logs, and becomes, what the uninterrupted run does. Exactly, on the CPU."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tests.layouts import StopAt
from tests.stage import QUIET, run_sft, sft_command, write_recipe
from tests.tiny import conversation, tiny_model, tiny_tokenizer
from tulu_recipes.data.supervision import tokenize_rows, trainable_rows
from tulu_recipes.run import newest_checkpoint, read_json, read_metrics
from tulu_recipes.trainers.sft import SFTConfig, SFTTrainer

pytestmark = pytest.mark.integration

CLOCKS = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def scalars(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in read_metrics(folder)]


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if any(line["step"] >= step for line in read_metrics(folder)):
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not logged in time")


def test_kill_9_and_the_same_command_give_the_uninterrupted_run(tmp_path: Path) -> None:
    whole = write_recipe(tmp_path / "whole", save_steps=3, eval_strategy="steps", eval_steps=4)
    rows = str(tmp_path / "whole" / "rows.jsonl")
    base = str(tmp_path / "whole" / "base")
    shared = {"model_name_or_path": base, "dataset_name": rows, "eval_dataset_name": rows}
    whole = write_recipe(tmp_path / "whole", eval_strategy="steps", eval_steps=4, num_train_epochs=4, **shared)
    assert run_sft(whole).returncode == 0

    killed = write_recipe(tmp_path / "killed", eval_strategy="steps", eval_steps=4, num_train_epochs=4, **shared)
    process = subprocess.Popen(sft_command(killed), env=os.environ | QUIET, stderr=subprocess.DEVNULL)
    wait_for_step(tmp_path / "killed" / "run", 8, process)
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = run_sft(killed)
    assert done.returncode == 0, done.stderr
    record = read_json(tmp_path / "killed" / "run" / "run.json")
    assert record["resumed_at_steps"]
    assert record["resumed_at_steps"][0] >= 6
    assert scalars(tmp_path / "killed" / "run") == scalars(tmp_path / "whole" / "run")
    assert weights(tmp_path / "killed" / "run") == weights(tmp_path / "whole" / "run")


def train(
    folder: Path, *, stop_at: int | None = None, resume: Path | None = None, **config: Any
) -> list[dict[str, Any]]:
    tokenizer = tiny_tokenizer()
    rows = Dataset.from_list([conversation(i, 1 + i % 3, 9) for i in range(22)])  # the last batch is short
    tokens = trainable_rows(tokenize_rows(rows, tokenizer, max_length=128), over_length="truncate")
    args = SFTConfig(
        str(folder),
        loss_reduction="sum",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        logging_steps=5,
        save_steps=1,
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        max_length=128,
        gradient_checkpointing=False,
        **({"dataset_kwargs": {"skip_prepare_dataset": True}} | config),
    )
    trainer = SFTTrainer(
        tiny_model(len(tokenizer)),
        args,
        train_dataset=tokens,
        processing_class=tokenizer,
        callbacks=[StopAt(stop_at)] if stop_at else [],
    )
    try:
        trainer.train(resume_from_checkpoint=resume and str(resume))
    except KeyboardInterrupt:
        return []
    return [*trainer.state.log_history[:-1], {"train_loss": trainer.state.log_history[-1]["train_loss"]}]


@pytest.mark.parametrize("config", [{}, {"packing": True, "dataset_kwargs": None}], ids=["padded", "packed"])
def test_a_stop_between_two_logs_and_between_epochs_leaves_no_trace(tmp_path: Path, config: dict[str, Any]) -> None:
    whole = train(tmp_path / "whole", **config)
    last = max(line.get("step", 0) for line in whole)
    for step in (2, last // 2 + 1, last - 1):
        folder = tmp_path / f"stopped-{step}"
        train(folder, stop_at=step, **config)
        checkpoint = newest_checkpoint(folder, 1)
        assert checkpoint is not None
        assert train(folder, resume=checkpoint, **config) == whole


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    train(tmp_path, stop_at=5)
    newest = newest_checkpoint(tmp_path, 1)
    assert newest is not None
    assert newest.name == "checkpoint-4"  # step 5 was interrupted before it was saved
    state = newest / "trainer_state.json"
    state.write_text(state.read_text(encoding="utf-8")[:50], encoding="utf-8")
    assert newest_checkpoint(tmp_path, 1) == tmp_path / "checkpoint-3"
    (tmp_path / "checkpoint-3" / "rng_state.pth").unlink()
    assert newest_checkpoint(tmp_path, 1) == tmp_path / "checkpoint-2"
