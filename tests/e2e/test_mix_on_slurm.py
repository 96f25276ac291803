"""`mix --executor` on a stand-in for Slurm: the real scripts of datatrove, run at once on this machine."""

from pathlib import Path

import pytest

from tests.data.mixing.mixes import build, chats, shard_bytes, write_mix
from tests.data.mixing.slurm import jobs, stand_in
from tests.stage import slugs
from tests.tiny import write_rows
from tulu_recipes.config.entry import run_cli
from tulu_recipes.mix import main
from tulu_recipes.run import read_json

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
EXECUTOR = """executor: slurm
tasks: 8
time: "0:10:00"
partition: cpu
write: {tasks: 1}
"""
EVALS = """evaluations:
  - {name: own, dataset: questions.jsonl, fields: [question], action: drop_rows, threshold: 0.02}
"""
FILTER = "def short(row):\n    return len(str(row)) < 400\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an executor file, and the stand-in's programs first in PATH."""
    for name, value in stand_in(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    for name in ("LOGURU_DIAGNOSE", "LOGURU_BACKTRACE"):
        monkeypatch.setenv(name, "NO")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the jobs run this checkout, wherever the package is installed from
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("executor.yaml").write_text(EXECUTOR, encoding="utf-8")
    return tmp_path / "slurm"


def mix(*arguments: str) -> int:
    return run_cli(lambda: main(["mix.yaml", "--executor", "executor.yaml", *arguments]))


def test_a_mix_is_built_by_jobs_after_a_first_try_whose_selection_failed(
    slurm: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is named by relative paths, and the filter's module lies where the command is given."""
    write_rows(Path("data.jsonl"), chats(60))
    write_rows(Path("more.jsonl"), chats(9, "more"))
    write_rows(Path("questions.jsonl"), [{"question": "question 7 and what else there is to be said of it now"}])
    Path("evals.yaml").write_text(EVALS, encoding="utf-8")
    Path("filters_of_a_mix.py").write_text(FILTER, encoding="utf-8")
    monkeypatch.syspath_prepend(str(Path.cwd()))  # as `python -m` has it
    path = write_mix(
        Path(),
        sources=None,
        filters=["filters_of_a_mix:short"],
        decontaminate={"against": "evals.yaml"},
        shard_rows=25,
    )
    path.write_text(
        path.read_text().replace("sources: []", "sources:\n- {name: data.jsonl, rows: 61}\n- {name: more.jsonl}")
    )

    assert mix("--output_dir", "out") == 0  # submitted; the jobs fail later
    said = capfd.readouterr().err
    assert "Submitted." in said
    assert "Slurm jobs: convert 1000, select 1001, write 1002, finish 1003" in said
    assert jobs(slurm) == [
        "done mix-convert 0-1",
        "failed mix-select 0-0",
        "failed mix-write 0-0",
        "failed mix-finish 0-0",
    ]
    (log,) = Path("out/.logs/select/slurm_logs").iterdir()
    ending = log.read_text(encoding="utf-8").rpartition("DataError")[2].split("\n\n")[-1]
    assert slugs(ending) == {"mix-amount"}
    assert not list(Path("out/.logs/finish/slurm_logs").iterdir())  # it never ran
    assert not Path("out/mix.lock.json").exists()
    assert not Path("out/data").exists()

    path.write_text(path.read_text().replace("rows: 61", "rows: 60"))
    assert mix("--output_dir", "out", "--show", "2") == 0
    assert "Then:  python -m tulu_recipes.mix out --show 2" in capfd.readouterr().err
    assert [job.split()[0] for job in jobs(slurm)[4:]] == ["done"] * 4, _logs()
    assert read_json(Path("mix.lock.json")) == read_json(Path("out/mix.lock.json"))
    assert {entry.name for entry in Path("out").iterdir()} >= {"data", "README.md", "length_histogram.png", ".logs"}
    assert not Path("out/.build").exists()
    assert main(["out", "--show", "2"]) == 0  # logs beside the rows are no data
    build(path, Path("local"))
    assert shard_bytes(Path("out")) == shard_bytes(Path("local"))
    assert len(shard_bytes(Path("out"))) == 3


def _logs() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in Path("out").glob(".logs/*/slurm_logs/*"))


def test_what_slurm_does_not_take_is_refused(slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_mix(Path(), {"data.jsonl": chats(3)})
    executor = Path("executor.yaml")
    executor.write_text(EXECUTOR.replace("partition: cpu", "partition: closed"), encoding="utf-8")
    assert mix("--output_dir", "out") == 2
    said = capfd.readouterr().err
    assert "invalid partition specified: closed" in said  # Slurm's own words
    assert slugs(said) == {"mix-executor"}
    (slurm / "bin" / "sbatch").unlink()
    assert mix("--output_dir", "out") == 2
    assert "there is no sbatch on this machine" in capfd.readouterr().err
    assert mix("--workers", "4") == 2
    assert "write  workers: 4  into executor.yaml" in capfd.readouterr().err
