"""The card of a mix: metadata the Hub reads, tables that add up, nothing of the builder's machine."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from tests.hub.fixtures import RunningHub
from tests.reports.mix_lock import FOLDER, LOCAL, SHA, mix_folder, mix_lock
from tulu_recipes.data.statistics import mix_statistics
from tulu_recipes.reports.card_tables import cell, fenced
from tulu_recipes.reports.dataset_card import write_card
from tulu_recipes.reports.dataset_metadata import main_languages, size_category
from tulu_recipes.reports.length_histogram import draw_length_histogram
from tulu_recipes.reports.shown_names import shown_label, without_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mix"


def card_of(folder: Path, lock: dict[str, Any] | None = None, repo_id: str | None = "alice/mix") -> str:
    """The card of the hand-written mix, or of it with another lock."""
    found = mix_folder(folder)
    lock = found if lock is None else lock | {"result": lock["result"] | {"shards": found["result"]["shards"]}}
    return write_card(folder, lock, repo_id=repo_id).read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table; escaped bars are no borders."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_metadata_is_what_the_hub_reads(folder: Path) -> None:
    data = DatasetCard(card_of(folder)).data.to_dict()
    size = data["dataset_info"].pop("dataset_size")
    assert size > 0
    assert data["dataset_info"].pop("download_size") == sum(p.stat().st_size for p in folder.glob("data/*"))
    assert data["dataset_info"].pop("features")[1] == {"name": "source", "dtype": "string"}
    assert data == {
        "pretty_name": "tiny-mix",
        "language": ["en", "no"],
        "license": "other",  # acme/flan has none
        "license_name": "several-licences",
        "license_link": "https://huggingface.co/datasets/alice/mix#licence",
        "task_categories": ["text-generation"],
        "tags": ["tulu-recipes", "sft"],
        "size_categories": ["n<1K"],
        "source_datasets": ["acme/chats", "acme/robots", "acme/flan", "original"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        "dataset_info": {"splits": [{"name": "train", "num_bytes": size, "num_examples": 12}]},
    }


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["odc-by", "mit", "apache-2.0", "mit"], {"license": "odc-by"}),
        (["odc-by", "cc-by-nc-4.0", "mit", "mit"], {"license": "cc-by-nc-4.0"}),
        (["llama3.1", "mit", "mit", "mit"], {"license": "llama3.1"}),
        ([None] * 4, {"license": "unknown"}),
        (["llama3.1", "gemma", "mit", "mit"], {"license": "other", "license_name": "several-licences"}),
        (["Acme Terms", "mit", "mit", "mit"], {"license": "other", "license_name": "acme-terms"}),
    ],
)
def test_the_licence_is_the_most_restrictive_or_other(
    folder: Path, licences: list[str | None], expected: dict[str, str]
) -> None:
    lock = mix_lock()
    for source, licence in zip(lock["sources"], licences, strict=True):
        source["licence"] = licence
    data = DatasetCard(card_of(folder, lock, repo_id=None)).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


def test_sources_are_named_by_commit_and_counted(folder: Path) -> None:
    table = rows_of(section(card_of(folder), "Sources"))[2:]
    chats = f"[acme/chats](https://huggingface.co/datasets/acme/chats/tree/{SHA['chats']})"
    assert table[0] == [chats, "`cccccccc`", "main/train", "odc-by", "10", "6", "1", "26.9%"]  # 210 of 780 tokens
    assert table[1][3:] == ["CC-BY-NC-4.0", "1", "2", "2", "19.2%"]  # 150 of 780
    assert table[2][2:6] == ["test", "not given", "90", "1"]
    assert table[3][:3] == ["our rows.jsonl", "local", "train"]


def test_what_was_removed_adds_up_by_step(folder: Path) -> None:
    table = rows_of(section(card_of(folder), "What was removed"))
    steps = ["broken", "characters", "characters (2)", "decontaminate"]
    assert table[0] == ["source", "rows there", *steps, "amount", "rows taken"]
    assert table[2] == ["acme/chats", "10", "−2", "−1", "−1", "", "all", "6"]
    assert table[3] == ["acme/robots", "1", "0", "", "", "", "repeat 2", "2"]
    assert table[4] == ["acme/flan", "90", "0", "", "", "−2", "rows 1", "1"]
    reasons = {tuple(row) for row in table[6:]}
    assert {("broken", "empty completion", "2"), ("characters", "shorter than 1", "1")} < reasons


def test_the_licence_section_names_who_is_bound_by_what(folder: Path) -> None:
    text = section(card_of(folder), "Licence")
    assert text.strip().startswith("The most restrictive licence stated by a source is **cc-by-nc-4.0** (non-comm")
    assert "- Non-commercial: **cc-by-nc-4.0** (acme/robots)" in text
    assert "- No licence stated: acme/flan (test)" in text
    assert "| odc-by | attribution | acme/chats (main) |" in text
    assert "not legal advice" in text


def test_lengths_turns_languages_and_the_picture(folder: Path) -> None:
    folder.mkdir()
    lock = mix_lock()
    draw_length_histogram(lock["statistics"], folder / "length_histogram.png", "tiny-mix")
    card = card_of(folder)
    lengths = section(card, "Lengths")
    assert "![rows by tokens](length_histogram.png)" in lengths
    assert f"Tokens of `acme/tokenizer` at `{'f' * 40}`." in lengths
    total = rows_of(lengths)[-1]
    # 10, 20 … 120: the 95th percentile is the 12th of 12, as 11 rows are less than 95 %
    assert total == ["**total**", "12", "100.0%", "780", "65.0", "65.0", "120", "120", "100.0%"]
    assert ["2", "12"] in rows_of(section(card, "Turns"))
    assert rows_of(section(card, "Languages"))[2:] == [["en", "9"], ["no", "2"], ["unknown", "1"]]


def test_a_mix_without_tokenizer_languages_and_evaluations_says_so(folder: Path) -> None:
    lock = mix_lock()
    lock |= {"tokenizer": None, "decontamination": None}
    lock["result"]["tokens"] = None
    lock["statistics"]["unit"] = "characters"
    lock["statistics"]["total"]["languages"] = None
    card = card_of(folder, lock)
    assert "**12 rows**, 3,120 characters" in card
    assert "Characters; no tokenizer was named." in card
    assert "not compared with evaluations" in card
    assert "Not determined" in card
    assert "language" not in DatasetCard(card).data.to_dict()
    assert "length_histogram" not in card  # none was drawn


def test_contaminated_sets_are_listed_and_clean_ones_counted(folder: Path) -> None:
    text = section(card_of(folder), "Contamination")
    (row,) = rows_of(text)[2:]
    assert row == ["our rows.jsonl", "gsm8k", "40 of 1,319", "3.0%", "3", "**contaminated**", "drop rows", "2"]
    assert "No overlap: 1 of 2 pairs" in text


def test_the_mix_in_the_card_is_the_mix_without_folders(folder: Path) -> None:
    text = section(card_of(folder), "How to build it again")
    assert "python -m tulu_recipes.mix tiny-mix.yaml --locked" in text
    mix = yaml.safe_load(text.split("````yaml\n")[1].split("\n````")[0])  # the mix itself holds ```
    assert mix["sources"][3] == {"name": "our rows.jsonl", "label": "our rows.jsonl", "licence": "mit"}
    assert mix["filters"][1] == {"regex": {"drop": ["/think", "```+"]}}
    assert mix["filters"][2] == "my_package.filters:polite"
    assert mix["decontaminate"] == {"against": "evals.yaml"}
    assert mix["sources"][:3] == mix_lock()["mix"]["sources"][:3]
    assert "- `our rows.jsonl`, sha256 `" in text


def test_nothing_of_the_rows_or_the_machine_is_in_the_card(folder: Path) -> None:
    card = card_of(folder)
    for told in (FOLDER, "/home", "builder", "secret", "private question", str(folder)):
        assert told not in card, told
    assert LOCAL in json.dumps(mix_lock())  # which had it


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("../up/rows.jsonl", "rows.jsonl"),
        ("C:\\Users\\me\\rows.jsonl", "rows.jsonl"),
        ("~/data/rows", "rows"),
        ("data_mixes/tiny/rows.jsonl", "rows.jsonl"),
        ("/srv/our data/rows.jsonl", "rows.jsonl"),
        ("acme/rows", "acme/rows"),
        ("hf://datasets/acme/rows@main/a/b.parquet", "hf://datasets/acme/rows@main/a/b.parquet"),
    ],
)
def test_paths_are_cut_to_their_file_and_hub_names_are_not(value: str, expected: str) -> None:
    assert without_folders({"name": value}, frozenset()) == {"name": expected}


def test_a_label_that_is_a_path_loses_its_folders() -> None:
    labels = [LOCAL, "~/x/a.csv", "../b.csv", "C:\\x\\c.csv", "acme/chats", "and/or", "a"]
    assert [shown_label(label) for label in labels] == ["our rows.jsonl", "a.csv", "b.csv", "c.csv", *labels[4:]]
    assert without_folders({"label": "/srv/our data/d.csv"}, frozenset()) == {"label": "d.csv"}
    assert shown_label("data/rows.jsonl", frozenset(["data/rows.jsonl"])) == "rows.jsonl"


def test_labels_and_names_cannot_break_the_page(folder: Path) -> None:
    lock = mix_lock()
    nasty = "<script>|a\n# b](http://x)`*_"
    lock["statistics"]["labels"] = {nasty: lock["statistics"]["labels"]["acme/chats"]}
    lock["sources"][0]["steps"][0]["reasons"] = {nasty: 2}
    card = card_of(folder, lock)
    assert "<script>" not in card
    assert "\n# b" not in card
    assert rows_of(section(card, "Lengths"))[2][0] == r"&lt;script&gt;\|a \# b\](http://x)\`\*\_"
    assert cell("x" * 300) == "x" * 100 + "…"
    assert fenced("a ```` b", "yaml") == ["`````yaml", "a ```` b", "`````"]


def test_a_mix_without_rows_has_a_card_all_the_same(folder: Path) -> None:
    folder.mkdir()
    nothing = np.array([], dtype=int)
    empty = {
        "statistics": mix_statistics(nothing, [], nothing, nothing, nothing),
        "sources": [],
        "decontamination": None,
    }
    result = {"rows": 0, "tokens": 0, "characters": 0, "shards": [], "content_sha256": ""}
    card = write_card(folder, mix_lock() | empty | {"result": result}, repo_id=None).read_text(encoding="utf-8")
    assert "**0 rows**" in card
    assert rows_of(section(card, "Lengths"))[-1] == ["**total**", "0", "–", "0", "–", "–", "–", "–", "–"]


def test_small_parts_of_the_metadata() -> None:
    assert [size_category(n) for n in (999, 1000, 939_344, 10**9)] == ["n<1K", "1K<n<10K", "100K<n<1M", "n>1B"]
    assert main_languages({"en": 990, "de": 6, "fr": 4, "unknown": 100}) == ["en", "de"]
    assert main_languages(None) == []


def test_equal_statistics_draw_equal_pictures(tmp_path: Path) -> None:
    statistics = mix_lock()["statistics"]
    nasty = {f"$x^{i}_ 한 {'y' * 60}": [1] * (len(statistics["length_histogram"]["edges"]) - 1) for i in range(9)}
    many = copy.deepcopy(statistics)
    many["length_histogram"]["labels"] |= nasty | {"_hidden": nasty["$x^0_ 한 " + "y" * 60]}
    pictures = [draw_length_histogram(many, tmp_path / f"{i}.png", "$a_b").read_bytes() for i in range(2)]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    empty = copy.deepcopy(statistics) | {"length_histogram": {"unit": "tokens", "edges": [0, 8], "total": [0]}}
    empty["length_histogram"]["labels"] = {}
    empty["total"]["tokens"] = dict.fromkeys(empty["total"]["tokens"])
    assert draw_length_histogram(empty, tmp_path / "e.png", "none").stat().st_size > 1000


@pytest.mark.parametrize(
    ("target", "columns", "tasks"),
    [
        ("preference", ["prompt", "chosen", "rejected"], ["text-generation", "reinforcement-learning"]),
        ("rlvr", ["messages", "ground_truth", "dataset"], ["reinforcement-learning", "text-generation"]),
    ],
)
def test_other_targets_have_their_own_features_and_tasks(
    folder: Path, target: str, columns: list[str], tasks: list[str]
) -> None:
    lock = mix_folder(folder) | {"target": target}
    for shard in lock["result"]["shards"]:
        pq.write_table(pa.table({column: ["x"] * shard["rows"] for column in columns}), folder / shard["path"])
    data = DatasetCard(write_card(folder, lock, repo_id=None).read_text(encoding="utf-8")).data.to_dict()
    assert [feature["name"] for feature in data["dataset_info"]["features"]] == columns
    assert data["task_categories"] == tasks
    assert data["tags"] == ["tulu-recipes", target]


@pytest.mark.integration
def test_a_pushed_mix_loads_by_its_name_with_its_card(hub: RunningHub, folder: Path) -> None:
    card_of(folder)
    result = hub.run(f"""
        from datasets import load_dataset
        from huggingface_hub import DatasetCard, HfApi
        from tulu_recipes import hub
        # Pushing validates the card.
        hub.push_folder({str(folder)!r}, "alice/mix", repo_type="dataset", private=True)
        rows = load_dataset("alice/mix", split="train")
        card = DatasetCard.load("alice/mix")
        result = {{
            "rows": len(rows), "first": rows[0], "columns": rows.column_names, "licence": card.data.license,
            "hub": HfApi().dataset_info("alice/mix").card_data.to_dict()["size_categories"],
            "named": hub.licence_of("alice/mix", repo_type="dataset"),
        }}
        """)
    assert result["rows"] == 12
    assert result["columns"] == ["messages", "source"]
    assert result["first"]["messages"][1] == {"role": "assistant", "content": "private answer"}
    assert [result["licence"], result["named"], result["hub"]] == ["other", "other", ["n<1K"]]
