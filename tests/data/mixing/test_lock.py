"""Locks: the same bytes or a refusal that names what moved; stages hold a mix to its lock; kills cost little."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.data.mixing.mixes import (
    QUIET,
    build,
    chats,
    describe_nothing,
    problems_of,
    questions,
    shard_bytes,
    write_mix,
)
from tests.tiny import write_rows
from tulu_recipes.data.mixing.build import LocalPasses
from tulu_recipes.data.mixing.lock import LOCK, check_files, keep_beside, lock_beside, read_lock
from tulu_recipes.data.mixing.mix_file import Mix, load_mix
from tulu_recipes.data.mixing.use import default_folder, is_built, read_built, use_mix
from tulu_recipes.errors import DataError
from tulu_recipes.run import read_json, write_json

pytestmark = pytest.mark.integration


def locked_mix(folder: Path, **mix: Any) -> tuple[Path, Path]:
    """A mix that was built in folder/out, and its lock."""
    path = write_mix(folder, {"a.jsonl": chats(30, "a"), "b.jsonl": chats(10, "b")}, **mix)
    build(path, folder / "out")
    return path, folder / "out" / LOCK


def test_a_lock_gives_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    build(path, tmp_path / "again", locked=lock)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "again")
    assert read_json(tmp_path / "again" / LOCK) == read_json(lock)


def test_a_source_that_moved_is_named_with_what_changed(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    write_rows(tmp_path / "b.jsonl", chats(11, "b"))
    (problem,) = problems_of(path, tmp_path / "again", locked=lock)
    assert problem.slug == "mix-source-moved"
    assert "b.jsonl is not what the lock holds" in problem.what
    assert "rows available 10 → 11" in problem.what
    assert "bytes" in problem.what
    assert not (tmp_path / "again" / "data").exists()


def test_an_edited_mix_does_not_match_its_lock(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    path.write_text("seed: 7\n" + path.read_text().replace("- name:", "- repeat: 2\n  name:", 1))
    (problem,) = problems_of(path, tmp_path / "again", locked=lock)
    assert problem.slug == "mix-lock-stale"
    assert "seed: 42 → 7" in problem.what
    assert "sources 1.repeat: None → 2" in problem.what


def test_another_pyarrow_is_refused_before_the_work_and_other_rows_after_it(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    changed = read_json(lock)
    changed["tools"]["pyarrow"] = "1.0"
    write_json(tmp_path / "other.json", changed)
    (problem,) = problems_of(path, tmp_path / "again", locked=tmp_path / "other.json")
    assert problem.slug == "mix-tool-moved"
    assert build(path, tmp_path / "rows", locked=tmp_path / "other.json", byte_for_byte=False).new
    changed = read_json(lock)
    changed["result"]["content_sha256"] = "0" * 64
    changed["sources"][0]["steps"][-1]["rows_out"] = 29
    write_json(tmp_path / "other.json", changed)
    (problem,) = problems_of(path, tmp_path / "third", locked=tmp_path / "other.json")
    assert problem.slug == "mix-lock-mismatch"
    assert "amount: 29 → 30" in problem.what
    assert not (tmp_path / "third" / LOCK).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mix": {}}'])
def test_a_file_that_is_no_lock_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError) as refused:
        read_lock(tmp_path / "x.json")
    assert refused.value.slugs == ["mix-lock-unreadable"]


def test_a_build_that_is_there_is_not_built_again_and_one_that_rotted_is(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    assert not build(path, tmp_path / "out").new
    shard = next((tmp_path / "out" / "data").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError) as refused:
        check_files(tmp_path / "out", read_lock(lock))
    assert refused.value.slugs == ["mix-files-changed"]
    assert build(path, tmp_path / "out").new
    assert shard.read_bytes() == whole


def test_another_mix_replaces_the_one_in_a_folder_but_nothing_else_does(tmp_path: Path) -> None:
    path, _ = locked_mix(tmp_path)
    path.write_text("seed: 7\n" + path.read_text())
    before = questions(tmp_path / "out")
    assert build(path, tmp_path / "out").new
    assert sorted(questions(tmp_path / "out")) == sorted(before)
    assert questions(tmp_path / "out") != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (problem,) = problems_of(path, tmp_path / "mine")
    assert problem.slug == "mix-folder-foreign"
    assert "thesis.tex" in problem.what
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_refused_build_leaves_the_finished_mix_of_before(tmp_path: Path) -> None:
    path, lock = locked_mix(tmp_path)
    bytes_before, lock_before = shard_bytes(tmp_path / "out"), lock.read_text()
    path.write_text(path.read_text() + "filters:\n  - characters: {min: 100000}\n")
    assert {problem.slug for problem in problems_of(path)} == {"mix-source-empty"}
    assert (shard_bytes(tmp_path / "out"), lock.read_text()) == (bytes_before, lock_before)
    assert len(read_built(tmp_path / "out")[0]) == 40


def test_a_refused_build_leaves_no_new_folder(tmp_path: Path) -> None:
    path = write_mix(tmp_path, {"a.jsonl": [{"x": 1}]})
    assert [problem.slug for problem in problems_of(path, tmp_path / "new" / "out")] == ["columns-unknown"]
    assert not (tmp_path / "new" / "out").exists()


def test_two_builds_do_not_share_a_folder(tmp_path: Path) -> None:
    path = write_mix(tmp_path, {"a.jsonl": chats(3)})
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / "_build.lock"):
        (problem,) = problems_of(path)
    assert problem.slug == "mix-folder-busy"
    assert build(path, tmp_path / "out").new


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.mixing.mixes import build
from tulu_recipes.data.mixing import {module} as module
original, calls = module.{function}, [0]
def dies(*args):
    calls[0] += 1
    if calls[0] == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)
module.{function} = dies
build(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [("convert", "_write_rows", 2), ("write", "_write_parquet", 2), ("build", "_publish", 1)],
)
def test_a_build_that_was_killed_is_not_taken_for_a_mix_and_goes_on(
    tmp_path: Path, module: str, function: str, call: int
) -> None:
    path = write_mix(tmp_path, {"a.jsonl": chats(30, "a"), "b.jsonl": chats(10, "b")}, shard_rows=10)
    build(path, tmp_path / "whole")
    code = KILLED.format(module=module, function=function, call=call)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "out")], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(DataError) as refused:
        read_built(tmp_path / "out")
    assert refused.value.slugs == ["mix-unfinished"]
    finished = [*(tmp_path / "out" / ".build").glob("parts/0*"), *(tmp_path / "out" / ".build").glob("shards/t*")]
    times = {entry: entry.stat().st_mtime_ns for entry in finished}
    assert times
    seen = {}

    def passes(build_folder: Path, finish: Any) -> bool:
        seen.update({entry: entry.stat().st_mtime_ns for entry in finished if entry.exists()})
        return LocalPasses(1, QUIET)(build_folder, finish)

    from tulu_recipes.data.mixing.build import build_mix

    build_mix(load_mix(path), tmp_path / "out", passes=passes, describe=describe_nothing)
    assert seen == times  # what was finished before the kill was not done again
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "whole")
    assert not (tmp_path / "out" / ".build").exists()


# ---- what a stage does with a mix


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def used(path: str, stage: str = "sft") -> Any:
    return use_mix(path, stage, passes=LocalPasses(1, QUIET), describe=describe_nothing)


def test_a_stage_builds_the_mix_it_names_once(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    assert not is_built(str(path), "sft")
    rows, lock = used(str(path))
    assert (len(rows), lock["result"]["rows"]) == (6, 6)
    assert is_built(str(path), "sft")
    shard = next((default_folder(load_mix(path)) / "data").iterdir())
    before = shard.stat().st_mtime_ns
    again, _ = used(str(path))
    assert again[:] == rows[:]
    assert shard.stat().st_mtime_ns == before
    assert len(used(str(default_folder(load_mix(path))))[0]) == 6  # the folder does as well


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("data_mixes/tulu3-sft.yaml", "tulu3-sft"),
        ("data_mixes/tiny/sft.yaml", "tiny-sft"),
        ("/home/me/repo/data_mixes/tiny/sft.yaml", "tiny-sft"),
        ("experiments/lr/sft.yaml", "lr-sft"),
        ("./mine.yaml", "mine"),
        ("../mine.yaml", "mine"),
    ],
)
def test_mixes_with_the_same_file_name_are_built_in_folders_of_their_own(path: str, folder: str) -> None:
    mix = Mix(path, sources=())
    assert default_folder(mix) == Path("runs/mixes") / folder
    assert default_folder(replace(mix, limit=5)) == Path("runs/mixes") / f"{folder}-limit-5"


def test_a_stage_refuses_a_mix_that_was_edited_since_it_was_locked(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    _, lock = used(str(path))
    kept = keep_beside(load_mix(path), lock)
    assert kept == lock_beside(path) == here / "mix.lock.json"
    assert len(used(str(path))[0]) == 6
    path.write_text("seed: 9\n" + path.read_text())
    with pytest.raises(DataError) as refused:
        used(str(path))
    assert refused.value.slugs == ["mix-lock-stale"]
    assert "seed: 42 → 9" in str(refused.value)
    assert "python -m tulu_recipes.mix" in str(refused.value)


def test_a_stage_refuses_rows_that_are_not_the_lock_s(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    _, lock = used(str(path))
    keep_beside(load_mix(path), lock)
    write_rows(here / "a.jsonl", chats(6, "other"))
    with pytest.raises(DataError) as refused:
        used(str(path))
    assert refused.value.slugs == ["mix-source-moved"]
    assert "a.jsonl has another content" in str(refused.value)


def test_a_stage_refuses_a_mix_for_another_stage_and_a_folder_that_is_none(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    with pytest.raises(DataError) as refused:
        used(str(path), "dpo")
    assert refused.value.slugs == ["mix-target"]
    (here / "empty").mkdir()
    with pytest.raises(DataError) as refused:
        used("empty")
    assert refused.value.slugs == ["mix-unfinished"]


def test_a_lock_beside_the_mix_is_rewritten_only_for_other_rows(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    _, lock = used(str(path))
    keep_beside(load_mix(path), lock)
    before = lock_beside(path).read_text()
    keep_beside(load_mix(path), lock | {"tools": lock["tools"] | {"python": "3.99"}})
    assert lock_beside(path).read_text() == before
    keep_beside(load_mix(path), lock | {"seed": 1})
    assert json.loads(lock_beside(path).read_text())["seed"] == 1


def _build_here(path: str, folder: str) -> None:
    build(Path(path), Path(folder), wait=True)


def test_processes_that_need_the_same_mix_wait_for_one_another(here: Path) -> None:
    path = write_mix(here, {"a.jsonl": chats(6)})
    (here / "out").mkdir()
    with FileLock(here / "out" / "_build.lock"):
        waiting = multiprocessing.get_context("spawn").Process(target=_build_here, args=(str(path), str(here / "out")))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
    waiting.join(60)
    assert waiting.exitcode == 0
    assert (here / "out" / LOCK).is_file()
