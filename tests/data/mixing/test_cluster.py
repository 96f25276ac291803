"""The passes under datatrove's executors write the bytes that they write here, and what fails is said and redone."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.mixing.mixes import build, chat, chats, describe_nothing, questions, shard_bytes, write_mix
from tests.tiny import tiny_tokenizer
from tulu_recipes.data.mixing.build import Built, build_mix
from tulu_recipes.data.mixing.cluster import ClusterPasses, Share, check_done, read_executor, refuse_queued
from tulu_recipes.data.mixing.executor_file import read_executor_file
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import read_json, write_json

pytestmark = pytest.mark.integration


def executor(folder: Path, text: str) -> str:
    path = folder / "executor.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def build_with(passes: ClusterPasses, mix: Path, output_dir: Path) -> Built:
    return build_mix(load_mix(mix), output_dir, passes=passes, describe=describe_nothing)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts of a few rows; the job is pickled with them."""
    from tulu_recipes.data.mixing.job import Job

    original = Job.__init__

    def init(self: Job, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **(kwargs | {"part_rows": 17}))

    monkeypatch.setattr(Job, "__init__", init)


def test_datatrove_s_executor_writes_the_bytes_of_a_build_here(tmp_path: Path, small_parts: None) -> None:
    mix = write_mix(
        tmp_path,
        {"a.jsonl": chats(90, "a"), "b.jsonl": chats(40, "b") + chats(30, "a")},
        filters=[{"characters": {"min": 1}}, "exact_duplicates"],
        shard_rows=40,
    )
    passes = read_executor(executor(tmp_path, "executor: local\ntasks: 3\nworkers: 2\n"))
    here, there = build(mix, tmp_path / "here"), build_with(passes, mix, tmp_path / "there")
    assert shard_bytes(tmp_path / "here") == shard_bytes(tmp_path / "there")
    assert len(shard_bytes(tmp_path / "here")) == 4
    assert here.lock == there.lock
    assert {path.name for path in (tmp_path / "there").iterdir()} == {
        "data",
        "mix.lock.json",
        "README.md",
        "_build.lock",
    }


# datatrove's own; as an error it would end its thread that places tasks, and datatrove would wait for ever
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_writes_the_bytes_of_a_build_here(tmp_path: Path, small_parts: None) -> None:
    """Ray is not in the supported set, so this runs where somebody has installed it."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    try:
        mix = write_mix(tmp_path, {"a.jsonl": chats(90, "a"), "b.jsonl": chats(70, "b")}, shard_rows=40)
        passes = read_executor(executor(tmp_path, "executor: ray\ntasks: 3\nworkers: 2\nmem_per_cpu_gb: 0.5\n"))
        build(mix, tmp_path / "here")
        build_with(passes, mix, tmp_path / "there")
        assert shard_bytes(tmp_path / "here") == shard_bytes(tmp_path / "there")
        assert not (tmp_path / "there" / ".logs").exists()
    finally:
        ray.shutdown()


def test_what_selection_refuses_is_said_and_the_mended_mix_is_built(tmp_path: Path) -> None:
    """Both runs write their logs into one folder: marks of the first must not make the second skip a task."""
    mix = write_mix(tmp_path, {"a.jsonl": [*chats(5), {"messages": None}]})
    passes = read_executor(executor(tmp_path, "executor: local\ntasks: 2\nworkers: 1\n"))
    with pytest.raises(DataError) as refused:
        build_with(passes, mix, tmp_path / "out")
    assert refused.value.slugs == ["mix-broken-rows"]
    assert not (tmp_path / "out" / "mix.lock.json").exists()
    mix.write_text("max_broken_fraction: 0.5\n" + mix.read_text(encoding="utf-8"), encoding="utf-8")
    build_with(passes, mix, tmp_path / "out")
    assert len(questions(tmp_path / "out")) == 5


class Stop(Exception):
    pass


def unfinished(mix: Path, output_dir: Path) -> Path:
    """A .build folder with the job saved and no pass done."""

    def stop(build: Path, finish: object) -> bool:
        raise Stop

    with pytest.raises(Stop):
        build_mix(load_mix(mix), output_dir, passes=stop, describe=describe_nothing)
    return (output_dir / ".build").resolve()


def test_a_share_is_every_nth_part_and_does_again_only_what_is_missing(tmp_path: Path, small_parts: None) -> None:
    folder = unfinished(write_mix(tmp_path, {"a.jsonl": chats(90)}), tmp_path / "out")
    share = Share("convert", folder, tmp_path)
    share(None, 1, 3)
    assert sorted(path.name for path in (folder / "parts").iterdir()) == ["000-00001", "000-00004"]
    with pytest.raises(DataError) as refused:
        Share("select", folder, tmp_path)(None, 0, 1)
    (problem,) = refused.value.problems
    assert problem.slug == "mix-tasks-failed"
    assert "4 of 6 pieces of the convert pass were not made (000-00000, 000-00002, 000-00003, …)" in problem.what
    assert str(tmp_path / "out" / ".logs" / "convert") in problem.mend
    for rank in range(3):
        share(None, rank, 3)
    check_done(folder, "convert")
    kept, gone = folder / "parts" / "000-00001", folder / "parts" / "000-00004"
    before = kept.stat().st_ino
    (gone / "rows.arrow").unlink()
    (gone / "rows.arrow").parent.rename(folder / "elsewhere")
    share(None, 1, 3)
    assert (gone / "rows.arrow").is_file()
    assert kept.stat().st_ino == before


def test_relative_paths_and_filters_are_those_of_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task finds the filter's module and the tokenizer's file."""
    (tmp_path / "filters_of_this_test.py").write_text("def short(row):\n    return len(str(row)) < 400\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` has it
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    mix = write_mix(
        tmp_path, {"a.jsonl": chats(5)}, filters=["filters_of_this_test:short"], tokenizer="./tok/tokenizer.json"
    )
    mix.write_text(mix.read_text().replace(f"{tmp_path}/", ""))
    monkeypatch.chdir(tmp_path)
    folder = unfinished(Path("mix.yaml"), Path("out"))
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    sys.modules.pop("filters_of_this_test", None)
    Share("convert", folder, tmp_path)(None, 0, 1)
    Share("select", folder, tmp_path)(None, 0, 1)
    assert read_json(folder / "selection" / "summary.json")["tokens"] > 5
    assert Path.cwd() == Path("/")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("executor: slrm\n", [("line 1", "slrm is unknown", "slurm, ray or local")]),
        ("tasks: 3\n", [("", "executor is missing", "slurm, ray or local")]),
        ("- executor\n", [("", "something else", "mix_cluster.md")]),
        ("executor: [\n", [("", "cannot be read", "mix_cluster.md")]),
        (
            "executor: slurm\npartitoin: cpu\ntasks: many\ntime: 2:00:00\n",
            [
                ("line 2", "partitoin is no argument", "did you mean partition?"),
                ("line 3", "tasks: 'many' is not a whole number", "tasks: 64"),
                ("line 4", "7200 minutes", 'time: "2:00:00"'),
                ("", "partition is missing", "partition: cpu"),
            ],
        ),
        (
            "executor: slurm\ntasks: 2\ntime: '1:00'\npartition: cpu\nselect: {tasks: 4, mem: 3}\nwrite: 5\n",
            [
                ("line 5", "select, mem is no argument", ""),
                ("line 5", "select is one task", "leave"),
                ("line 6", "write holds the arguments", "write: {"),
            ],
        ),
        ("executor: slurm\ntasks: 2\n", [("", "time is missing", '"2:00:00"'), ("", "partition is missing", "")]),
        (
            "executor: local\ntasks: 0\nskip_completed: true\n",
            [("2", "tasks: 0", ""), ("3", "is set by the build", "")],
        ),
        ("executor: local\ntasks: true\nworkers: 0\n", [("2", "tasks: True", ""), ("3", "workers: 0", "")]),
    ],
)
def test_a_faulty_executor_file_is_refused_with_all_its_faults(
    tmp_path: Path, text: str, said: list[tuple[str, str, str]]
) -> None:
    path = executor(tmp_path, text)
    with pytest.raises(DataError) as refused:
        read_executor_file(path)
    problems = refused.value.problems
    assert set(refused.value.slugs) == {"mix-executor"}
    assert len(problems) == len(said), problems
    for problem, (where, what, mend) in zip(problems, said, strict=True):
        assert problem.where.startswith(path)
        assert (where, what, mend) == tuple(
            part if part in text else text
            for part, text in ((where, problem.where), (what, problem.what), (mend, problem.mend))
        )


@pytest.mark.parametrize(
    ("name", "lacking", "mend"),
    [
        ("slurm", {"datatrove"}, "pip install 'tulu-recipes[cluster]'"),
        ("ray", {"ray"}, "pip install ray"),
        ("ray", {"datatrove", "ray"}, "pip install 'tulu-recipes[cluster]' ray"),
    ],
)
def test_a_missing_library_is_named_with_its_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lacking: set[str], mend: str
) -> None:
    monkeypatch.setattr("tulu_recipes.data.mixing.executor_file._has", lambda package: package not in lacking)
    with pytest.raises(DataError) as refused:
        read_executor_file(executor(tmp_path, f"executor: {name}\n"))
    assert [problem.mend for problem in refused.value.problems] == [mend]


def test_the_shipped_executor_file_is_one() -> None:
    file = read_executor_file(str(Path(__file__).parents[3] / "recipes" / "slurm" / "mix.yaml"))
    assert file.arguments_of("select")["mem_per_cpu_gb"] > file.arguments_of("convert")["mem_per_cpu_gb"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_executor_file(str(tmp_path / "gone.yaml"))


def busy(output_dir: Path) -> Problem:
    with pytest.raises(DataError) as refused:
        refuse_queued(output_dir)
    (problem,) = refused.value.problems
    assert problem.slug == "mix-folder-busy"
    return problem


def test_a_folder_that_queued_jobs_will_fill_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.data.mixing.slurm import stand_in

    out = tmp_path / "out"
    refuse_queued(out)
    (out / ".logs").mkdir(parents=True)
    write_json(out / ".logs" / "jobs.json", ["1001", "1002"])
    for name, value in stand_in(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    refuse_queued(out)
    monkeypatch.setenv("FAKE_QUEUED", "1002")
    assert "scancel 1002" in busy(out).mend
    with pytest.raises(DataError, match="queued or running: 1002"):
        build(write_mix(tmp_path / "mix", {"a.jsonl": [chat("q")]}), out)
    (tmp_path / "slurm" / "bin" / "squeue").write_text("#!/bin/bash\necho no controller >&2\nexit 1\n")
    assert "no controller" in busy(out).what
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no squeue" in busy(out).what
