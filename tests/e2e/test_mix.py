"""`python -m tulu_recipes.mix` as its first user and its worst one meet it: odd files, kills, full disks, stages."""

import gzip
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from tests.data.mixing.mixes import chat, chats, questions, rows_of, shard_bytes, to_parquet, write_mix
from tests.e2e.mix_command import mix_here, processes_of, start_mix
from tests.stage import run_sft_here, slugs, write_recipe
from tests.tiny import save_base, write_rows
from tulu_recipes.data.mixing.lock import LOCK
from tulu_recipes.run import read_json, write_json

pytestmark = pytest.mark.e2e

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
Content = bytes | Callable[[Path], object]


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def cut_parquet(path: Path) -> None:
    to_parquet(path, chats(50))
    path.write_bytes(path.read_bytes()[:500])


def empty_parquet(path: Path) -> None:
    pq.write_table(pa.table({"messages": pa.array([], MESSAGES)}), path)


def latin1(text: str) -> bytes:
    return json.dumps(chat(text), ensure_ascii=False).encode("latin-1") + b"\n"


def mix_of(folder: Path, files: Mapping[str, Content], *sources: str, top: str = "") -> Path:
    """mix.yaml of sources in flow style, in which @ stands for `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
    lines = "".join(f"  - {{{source.replace('@', str(folder))}}}\n" for source in sources)
    (folder / "mix.yaml").write_text(f"{top}sources:\n{lines}", encoding="utf-8")
    return folder / "mix.yaml"


def lines_of(text: str) -> list[str]:
    """What is said, less the lines of progress."""
    return [line for line in text.splitlines() if line and not line.startswith(("Converting", "Writing"))]


A = jsonl(chat("a", id=1))


@pytest.mark.parametrize(
    ("files", "source", "slug", "said"),
    [
        ({"a.csv": "question,answer\né,a\n".encode("cp1252")}, "name: @/a.csv", "file-unreadable", "'utf-8' codec"),
        ({"a.csv": b"question,answer\n"}, "name: @/a.csv", "file-unreadable", "it has no rows"),
        ({"a.parquet": empty_parquet}, "name: @/a.parquet", "file-unreadable", "it has no rows"),
        ({"a.json": b"[]"}, "name: @/a.json", "file-unreadable", "an empty list"),
        ({"a.json": b'[\n {"messages": 1},\n {'}, "name: @/a.json", "file-unreadable", "at line 3 column 3"),
        ({"a.jsonl": A + latin1("é")}, "name: @/a.jsonl", "file-unreadable", "line 2: not UTF-8"),
        ({"d/a.jsonl": A + latin1("é")}, "name: @/d", "file-unreadable", "line 2: not UTF-8"),
        ({"a.jsonl": A + A[:-9]}, "name: @/a.jsonl", "file-unreadable", "line 2: not JSON"),
        ({"d/a.jsonl": A, "d/b.jsonl": A[:-9]}, "name: @/d", "file-unreadable", "line 1: not JSON"),
        (
            {"a.jsonl": A + jsonl(chat("\ud83d")) + A},
            "name: @/a.jsonl",
            "file-unreadable",
            "line 2: half of a character",
        ),
        ({"a.jsonl": b'{"m": ' + b"[" * 3000 + b"]" * 3000 + b"}\n"}, "name: @/a.jsonl", "file-unreadable", "deep"),
        ({"a.parquet": cut_parquet}, "name: @/a.parquet", "file-unreadable", "magic bytes"),
        ({"d/a.parquet": cut_parquet}, "name: @/d", "file-unreadable", "magic bytes"),
        ({"a.arrow": b"hello"}, "name: @/a.arrow", "file-unreadable", "too small"),
        ({"a.tsv": b"question\tanswer\n"}, "name: @/a.tsv", "file-type-unknown", ".tsv"),
        ({"a.jsonl.gz": gzip.compress(A)}, "name: @/a.jsonl.gz", "file-type-unknown", ".gz"),
        (
            {"d/a.jsonl": A, "d/b.jsonl": jsonl(chat("b", extra=1))},
            "name: @/d",
            "file-unreadable",
            "id is missing; extra is new",
        ),
        (
            {"d/a.jsonl": A, "d/b.jsonl": jsonl(chat("b", id="x"))},
            "name: @/d",
            "file-unreadable",
            "id is string, not int64",
        ),
        ({"d/a.jsonl": A, "d/b.csv": b"question,answer\nq,a\n"}, "name: @/d", "dataset-unreadable", "b.csv"),
        ({"d/train.jsonl": A, "d/more.jsonl": A}, "name: @/d", "dataset-unreadable", "not be read: more.jsonl"),
        ({"d/notes.md": b"# notes\n"}, "name: @/d", "dataset-unreadable", "no files with rows"),
        ({"d [1]/a.jsonl": A}, "name: '@/d [1]'", "dataset-unreadable", "wildcards"),
        ({"d/train.jsonl": A}, "name: @/d, split: test", "split-unknown", "'train'"),
        ({"a.jsonl": A}, "name: @/a.jsonl, split: test", "split-unknown", "'train'"),
        ({"a.jsonl": A}, "name: @/a.jsonl, config: main", "mix-source", "config: main says nothing"),
        ({"a.jsonl": A}, "name: @/a.jsonl, revision: v1", "mix-source", "revision: v1 says nothing"),
        ({}, "name: 'hf://datasets/org/data'", "mix-source", "no address of rows"),
        ({}, "name: 's3://bucket/a.parquet'", "mix-source", "no address of rows"),
        ({"a.jsonl": A}, "name: @/a.jsonl, weight: 2", "mix-weight", "weight cannot be said here"),
        ({"a.jsonl": A}, "name: @/a.jsonl, fraction_of_source: 1.5", "out-of-range", "1.5"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_sentence(
    tmp_path: Path, files: dict[str, Content], source: str, slug: str, said: str
) -> None:
    done = mix_here(mix_of(tmp_path, files, source), "--output_dir", tmp_path / "out", "--workers", "1")
    assert (done.returncode, slugs(done.stderr)) == (2, {slug})
    assert said in done.stderr
    assert "mix.yaml line 2" in done.stderr
    head = done.stderr.startswith(str(tmp_path / "mix.yaml: 1 problem"))
    assert len(lines_of(done.stderr)) == 3 + head, done.stderr  # nothing that a library logged
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize(
    ("files", "source", "rows"),
    [
        ({"a.csv": b"\xef\xbb\xbfquestion,answer\nq,a\n"}, "name: @/a.csv", 1),
        ({"a.jsonl": b"\xef\xbb\xbf" + A + b"\n\n"}, "name: @/a.jsonl", 1),
        ({"a.jsonl": A.replace(b"\n", b"\r\n") + A.rstrip()}, "name: @/a.jsonl", 2),
        ({"d/a-0.parquet": lambda p: to_parquet(p, chats(3)), "d/a-1.parquet": empty_parquet}, "name: @/d", 3),
        ({"d/a.jsonl": A, "d/b.jsonl": b"", "d/README.md": b"# no metadata\n", "d/.x": b"\0"}, "name: @/d", 1),
        ({"ein Ordner ü/daten [1] 日本.jsonl": A}, "name: '@/ein Ordner ü/daten [1] 日本.jsonl'", 1),
        ({"a.jsonl": jsonl(chat("é", id=1), chat("e\u0301", id=1))}, "name: @/a.jsonl, keep_columns: [id]", 2),
    ],
    ids=["csv-bom", "jsonl-bom", "crlf", "empty-shard", "empty-file", "odd-name", "twins-and-equal-ids"],
)
def test_what_is_only_odd_is_read_without_a_word(
    tmp_path: Path, files: dict[str, Content], source: str, rows: int
) -> None:
    done = mix_here(mix_of(tmp_path, files, source), "--output_dir", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stderr)[0] == "Sources" + " " * (len(lines_of(done.stderr)[0]) - 7)
    assert len(rows_of(tmp_path / "out")) == rows


def test_columns_of_every_type_are_mixed_or_named(tmp_path: Path) -> None:
    text = pa.struct([("role", pa.large_string()), ("content", pa.large_string()), ("weight", pa.int8())])

    def large(path: Path) -> None:
        messages = [[message | {"weight": 1} for message in chat("large")["messages"]]]
        pq.write_table(pa.table({"messages": pa.array(messages, pa.large_list(text)), "meta": pa.array(["m"])}), path)

    def lists(path: Path) -> None:  # as `Sequence` of a struct was stored
        turns = {"from": ["human", "gpt"], "value": ["lists", "a"]}
        pq.write_table(pa.table({"conversations": [turns]}), path)

    mixed = jsonl(chat("b", meta={"k": [1, None]}), chat("c", meta="text"), chat("d", meta=None))
    nulls = jsonl(chat("e"), {"messages": [None]}, {"messages": [{"role": None, "content": "x"}]}, {"messages": None})
    files: dict[str, Content] = {"a.parquet": large, "b.jsonl": mixed, "c.parquet": lists, "d.jsonl": nulls}
    kept = ("name: @/a.parquet, keep_columns: [meta]", "name: @/b.jsonl, keep_columns: [meta]")
    path = mix_of(
        tmp_path,
        files,
        *kept,
        "name: @/c.parquet",
        "name: @/d.jsonl",
        top="max_broken_fraction: 0.8\norder: as_given\n",
    )
    done = mix_here(path, "--output_dir", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert questions(tmp_path / "out") == ["large", "b", "c", "d", "lists", "e"]
    assert [row["meta"] for row in rows_of(tmp_path / "out")][:4] == ["m", '{"k": [1, null]}', '"text"', None]
    ids = {"a.jsonl": A, "b.jsonl": jsonl(chat("b", id="x"))}
    path = mix_of(tmp_path, ids, "name: @/a.jsonl, keep_columns: [id]", "name: @/b.jsonl, keep_columns: [id]")
    done = mix_here(path, "--output_dir", tmp_path / "ids", "--workers", "1")
    assert (done.returncode, slugs(done.stderr)) == (2, {"mix-column"})
    assert "id is string in" in done.stderr


# Kills and full disks


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def holds(folder: Path, suffix: str = "") -> bool:
    return folder.is_dir() and any(p.suffix == suffix for p in folder.iterdir() if not p.name.startswith("."))


def gone(session: int) -> bool:
    deadline = time.monotonic() + 10
    while processes_of(session):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_killed_build_leaves_no_worker_and_no_mix_and_goes_on(tmp_path: Path) -> None:
    rows = {f"{name}.jsonl": chats(2500, name) for name in ("a", "b", "c")}
    # a hundred shards, so that a busy machine still finds the build at work when it is interrupted
    mix = write_mix(tmp_path, rows, shard_rows=75, filters=["exact_duplicates"])
    out = tmp_path / "out"
    command = (mix, "--output_dir", out, "--workers", "2")

    process = start_mix(*command)
    wait_for(process, lambda: holds(out / ".build" / "parts"))
    os.killpg(process.pid, signal.SIGSTOP)  # it gets no further while the other one asks
    busy = mix_here(*command)
    assert (busy.returncode, slugs(busy.stderr)) == (2, {"mix-folder-busy"})
    process.kill()
    os.killpg(process.pid, signal.SIGCONT)  # its workers find it gone
    process.communicate()
    assert gone(process.pid), processes_of(process.pid)
    refuse_unfinished(tmp_path, out)

    process = start_mix(*command)
    wait_for(process, lambda: holds(out / ".build" / "shards", ".parquet"))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Run the same command again" in errors
    assert "Traceback" not in errors
    assert gone(process.pid), processes_of(process.pid)
    assert not (out / LOCK).exists()

    assert mix_here(*command).returncode == 0
    assert sorted(entry.name for entry in out.iterdir()) == [
        "README.md",
        "_build.lock",
        "data",
        "length_histogram.png",
        LOCK,
    ]
    whole = mix_here(mix, "--output_dir", tmp_path / "whole", "--workers", "1")
    assert whole.returncode == 0, whole.stderr
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")


def refuse_unfinished(tmp_path: Path, out: Path) -> None:
    """Nothing takes the folder for a mix."""
    with pytest.raises(FileNotFoundError):
        load_dataset(str(out))
    shown = mix_here(out, "--show", "1")
    assert (shown.returncode, slugs(shown.stderr)) == (2, {"mix-unfinished"})
    named = write_recipe(tmp_path / "named", dataset_name=str(out))
    mixed = write_recipe(tmp_path / "mixed", dataset_mix=str(out), dataset_name=None)
    for recipe in (named, mixed):
        done = run_sft_here(recipe)
        assert done.returncode == 2, done.stderr
        assert slugs(done.stderr) == {"mix-unfinished"}, done.stderr


def test_a_full_disk_is_said_and_the_same_command_goes_on(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(3000, "x" * 60)})
    command = (mix, "--output_dir", tmp_path / "out", "--workers", "1")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))  # noqa: E731
    assert mix_here(mix, "--output_dir", tmp_path / "warm", "--workers", "1").returncode == 0  # the cache is filled
    process = start_mix(*command, preexec_fn=small)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert slugs(errors) == {"disk-full"}
    assert "run the same command again" in errors
    assert mix_here(*command).returncode == 0
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "warm")


# Folders and locks


def test_folders_that_are_not_ours_and_locks_that_are_none(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(3)})
    (tmp_path / "file").write_text("x")
    foreign = mix_here(mix, "--output_dir", tmp_path / "file")
    assert (foreign.returncode, slugs(foreign.stderr)) == (2, {"mix-folder-foreign"})
    without = mix_here(mix, "--output_dir", tmp_path / "out", "--locked")
    assert (without.returncode, slugs(without.stderr)) == (2, {"mix-lock-missing"})
    assert "mix.lock.json or" in without.stderr

    (tmp_path / "mix.lock.json").write_text("{")  # half a lock beside the mix is replaced
    assert mix_here(mix, "--output_dir", tmp_path / "out", "--workers", "1").returncode == 0
    assert read_json(tmp_path / "mix.lock.json")["result"]["rows"] == 3
    (tmp_path / "mix.lock.json").unlink()
    (tmp_path / ".mix.lock.json.writing").mkdir()  # where the lock would be written first
    done = mix_here(mix, "--output_dir", tmp_path / "out")
    assert done.returncode == 0
    assert "No lock could be written beside" in done.stderr
    assert "Built already, nothing has changed" in done.stderr
    (tmp_path / "mix.lock.json").write_text("{}")  # makes no mix of the folder that the YAML is in
    foreign = mix_here(mix, "--output_dir", tmp_path)
    assert (foreign.returncode, slugs(foreign.stderr)) == (2, {"mix-folder-foreign"})
    again = mix_here(mix, "--output_dir", tmp_path / "again", "--locked", tmp_path / "out", "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "out")

    stray = tmp_path / "out" / "data" / "train-00007-of-00001.parquet"
    stray.write_bytes(next((tmp_path / "out" / "data").iterdir()).read_bytes())
    shown = mix_here(tmp_path / "out", "--show", "1")
    assert (shown.returncode, slugs(shown.stderr)) == (2, {"mix-files-changed"})
    assert "is not in the lock" in shown.stderr


def test_locked_takes_the_lock_beside_the_mix_first(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(9)})
    assert mix_here(mix, "--output_dir", tmp_path / "out", "--workers", "1").returncode == 0
    beside = tmp_path / "mix.lock.json"
    lock = read_json(beside)
    lock["sources"][0]["rows_available"] = 8
    write_json(beside, lock)
    done = mix_here(mix, "--output_dir", tmp_path / "out", "--locked")
    assert (done.returncode, slugs(done.stderr)) == (2, {"mix-source-moved"})
    assert "rows available 8 → 9" in done.stderr
    mix.write_text("seed: 1\n" + mix.read_text())
    done = mix_here(mix, "--output_dir", tmp_path / "out", "--locked")
    assert (done.returncode, slugs(done.stderr)) == (2, {"mix-lock-stale"})
    assert "seed: 42 → 1" in done.stderr


# Stages


def test_sft_builds_a_mix_uses_it_and_holds_it_to_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "base")
    words = [chat(f"the cat sat {n}", f"on a mat {n}") for n in range(24)]
    mix = write_mix(tmp_path / "mixes", {"a.jsonl": words})
    keys: dict[str, Any] = {"model_name_or_path": str(tmp_path / "base"), "dataset_name": None, "num_train_epochs": 1}
    recipe = write_recipe(tmp_path / "work", dataset_mix=str(mix), dataset_num_proc=1, **keys)
    done = run_sft_here(recipe)
    assert done.returncode == 0, done.stderr
    run, built = tmp_path / "work" / "run", tmp_path / "runs" / "mixes" / "mixes-mix"
    assert read_json(run / "data.lock.json") == read_json(built / LOCK)
    assert str(mix) in (run / "README.md").read_text()

    other = write_recipe(tmp_path / "folder", dataset_mix=str(built), **keys)
    assert run_sft_here(other).returncode == 0
    assert read_json(tmp_path / "folder" / "run" / "data.lock.json") == read_json(built / LOCK)

    def refused(recipe: Path, name: str) -> tuple[int, set[str]]:
        done = run_sft_here(recipe, "--output_dir", str(tmp_path / name))
        assert not (tmp_path / name).exists()
        return done.returncode, slugs(done.stderr)

    shard = next((built / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    assert refused(other, "by-hand") == (2, {"mix-files-changed"})
    write_json(tmp_path / "mixes" / "mix.lock.json", read_json(built / LOCK))
    mix.write_text("seed: 1\n" + mix.read_text())
    assert refused(recipe, "edited") == (2, {"mix-lock-stale"})
    mix.write_text(mix.read_text().replace("target: sft", "target: rlvr"))
    assert refused(recipe, "target") == (2, {"mix-target"})


# Decontamination, showing, flags

GSM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


@pytest.mark.parametrize(
    ("tokenization", "planted"),
    [
        ("words", "NATALIA sold clips to 72 of her friends in april and then she sold half as many clips in May!"),
        ("as_released", GSM),
    ],
)
def test_a_planted_test_question_is_removed_and_counted(tmp_path: Path, tokenization: str, planted: str) -> None:
    write_rows(
        tmp_path / "gsm.jsonl", [{"question": GSM}, {"question": "Some other question of eight words or more."}]
    )
    evaluation = {"name": "gsm", "dataset": str(tmp_path / "gsm.jsonl"), "split": "train", "fields": ["question"]}
    evals = {"evaluations": [evaluation | {"action": "drop_rows", "tokenization": tokenization}]}
    (tmp_path / "evals.yaml").write_text(yaml.safe_dump(evals))
    source = {"a.jsonl": [*chats(5, "a question"), chat(planted)]}
    mix = write_mix(tmp_path, source, decontaminate={"against": str(tmp_path / "evals.yaml")})
    done = mix_here(mix, "--output_dir", tmp_path / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    lock = read_json(tmp_path / "out" / LOCK)
    assert sorted(questions(tmp_path / "out")) == [f"a question {n}" for n in range(5)]
    assert lock["sources"][0]["steps"][1] == {
        "step": "decontaminate",
        "rows_in": 6,
        "rows_out": 5,
        "reasons": {"overlaps an evaluation": 1},
    }
    (entry,) = lock["decontamination"]["table"]
    assert (entry["evaluation"], entry["rows_removed"]) == ("gsm", 1)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "gsm" in card.partition("## Contamination")[2]
    report = read_json(tmp_path / "out" / "contamination.json")
    assert report["sources"][str(tmp_path / "a.jsonl")]["removed_rows"] == [5]
    assert [sample["row"] for sample in report["samples"]] == [5]
    assert "⟦" in report["samples"][0]["row_text"]
    assert "a.jsonl row 5, gsm item 0" in (tmp_path / "out" / "contamination.md").read_text()


def test_rows_are_shown_as_a_person_reads_them(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    mix = write_mix(tmp_path, {"a.jsonl": [chat(f"the cat {n}", f"a mat {n}") for n in range(3)]})
    done = mix_here(mix, "--output_dir", tmp_path / "out", "--workers", "1", "--show", "9")
    assert done.returncode == 0, done.stderr
    assert all(f"the cat {n}" in done.stdout for n in range(3))
    assert "Built" not in done.stdout
    missing = mix_here(tmp_path / "out", "--show", "1", "--masks")
    assert (missing.returncode, slugs(missing.stderr)) == (2, {"mix-tokenizer"})
    for_none = mix_here(tmp_path / "out", "--show", "1", "--masks", "--tokenizer", tmp_path / "none")
    assert (for_none.returncode, slugs(for_none.stderr)) == (2, {"mix-tokenizer"})
    masked = mix_here(tmp_path / "out", "--show", "1", "--masks", "--tokenizer", base)
    assert masked.returncode == 0, masked.stderr
    assert "⟦" in masked.stdout
    assert masked.stderr == ""
    limited = mix_here(mix, "--output_dir", tmp_path / "few", "--workers", "1", "--limit", "2")
    assert limited.returncode == 0
    assert len(rows_of(tmp_path / "few")) == 2


def test_tokenizers_filters_and_evaluations_that_are_none_are_refused_before_the_rows(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"x":')
    (tmp_path / "evals.yaml").write_text(
        f"evaluations:\n  - {{name: x, dataset: {tmp_path}/none.jsonl, fields: [q], action: drop_rows}}\n"
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tokenizer": str(tmp_path)}, "mix-tokenizer"),
        ({"tokenizer": str(tmp_path / "none")}, "mix-tokenizer"),
        ({"filters": ["no_such_module:polite"]}, "filter-function"),
        ({"decontaminate": {"against": str(tmp_path / "evals.yaml")}}, "hub-repo-name"),
    ]
    for keys, slug in cases:
        mix = write_mix(tmp_path, {"a.jsonl": chats(2)}, **keys)
        done = mix_here(mix, "--output_dir", tmp_path / "out", "--workers", "1")
        assert (done.returncode, slugs(done.stderr)) == (2, {slug})
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / ".build").exists()


def test_flags_are_listed_and_wrong_ones_refused(tmp_path: Path) -> None:
    listing = mix_here("--help")
    assert listing.returncode == 0
    for flag in "output_dir locked workers limit executor push_to_hub revision private show masks full seed".split():
        assert f"--{flag}" in listing.stdout
    for wrong in (("--limit", "0"), ("--workers", "x"), ("--bogus",)):
        assert mix_here("mix.yaml", *wrong).returncode == 2
    for arguments, slug in (
        ((tmp_path / "none.yaml",), "recipe-missing"),
        ((tmp_path,), "mix-nothing-to-do"),
        ((tmp_path, "--show", "1"), "mix-unfinished"),
    ):
        done = mix_here(*arguments)
        assert (done.returncode, slugs(done.stderr)) == (2, {slug})
