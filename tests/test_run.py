"""The run folder: who may open it, what is in it, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.errors import RecipeError, TrainingError
from tulu_recipes.run import (
    FINISHED,
    Run,
    open_run,
    package_versions,
    read_alarms,
    read_json,
    read_metrics,
    write_text,
)


def start(folder: Path, *, num_processes: int = 1, **science: Any) -> Run:
    values = {"learning_rate": 1e-3, "seed": 1} | science
    return open_run(
        folder,
        stage="sft",
        resolved_recipe="seed: 1\n",
        fingerprint=json.dumps(values),
        science=values,
        overrides={"seed": 1},
        process_index=0,
        num_processes=num_processes,
    )


def checkpoint(folder: Path, step: int, ranks: int = 1) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text("{}")
    for rank in range(ranks):
        (path / f"progress-rank-{rank}.json").write_text("{}")
        (path / ("rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth")).touch()
    return path


def release(run: Run) -> None:
    assert run._lock is not None
    run._lock.release()


def refusal(folder: Path, **options: Any) -> RecipeError:
    with pytest.raises(RecipeError) as refused:
        start(folder, **options)
    return refused.value


def test_a_new_run_folder_says_what_runs_and_where(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    record = read_json(tmp_path / "run" / "run.json")
    assert record["status"] == "started"
    assert record["overrides"] == {"seed": 1}
    assert record["num_processes"] == 1
    assert (tmp_path / "run" / "recipe.resolved.yaml").read_text() == "seed: 1\n"
    assert read_json(tmp_path / "run" / "environment.json")["packages"]["trl"] == package_versions()["trl"]
    assert run.checkpoint is None


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    error = refusal(tmp_path)
    assert error.slugs == ["run-folder-foreign"]
    assert "thesis.docx" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_another_recipe_in_the_same_folder_is_refused_by_what_differs(tmp_path: Path) -> None:
    release(start(tmp_path / "run"))
    error = refusal(tmp_path / "run", learning_rate=2e-3)
    assert error.slugs == ["run-folder-taken"]
    assert "learning_rate: 0.001 → 0.002" in str(error)
    assert "seed" not in error.problems[0].what


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    assert refusal(tmp_path / "run").slugs == ["run-folder-busy"]
    release(run)
    assert start(tmp_path / "run").status == "started"


def test_a_run_is_resumed_from_its_newest_whole_checkpoint_and_later_metrics_are_forgotten(tmp_path: Path) -> None:
    run = start(tmp_path)
    checkpoint(tmp_path, 4)
    (checkpoint(tmp_path, 8) / "trainer_state.json").write_text("{ cut")
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 10, "lo')
    (tmp_path / "alarms.jsonl").write_text('{"step": 3}\n{"step": 7}\n{"st')
    release(run)
    resumed = start(tmp_path)
    assert resumed.checkpoint == tmp_path / "checkpoint-4"
    assert resumed.record["resumed_at_steps"] == [4]
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_alarms(tmp_path) == [{"step": 3}]


def test_a_run_that_was_killed_before_its_first_checkpoint_logs_its_first_evaluation_once(tmp_path: Path) -> None:
    run = start(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval_loss": 2.0}\n{"step": 1, "loss": 1.0}\n')
    release(run)
    start(tmp_path)
    assert read_metrics(tmp_path) == []


def test_another_number_of_processes_cannot_resume(tmp_path: Path) -> None:
    run = start(tmp_path, num_processes=2)
    release(run)
    release(start(tmp_path, num_processes=1))  # no checkpoint yet: nothing is resumed
    release(start(tmp_path, num_processes=2))
    checkpoint(tmp_path, 4, ranks=2)
    error = refusal(tmp_path, num_processes=1)
    assert error.slugs == ["processes-changed"]
    assert "--num_processes 2" in str(error)


def test_a_finished_run_keeps_its_metrics(tmp_path: Path) -> None:
    run = start(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    run.update(status=FINISHED)
    release(run)
    assert start(tmp_path).status == FINISHED
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_full_disk_is_said_in_words_and_other_failures_are_noted(tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.raises(TrainingError, match="disk-full") as full, run.failing():
        raise OSError(28, "No space left on device")
    assert "same command again" in str(full.value)
    with pytest.raises(ZeroDivisionError), run.failing():
        raise ZeroDivisionError("x")
    assert read_json(tmp_path / "run.json")["status"] == "failed"


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "two")]
