"""Rows by name and the minimal mix: what is read, and the one message for what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict
from tulu_recipes.data.mix import build_mix, load_mix

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


def write_mix(folder: Path, **mix: Any) -> Path:
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(mix))
    return path


def test_a_mix_takes_whole_sources_in_order_and_amounts_by_seed(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a.jsonl", ROWS)
    b = write_rows(tmp_path / "b.jsonl", [{"messages": row["messages"]} for row in ROWS])
    mix = write_mix(
        tmp_path, seed=7, sources=[{"name": str(a)}, {"name": str(b), "rows": 4}, {"name": str(a), "repeat": 1.5}]
    )
    rows = build_mix(mix)
    assert len(rows) == 10 + 4 + 15
    assert rows["messages"][:10] == [row["messages"] for row in ROWS]
    assert set(rows["source"][10:14]) == {str(b)}
    assert set(rows["source"][:10]) == {"source-0", "source-1"}
    assert build_mix(mix).to_dict() == rows.to_dict()
    other = write_mix(tmp_path, seed=8, sources=[{"name": str(b), "rows": 4}])
    assert build_mix(other)["messages"][:] != rows["messages"][10:14]


def test_fractions_round_to_rows(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a.jsonl", ROWS)
    assert len(build_mix(write_mix(tmp_path, sources=[{"name": str(a), "fraction_of_source": 0.25}]))) == 2


@pytest.mark.parametrize(
    ("mix", "slug", "said"),
    [
        ({"sources": [{"name": "a", "weight": 2}]}, "mix-key-unknown", "five meanings"),
        ({"sources": [{"name": "a", "rows": 2, "repeat": 2}]}, "mix-amount", "exactly one amount"),
        ({"sources": [{"name": "a", "fraction_of_source": 1.5}]}, "mix-amount", "up to 1"),
        ({"sources": [{"name": "a", "rows": 0}]}, "mix-amount", "above 0"),
        ({"sources": [{}]}, "mix-source", "needs a name"),
        ({"sources": []}, "mix-unreadable", "no list of `sources`"),
        ({"target": "rlvr", "sources": [{"name": "a"}]}, "mix-target", "not an SFT mix"),
        ({"sauces": 1, "sources": [{"name": "a"}]}, "mix-key-unknown", "`sauces`"),
    ],
)
def test_a_mix_that_can_be_read_two_ways_is_refused(tmp_path: Path, mix: dict[str, Any], slug: str, said: str) -> None:
    with pytest.raises(DataError, match=slug) as refused:
        load_mix(write_mix(tmp_path, **mix))
    assert said in str(refused.value)


def test_more_rows_than_there_are_is_refused(tmp_path: Path) -> None:
    a = write_rows(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match="more than the 10 rows"):
        build_mix(write_mix(tmp_path, sources=[{"name": str(a), "rows": 11}]))


def test_a_configuration_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError) as caught:
        load_rows(str(tmp_path), config="nowhere")
    assert caught.value.slugs == ["dataset-unreadable"]
    assert "nowhere" in str(caught.value)
    assert "dataset_config" in str(caught.value)
