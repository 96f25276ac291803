"""The command: table, report, cleaned rows; what it refuses; the same answer for every number of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from tulu_recipes import decontaminate
from tulu_recipes.data.contamination import scan
from tulu_recipes.data.contamination.texts import text_columns, user_texts
from tulu_recipes.errors import DataError, RecipeError

pytestmark = pytest.mark.integration  # datasets' readers take most of a second

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?"
)
UNSEEN = "A train leaves the station at noon and travels west for exactly three hours before it stops in a small town."


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": QUESTION}]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"r{i}", "messages": user(f"Tell me something short about the number {i}, please.")} for i in range(30)
    ]
    rows[4]["messages"] = user("Solve it! " + QUESTION.replace("48", "3,600").upper())
    write_lines(tmp_path / "rows.jsonl", rows)
    write_lines(tmp_path / "gsm.jsonl", [{"question": QUESTION}, {"question": "Who won?"}])
    write_lines(tmp_path / "unseen.jsonl", [{"prompt": UNSEEN}])
    (tmp_path / "evals.yaml").write_text(
        "evaluations:\n"
        "  - {name: gsm8k, dataset: gsm.jsonl, fields: [question], action: drop_rows, tokenization: words}\n"
        "  - {name: unseen, dataset: unseen.jsonl, fields: [prompt], action: drop_source}\n"
    )
    return tmp_path


def run(*arguments: str) -> int:
    return decontaminate.main([*arguments, "--against", "evals.yaml"])


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "contamination.json").read_text(encoding="utf-8"))
    return found


def test_a_planted_question_is_found_shown_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rows.jsonl", "--output_dir", "clean") == 0
    out = capsys.readouterr().out
    assert "gsm8k" in out
    assert "1 of 30 rows are removed" in out
    report = read(folder / "clean")
    assert report["table"][0] == {
        "source": "rows.jsonl",
        "evaluation": "gsm8k",
        "items": 2,
        "overlapped": 1,
        "share": 0.5,
        "rows_matched": 1,
        "contaminated": True,
        "action": "drop_rows",
        "rows_removed": 1,
    }
    source = report["sources"]["rows.jsonl"]
    assert (source["removed_rows"], source["removed_ids"], source["dropped"]) == ([4], ["r4"], False)
    assert "NATALIA SOLD CLIPS TO 3,600 OF HER FRIENDS" in report["samples"][0]["row_text"]
    assert report["samples"][0]["row_text"].startswith("Solve it! ⟦NATALIA")
    assert report["settings"]["evaluations"][0]["revision"] is None
    page = (folder / "clean/contamination.md").read_text(encoding="utf-8")
    assert "| rows.jsonl | gsm8k | 2 | 1 | 50.00% | 1 | yes | drop_rows | 1 |" in page
    kept = load_dataset("clean", split="train")
    assert kept["id"][:] == [f"r{i}" for i in range(30) if i != 4]
    assert kept.features == Dataset.from_parquet(str(folder / "clean/data/train-00000-of-00001.parquet")).features
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] == []


def test_the_answer_does_not_depend_on_the_number_of_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PART_ROWS", 3)  # the planted row is in the second part
    assert run("rows.jsonl", "--output_dir", "one") == 0
    assert run("rows.jsonl", "--output_dir", "two", "--workers", "2") == 0
    assert read(folder / "one") == read(folder / "two")
    assert read(folder / "two")["sources"]["rows.jsonl"]["removed_rows"] == [4]


def test_a_mix_is_judged_source_by_source(folder: Path) -> None:
    write_lines(folder / "bad.jsonl", [{"prompt": UNSEEN, "completion": "x"}, {"prompt": "fine", "completion": "y"}])
    (folder / "mix.yaml").write_text("sources:\n  - name: rows.jsonl\n  - name: bad.jsonl\n  - name: rows.jsonl\n")
    assert run("mix.yaml", "--output_dir", "clean") == 0
    sources = read(folder / "clean")["sources"]
    assert {name: source["rows_removed"] for name, source in sources.items()} == {
        "rows.jsonl": 1,
        "bad.jsonl": 2,
        "rows.jsonl (2)": 1,
    }
    assert sources["bad.jsonl"]["dropped"] is True
    shards = sorted((folder / "clean/data").glob("*/*.parquet"))
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [29, 0, 29]
    assert pq.read_schema(shards[1]).names == ["prompt", "completion"]


@pytest.mark.parametrize("role", ["User", "human", "Human", " prompter "])
def test_user_turns_are_found_however_their_role_is_spelled(folder: Path, role: str) -> None:
    row = {"conversations": [{"from": role, "value": UNSEEN}, {"from": "gpt", "value": "x"}]}
    write_lines(folder / "talk.jsonl", [row, {"conversations": [{"from": role, "value": "Hello there."}]}])
    assert run("talk.jsonl", "--output_dir", "clean") == 0
    assert read(folder / "clean")["sources"]["talk.jsonl"]["rows_removed"] > 0


def test_a_built_mix_is_judged_by_its_source_column(folder: Path) -> None:
    (folder / "built/data").mkdir(parents=True)
    (folder / "built/mix.lock.json").write_text("{}")
    rows = [{"messages": user(UNSEEN if i == 3 else f"question {i}"), "source": "ab"[i % 2]} for i in range(6)]
    Dataset.from_list(rows).to_parquet(folder / "built/data/train-00000-of-00001.parquet")
    assert run("built", "--output_dir", "clean") == 0
    report = read(folder / "clean")
    assert report["sources"]["b"] == {"rows": 3, "dropped": True, "rows_removed": 3}
    assert report["sources"]["a"] == {"rows": 3, "dropped": False, "rows_removed": 0, "removed_rows": []}
    assert load_dataset("clean", split="train")["source"][:] == ["a"] * 3


def test_one_row_and_no_match(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(folder / "one.jsonl", [{"text": "hello"}])
    assert run("one.jsonl", "--output_dir", "clean") == 0
    assert "0 of 1 rows are removed" in capsys.readouterr().out
    assert load_dataset("clean", split="train")["text"][:] == ["hello"]
    assert read(folder / "clean")["samples"] == []


def test_an_earlier_answer_is_replaced_and_nothing_else(folder: Path) -> None:
    assert run("rows.jsonl", "--output_dir", "clean") == 0
    (folder / "clean/data/old.parquet").touch()
    assert run("rows.jsonl", "--output_dir", "clean") == 0
    assert [path.name for path in (folder / "clean/data").iterdir()] == ["train-00000-of-00001.parquet"]
    (folder / "other").mkdir()
    (folder / "other/contamination.json").write_text('{"table": []}')  # a mix has one, too
    with pytest.raises(DataError) as refused:
        run("rows.jsonl", "--output_dir", "other")
    assert refused.value.slugs == ["output-foreign"]


def test_what_cannot_be_compared_is_refused(folder: Path) -> None:
    write_lines(folder / "odd.jsonl", [{"a": 1, "b": "text"}])
    for extra, said in (((), "a, b"), (("--column", "a"), "No text to compare in a"), (("--column", "z"), "in z")):
        with pytest.raises(DataError, match="columns-unknown") as refused:
            run("odd.jsonl", *extra)
        assert said in str(refused.value)
    assert run("odd.jsonl", "--column", "b") == 0
    with pytest.raises(RecipeError) as refused_argument:
        run("rows.jsonl", "--workers", "0")
    assert refused_argument.value.slugs == ["bad-argument"]


CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@pytest.mark.parametrize(
    ("columns", "turns"),
    [
        ({"messages": pa.array([user("q") + user("r"), [], None], CHAT)}, [["q", "r"], [], []]),
        ({"prompt": pa.array(["q", None, "r"])}, [["q"], [], ["r"]]),
        ({"prompt": pa.array([user("q"), user("r")], CHAT), "completion": pa.array([[], []], CHAT)}, [["q"], ["r"]]),
        (
            {"prompt": pa.array(["r"]), "chosen": pa.array([user("q") + user("r")], CHAT), "x": pa.array([1])},
            [["q", "r", "r"]],
        ),
        ({"conversations": pa.array([[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]])}, [["q"]]),
        ({"instruction": pa.array(["do"]), "input": pa.array(["this"]), "output": pa.array(["x"])}, [["do", "this"]]),
        ({"question": pa.array(["q"]), "answer": pa.array(["a"])}, [["q"]]),
        ({"messages": pa.array([[{"role": "user", "content": None}]], CHAT)}, [[]]),
    ],
)
def test_user_turns_of_every_layout(columns: dict[str, pa.Array], turns: list[list[str]]) -> None:
    table = pa.table(columns)
    assert user_texts(table, text_columns(table.schema, "x")).to_pylist() == turns
    assert user_texts(table[:0], text_columns(table.schema, "x")).to_pylist() == []
    if len(turns) > 1:  # a slice starts in the middle of Arrow's buffers
        assert user_texts(table[1:], text_columns(table.schema, "x")).to_pylist() == turns[1:]


@pytest.mark.e2e
def test_exit_codes_and_help(folder: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[1])
        environ = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
        line = [sys.executable, "-m", "tulu_recipes.decontaminate", *arguments]
        return subprocess.run(line, capture_output=True, text=True, env=environ)

    done = command("rows.jsonl", "--against", "evals.yaml")
    assert done.returncode == 0, done.stderr
    assert "rows are removed" in done.stdout
    (folder / "broken.yaml").write_text("evaluations: 5")
    refused = command("rows.jsonl", "--against", "broken.yaml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("evals-unreadable")
    shown = command("--help")
    assert shown.returncode == 0
    assert "--against" in shown.stdout
    assert "judged source by source" in shown.stdout
