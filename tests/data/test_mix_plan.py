"""The plan of a mix: rows counted before a download, lengths from a sample, and every problem at once."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from tests.hub.fixtures import RunningHub
from tests.tiny import conversation, tiny_tokenizer, write_rows
from tulu_recipes.data.mix_plan import MixPlan, plan_mix, rows_taken
from tulu_recipes.data.mixing.mix_file import Mix, MixSource
from tulu_recipes.data.row_counts import RowCount, count_rows

pytestmark = pytest.mark.integration  # datasets' readers take most of a second

ROWS = [conversation(i) for i in range(150)]


def plan_of(*sources: MixSource, **keys: Any) -> MixPlan:
    return plan_mix(Mix("mix.yaml", sources, **keys))


def characters(rows: list[dict[str, Any]]) -> float:
    return sum(len(message["content"]) for row in rows for message in row["messages"])


def test_local_files_are_counted_exactly_without_reading_their_rows(tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS)
    rows.to_parquet(tmp_path / "a.parquet")
    write_rows(tmp_path / "b.jsonl", ROWS)
    (tmp_path / "b.jsonl").write_text((tmp_path / "b.jsonl").read_text() + "\n\n")  # empty lines are no rows
    rows.save_to_disk(tmp_path / "saved", num_shards=2)
    DatasetDict({"dev": rows, "train": rows}).save_to_disk(tmp_path / "splits")
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.data.schema) as writer:
        writer.write_table(rows.data.table)
    (tmp_path / "folder").mkdir()
    rows.select(range(140)).to_parquet(tmp_path / "folder" / "train-0.parquet")
    rows.select(range(10)).to_parquet(tmp_path / "folder" / "train-1.parquet")
    names = ["a.parquet", "b.jsonl", "c.arrow", "saved", "splits", "folder"]
    plan = plan_of(*(MixSource(str(tmp_path / name)) for name in names))
    assert plan.problems == []
    assert [(s.rows_available, s.rows_exact, s.rows_taken, s.repeats) for s in plan.sources] == [
        (150, True, 150, 1.0)
    ] * len(names)
    assert all(s.revision is None and s.notes == () for s in plan.sources)


def test_amounts_tokens_and_shares_follow_the_sample(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "a.jsonl", ROWS))
    plan = plan_of(
        MixSource(path, rows=30, licence="mit"),
        MixSource(path, fraction_of_source=0.5),
        MixSource(path, repeat=3.5),
    )
    assert [(s.rows_taken, s.repeats) for s in plan.sources] == [(30, 1.0), (75, 1.0), (525, 3.5)]
    assert [s.licence for s in plan.sources] == ["mit", None, None]
    sampled = sum(round(characters([row]) / 4) for row in ROWS[:100])
    assert [s.tokens for s in plan.sources] == [round(n * sampled / 100) for n in (30, 75, 525)]
    assert sum(s.share or 0 for s in plan.sources) == pytest.approx(1)
    assert plan.sources[2].share == pytest.approx(525 / 630, abs=1e-3)


def test_tokens_are_counted_by_the_tokenizer_of_the_mix(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    path = str(write_rows(tmp_path / "a.jsonl", ROWS[:20]))
    texts = [message["content"] for row in ROWS[:20] for message in row["messages"]]  # type: ignore[attr-defined]
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (planned,) = plan_of(MixSource(path), tokenizer=str(tmp_path / "tokenizer")).sources
    assert planned.tokens == sum(len(tokenizer(text)["input_ids"]) for text in texts)


def test_rows_that_cannot_be_counted_are_said_to_be_unknown(tmp_path: Path) -> None:
    remote = count_rows(["hf://datasets/a/b/x.csv"], stated=None, sample=[{"a": "1"}] * 100, complete=False)
    assert remote == RowCount(None, False, "rows of its files (.csv) are counted only when they are read")
    assert count_rows(["x.csv.gz"], stated=None, sample=[{"a": 1}], complete=True).rows == 1  # the sample was all
    assert rows_taken(MixSource("x", rows=7), None, exact=False) == 7
    assert rows_taken(MixSource("x", repeat=2), None, exact=False) is None


def test_records_of_a_csv_file_may_span_lines(tmp_path: Path) -> None:
    lines = "\n".join(f'"question\n{i}","answer {i}"' for i in range(150))
    (tmp_path / "a.csv").write_text(f"prompt,completion\n{lines}\n")
    (planned,) = plan_of(MixSource(str(tmp_path / "a.csv"))).sources
    assert (planned.rows_available, planned.rows_exact) == (150, True)


def test_a_json_list_is_reckoned_from_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (planned,) = plan_of(MixSource(str(tmp_path / "a.json"))).sources
    assert planned.rows_available == pytest.approx(150, abs=3)
    assert not planned.rows_exact


def test_a_source_that_fails_does_not_hide_the_next(tmp_path: Path) -> None:
    good = write_rows(tmp_path / "good.jsonl", ROWS[:5])
    Dataset.from_list(ROWS).to_parquet(tmp_path / "cut.parquet")
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "rows.docx").write_text("x")
    (tmp_path / "empty").mkdir()
    DatasetDict({"a": Dataset.from_list(ROWS), "b": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "splits")
    names = ["cut.parquet", "rows.docx", "empty", "splits"]
    sources = [MixSource(str(tmp_path / name), place="mix.yaml") for name in names]
    plan = plan_of(*sources, MixSource(str(good), rows=6), MixSource(str(good)))
    assert [problem.slug for problem in plan.problems] == [
        "dataset-unreadable",
        "file-type-unknown",
        "dataset-not-found",
        "split-unknown",
        "mix-amount",
    ]
    assert plan.problems[3].where == f"mix.yaml, source {tmp_path / 'splits'}"
    assert "the dataset has 'a', 'b'" in plan.problems[3].what
    assert "rows: 6 is more than the 5 rows there are" in plan.problems[4].what
    assert [s.rows_taken for s in plan.sources] == [5]
    assert plan.sources[0].share is None  # of a whole that is not known


def test_columns_that_nobody_knows_are_a_problem_of_their_source(tmp_path: Path) -> None:
    twelve: dict[str, object] = {
        "messages": [{"role": "user", "content": "abcd"}, {"role": "assistant", "content": "efghijkl"}]
    }
    good, bad = write_rows(tmp_path / "a.jsonl", [twelve] * 4), write_rows(tmp_path / "b.jsonl", [{"x": "1"}])
    plan = plan_of(MixSource(str(bad)), MixSource(str(good)))
    assert [problem.slug for problem in plan.problems] == ["columns-unknown"]
    assert plan.sources[0].tokens == 12


PLAN = """
    import json, os
    from dataclasses import asdict
    from tulu_recipes.data.mix_plan import plan_mix
    from tulu_recipes.data.mixing.mix_file import Mix, MixSource
    sources = tuple(MixSource(**keys, place="mix.yaml") for keys in json.loads(os.environ["SOURCES"]))
    plan = plan_mix(Mix("mix.yaml", sources))
    result = {"sources": [asdict(s) for s in plan.sources], "problems": [[p.slug, p.where] for p in plan.problems]}
"""


def ask(hub: RunningHub, *sources: dict[str, Any]) -> dict[str, Any]:
    plan: dict[str, Any] = hub.run(PLAN, env=hub.env(SOURCES=json.dumps(sources)))
    return plan


def parquet(tmp_path: Path, rows: list[dict[str, object]]) -> bytes:
    Dataset.from_list(rows).to_parquet(tmp_path / "x.parquet")
    return (tmp_path / "x.parquet").read_bytes()


def large_parquet(tmp_path: Path) -> bytes:
    """20 MB in 30 row groups."""
    table = pa.table({"prompt": ["x"] * 3000, "completion": [f"{i} " + "x" * 7000 for i in range(3000)]})
    pq.write_table(table, tmp_path / "big.parquet", row_group_size=100, compression="none", use_dictionary=False)
    return (tmp_path / "big.parquet").read_bytes()


def test_hub_sources_are_counted_by_footers_cards_and_sizes(hub: RunningHub, tmp_path: Path) -> None:
    configs = "configs:\n- config_name: a\n  data_files: a/*\n- config_name: b\n  data_files: b/*\n"
    card = f"---\nlicense: odc-by\n{configs}---\n"
    two = {"a/0.parquet": parquet(tmp_path, ROWS), "a/1.parquet": parquet(tmp_path, ROWS[:50])}
    sha = hub.add_repo("dataset", "acme/two", {"README.md": card, **two, "b/0.parquet": parquet(tmp_path, ROWS[:7])})
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    stated = "dataset_info:\n  splits:\n  - name: train\n    num_bytes: 1\n    num_examples: 161\n"
    hub.add_repo("dataset", "acme/card", {"train.jsonl": lines, "README.md": f"---\nlicense: mit\n{stated}---\n"})
    hub.add_repo("dataset", "acme/lines", {"train.jsonl": lines})
    big = large_parquet(tmp_path)
    hub.add_repo("dataset", "acme/big", {"train.parquet": big})
    hub.add_repo("dataset", "acme/gated", {"train.jsonl": lines}, gated=True)
    hub.requests.clear()
    plan = ask(
        hub,
        {"name": "acme/two", "config": "a", "repeat": 2},
        {"name": "acme/two", "config": "b", "revision": sha},
        {"name": "hf://datasets/acme/two@main/a/1.parquet"},
        {"name": "acme/card", "rows": 40},
        {"name": "acme/lines", "fraction_of_source": 0.1},
        {"name": "acme/big"},
        {"name": "acme/gated"},
        {"name": "acme/none"},
        {"name": "acme/lines", "revision": "v9"},
        {"name": "acme/lines", "split": "test"},
        {"name": "acme/two", "config": "c"},
    )
    a, b, path, card_rows, sized, large = plan["sources"]
    assert [a["rows_available"], a["rows_taken"], a["rows_exact"], a["repeats"]] == [200, 400, True, 2.0]
    assert [a["revision"], a["licence"]] == [sha, "odc-by"]
    assert [b["rows_available"], b["rows_taken"], b["revision"]] == [7, 7, sha]
    assert [path["rows_available"], path["revision"], path["split"]] == [50, sha, "train"]
    assert [card_rows["rows_available"], card_rows["rows_exact"], card_rows["rows_taken"]] == [161, False, 40]
    assert card_rows["notes"] == ["rows stated by its card"]
    assert abs(sized["rows_available"] - 150) <= 3
    assert [sized["rows_exact"], sized["licence"]] == [False, None]
    assert sized["rows_taken"] == round(0.1 * sized["rows_available"])
    assert plan["problems"] == [
        ["hub-gated", "mix.yaml, source acme/gated"],
        ["hub-repo-not-found", "mix.yaml, source acme/none"],
        ["hub-revision-not-found", "mix.yaml, source acme/lines"],
        ["split-unknown", "mix.yaml, source acme/lines"],
        ["dataset-unreadable", "mix.yaml, source acme/two"],
    ]
    assert [large["rows_available"], large["rows_exact"]] == [3000, True]
    # The footer and the first rows are ranges: what the server sends of a large file is a small part of it.
    sent = sum(request.sent for request in hub.requests if "acme/big/resolve" in request.path)
    assert 0 < sent < len(big) / 3
