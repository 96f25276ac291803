"""Rows by name: what is read, and the one message for what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from tests.tiny import conversation, write_rows
from tulu_recipes.data.rows import row_fault
from tulu_recipes.data.sources import load_rows
from tulu_recipes.errors import DataError

pytestmark = pytest.mark.integration  # datasets' readers take most of a second

ROWS = [conversation(i) for i in range(10)]


def refusal(path: Path | str, **keys: Any) -> str:
    with pytest.raises(DataError) as refused:
        load_rows(str(path), **keys)
    return str(refused.value)


def test_files_and_folders_of_every_kind_hold_the_same_rows(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    write_rows(tmp_path / "a.jsonl", ROWS)
    rows.to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    rows.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "splits")
    for name in ("a.jsonl", "b.parquet", "c.json", "saved", "splits"):
        assert load_rows(str(tmp_path / name))["messages"][:] == rows["messages"][:], name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": [', "line 3: not JSON"),
        ("[1, 2]", "line 3: not an object"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    path.write_text(path.read_text() + line + "\n")
    text = refusal(path)
    assert "file-unreadable" in text
    assert said in text


def test_content_that_is_no_text_in_one_row_is_that_row_s_fault_alone(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [*ROWS[:2], {"messages": [{"role": "user", "content": 5}]}])
    faults = [row_fault(row) for row in load_rows(str(path))]
    assert faults == [None, None, "message 1 (user) has a number for content, not text"]


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + '{"messages": [{"role": "é"}]}'.encode("latin-1") + b"\n")
    assert "line 2: not UTF-8" in refusal(path)


def test_empty_files_unknown_types_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "rows.docx").write_text("x")
    write_rows(tmp_path / "alpaca.jsonl", [{"instruction": "a", "output": "b"}])
    assert "The file is empty" in refusal(tmp_path / "empty.jsonl")
    assert "file-type-unknown" in refusal(tmp_path / "rows.docx")
    assert "columns-unknown" in refusal(tmp_path / "alpaca.jsonl")


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows, "dev": rows}).save_to_disk(tmp_path / "splits")
    text = refusal(tmp_path / "splits", split="test")
    assert "split-unknown" in text
    assert "'train', 'dev'" in text


def test_a_missing_dataset_is_one_message(tmp_path: Path) -> None:
    assert "dataset-not-found" in refusal(tmp_path / "nowhere")


def test_a_shard_cut_on_disk_is_refused(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).to_parquet(tmp_path / "b.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    assert "file-unreadable" in refusal(tmp_path / "b.parquet")


def test_a_configuration_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError) as caught:
        load_rows(str(tmp_path), config="nowhere")
    assert caught.value.slugs == ["dataset-unreadable"]
    assert "nowhere" in str(caught.value)
    assert "dataset_config" in str(caught.value)
