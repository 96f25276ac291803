"""Ctrl-C, a time limit, a full disk, a loss that is no number: the run stops whole, and the same command goes on."""

import errno
import hashlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from filelock import FileLock
from rich.console import Console
from safetensors import SafetensorError
from transformers import AutoTokenizer, TrainerControl, TrainerState, TrainingArguments

from tests.stage import QUIET, run_sft, run_sft_here, sft_command, slugs, write_recipe
from tests.tiny import conversation, save_base, write_rows
from tulu_recipes.errors import TrainingError
from tulu_recipes.run import naming_full_disk, newest_checkpoint, read_json, read_metrics
from tulu_recipes.trainers.callbacks import ProgressCallback

pytestmark = pytest.mark.e2e

EPOCHS = 8  # 40 steps: about two seconds, so that a signal falls into the run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped; its model and rows serve the others."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_sft(write_recipe(folder, num_train_epochs=EPOCHS, save_steps=10))
    assert done.returncode == 0, done.stderr
    return folder


def same_recipe(folder: Path, whole: Path) -> Path:
    """A recipe that trains what `whole` trained, into a folder of its own."""
    shared = {"model_name_or_path": str(whole / "base"), "dataset_name": str(whole / "rows.jsonl")}
    return write_recipe(folder, num_train_epochs=EPOCHS, save_steps=10, **shared)


def assert_same_run(run: Path, whole: Path) -> None:
    assert read_metrics(run) == read_metrics(whole)
    digests = [hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for folder in (run, whole)]
    assert digests[0] == digests[1]
    assert read_json(run / "run.json")["status"] == "finished"


def stop(recipe: Path, number: int) -> tuple[int, str, dict[str, Any]]:
    """Start the command, signal it while step 3 or one soon after it runs; its exit code, stderr and run.json."""
    run = recipe.parent / "run"
    process = subprocess.Popen(sft_command(recipe), env=os.environ | QUIET, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not any(line["step"] >= 2 for line in read_metrics(run)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, read_json(run / "run.json")


def test_ctrl_c_then_a_full_disk_then_the_same_command_give_the_uninterrupted_run(tmp_path: Path, whole: Path) -> None:
    recipe, run = same_recipe(tmp_path, whole), tmp_path / "run"
    code, errors, record = stop(recipe, signal.SIGINT)
    assert code == 130, errors
    assert "Stopping after this step; a checkpoint is saved." in errors
    assert "Traceback" not in errors
    step = record["stopped_at_step"]
    assert record["status"] == "stopped"
    assert 3 <= step < 40
    assert newest_checkpoint(run, 1) == run / f"checkpoint-{step}"

    with FileLock(run / "_run.lock"):  # as a second process would hold it
        busy = run_sft_here(recipe)
    assert (busy.returncode, slugs(busy.stderr)) == (2, {"run-folder-busy"})

    rows = write_rows(tmp_path / "other.jsonl", [conversation(i, 1 + i % 3, 9) for i in reversed(range(40))])
    kept = (whole / "rows.jsonl").read_bytes()
    (whole / "rows.jsonl").write_bytes(rows.read_bytes())
    try:
        moved = run_sft_here(recipe)
    finally:
        (whole / "rows.jsonl").write_bytes(kept)
    assert (moved.returncode, slugs(moved.stderr)) == (2, {"data-moved"})
    assert "other ones or in another order" in moved.stderr

    # Larger than the weights (158 kB), smaller than the optimizer state: the next checkpoint stays half written
    full = subprocess.run(
        sft_command(recipe),
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert full.returncode == 1, full.stderr
    assert slugs(full.stderr) == {"disk-full"}
    assert "Traceback" not in full.stderr
    assert "run the same command again" in full.stderr
    assert newest_checkpoint(run, 1) == run / f"checkpoint-{step}"
    assert read_json(run / "run.json")["status"] == "failed"
    assert "disk-full" in read_json(run / "run.json")["error"]

    done = run_sft(recipe)
    assert done.returncode == 0, done.stderr
    assert "error" not in read_json(run / "run.json")
    assert_same_run(run, whole / "run")


def test_sigterm_stops_a_run_as_a_cluster_s_time_limit_does_and_it_goes_on(tmp_path: Path, whole: Path) -> None:
    recipe = same_recipe(tmp_path, whole)
    code, errors, record = stop(recipe, signal.SIGTERM)
    assert code == 130, errors
    step = record["stopped_at_step"]
    assert newest_checkpoint(tmp_path / "run", 1) == tmp_path / "run" / f"checkpoint-{step}"
    done = run_sft_here(recipe)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "run" / "run.json")["resumed_at_steps"] == [step]
    assert_same_run(tmp_path / "run", whole / "run")


def write_python(path: Path) -> None:
    with path.open("wb") as file:
        file.write(bytes(20_000))


def write_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(10_000)}, path)


def write_torch(path: Path) -> None:
    torch.save({"weight": torch.zeros(10_000)}, path)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", [write_python, write_safetensors, write_torch])
def test_every_writer_s_word_for_no_space_is_understood(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with (
        pytest.raises(TrainingError, match="disk-full") as caught,
        naming_full_disk(tmp_path),
        file_size_limit(10_000),
    ):
        write(tmp_path / "file")
    assert "free some space" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # the words of a full tmpfs
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_a_full_device_is_understood(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(TrainingError, match="disk-full"), naming_full_disk(tmp_path):
        raise error


def test_other_failures_keep_their_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming_full_disk(tmp_path):
        write_python(tmp_path / "missing" / "file")
    with pytest.raises(RuntimeError, match="shapes"), naming_full_disk(tmp_path):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    (tmp_path / "cut.pt").write_bytes(b"PK")
    with pytest.raises(Exception, match=r"(?s)^(?!.*disk)"), naming_full_disk(tmp_path):
        torch.load(tmp_path / "cut.pt")


def assert_not_finite(done: subprocess.CompletedProcess[str], folder: Path, step: int) -> None:
    assert done.returncode == 1, done.stderr
    assert slugs(done.stderr) == {"not-finite"}
    assert "Traceback" not in done.stderr
    run, record = folder / "run", read_json(folder / "run" / "run.json")
    assert record["status"] == "failed"
    assert "not-finite" in record["error"]
    assert not (run / "model.safetensors").exists()
    assert [line["step"] for line in read_metrics(run)] == list(range(1, step))
    batches = torch.load(run / f"not-finite-step-{step}-rank-0.pt")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    texts = [text for batch in batches for text in tokenizer.batch_decode(batch["input_ids"])]
    assert len(texts) == 8  # the global batch
    assert all(text.startswith("<|user|>\n") for text in texts)


def test_a_base_model_with_a_nan_stops_before_the_first_update(tmp_path: Path) -> None:
    weights = save_base(tmp_path / "base") / "model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    tensors["model.norm.weight"][3] = float("nan")
    safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    done = run_sft_here(write_recipe(tmp_path))
    assert "The loss is nan; the weights in memory were not updated" in done.stderr
    assert_not_finite(done, tmp_path, step=1)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_run_that_explodes_later_stops_there_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, learning_rate=1e30, save_steps=1)
    done = run_sft_here(recipe)
    assert "step 2, rank 0" in done.stderr
    assert_not_finite(done, tmp_path, step=2)
    again = run_sft_here(recipe)  # the weights of the last checkpoint are whole, and the same step fails again
    assert_not_finite(again, tmp_path, step=2)
    assert read_json(tmp_path / "run" / "run.json")["resumed_at_steps"] == [1]


def test_a_run_that_fails_gives_the_terminal_back() -> None:
    terminal = StringIO()
    progress = ProgressCallback()
    progress.console = Console(file=terminal, force_terminal=True)
    state = TrainerState(max_steps=3, is_world_process_zero=True)
    with suppress(TrainingError), progress:
        progress.on_train_begin(TrainingArguments(report_to=[]), state, TrainerControl())
        raise TrainingError([])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().count(hidden) == terminal.getvalue().count(shown) == 1
