"""Building a mix from local files: which rows, in what order, and nothing that should not matter does."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.data.mixing.mixes import (
    build,
    chat,
    chats,
    problems_of,
    questions,
    rows_of,
    shard_bytes,
    to_parquet,
    write_mix,
)
from tests.tiny import write_rows
from tulu_recipes.data.mixing import job
from tulu_recipes.data.mixing.keys import content_digest, digest_halves, keyed, order_of_copies
from tulu_recipes.run import read_json

pytestmark = pytest.mark.integration


def test_a_mix_is_the_rows_of_its_sources_each_with_its_source(tmp_path: Path) -> None:
    own = chats(3, "own", source="theirs")
    mix = write_mix(tmp_path, {"a.jsonl": chats(4, "a"), "b.jsonl": own})
    built = build(mix, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert Counter(row["source"] for row in rows) == {"a.jsonl": 4, "theirs": 3}
    assert sorted(row["messages"][0]["content"] for row in rows) == sorted(
        [f"a {n}" for n in range(4)] + [f"own {n}" for n in range(3)]
    )
    assert built.lock["result"]["rows"] == 7
    assert built.lock["result"]["characters"] == sum(
        len(message["content"]) for row in rows for message in row["messages"]
    )
    assert built.lock["sources"][0]["labels"] == {"a.jsonl": 4}


def test_the_order_is_that_of_the_stated_rule(tmp_path: Path) -> None:
    """An independent loop over the rows, with the keys of data.mixing.keys, gives the order of the finished mix."""
    rows = chats(30)
    mix = write_mix(tmp_path, {"a.jsonl": rows}, seed=5)
    config = json.loads(mix.read_text()) if mix.suffix == ".json" else None
    assert config is None
    text = mix.read_text().replace("- name:", "- repeat: 2.5\n  name:")
    mix.write_text(text)
    build(mix, tmp_path / "out")
    digests = {row["messages"][0]["content"]: content_digest({"messages": row["messages"]}) for row in rows}
    sample = {
        q: int(keyed(digest_halves([d]), "sample", 5, str(tmp_path / "a.jsonl"), None)[0]) for q, d in digests.items()
    }
    thrice = set(sorted(sample, key=sample.__getitem__)[:15])
    places = []
    for question, digest in digests.items():
        for copy in range(3 if question in thrice else 2):
            key = order_of_copies(keyed(digest_halves([digest]), "order", 5), copy + digest_halves([digest])[:, 0] * 0)
            places.append((int(key[0]), question))
    assert questions(tmp_path / "out") == [question for _, question in sorted(places)]


def test_rows_do_not_depend_on_their_order_in_files_or_on_the_files_cut(tmp_path: Path) -> None:
    rows = chats(200, source="s")
    shuffled = random.Random(1).sample(rows, len(rows))
    for name, order in (("one", rows), ("two", shuffled)):
        mix = write_mix(tmp_path / name, {"a.jsonl": order})
        mix.write_text(
            mix.read_text().replace(str(tmp_path / name / "a.jsonl"), "data").replace("name:", "rows: 50\n  name:")
        )
    (tmp_path / "two" / "data").mkdir()
    for number in range(4):
        write_rows(tmp_path / "two" / "data" / f"train-{number}.jsonl", shuffled[number::4])
    (tmp_path / "one" / "data").mkdir()
    (tmp_path / "one" / "a.jsonl").rename(tmp_path / "one" / "data" / "train.jsonl")
    found = []
    for name in ("one", "two"):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / name)
            build(Path("mix.yaml"), Path("out"))
            found.append(shard_bytes(Path("out")))
    assert found[0] == found[1]
    assert len(rows_of(tmp_path / "one" / "out")) == 50


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, workers: int) -> None:
    mix = write_mix(
        tmp_path,
        {"a.jsonl": chats(90, "a"), "b.jsonl": chats(70, "b") + chats(30, "a")},
        filters=[{"characters": {"min": 1}}, "exact_duplicates", "near_duplicates"],
        shard_rows=40,
    )
    build(mix, tmp_path / "one", workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.Job, "__init__", _with_small_parts(job.Job.__init__))
        patch.setattr("tulu_recipes.data.mixing.build.LITTLE_ROWS", 0)
        build(mix, tmp_path / "many", workers=workers)
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "many")
    assert len(shard_bytes(tmp_path / "one")) > 1


def _with_small_parts(original: Any) -> Any:
    """The job is pickled for the workers, parts and all."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **(kwargs | {"part_rows": 17}))

    return init


def test_a_few_rows_start_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu_recipes.data.mixing.workers.ProcessPoolExecutor", None)
    build(write_mix(tmp_path, {"a.jsonl": chats(3, "a"), "b.jsonl": chats(3, "b")}), tmp_path / "out", workers=2)
    assert len(questions(tmp_path / "out")) == 6


def test_order_as_given_keeps_sources_and_rows_where_they_stand(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(30, "a"), "b.jsonl": chats(5, "b")}, order="as_given")
    build(mix, tmp_path / "out")
    assert questions(tmp_path / "out") == [f"a {n}" for n in range(30)] + [f"b {n}" for n in range(5)]


def test_another_seed_takes_and_orders_other_rows(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(100)})
    found = []
    for seed in (1, 2):
        mix.write_text(f"seed: {seed}\nsources:\n  - name: {tmp_path}/a.jsonl\n    fraction_of_source: 0.2\n")
        build(mix, tmp_path / f"out-{seed}")
        found.append(questions(tmp_path / f"out-{seed}"))
    assert len(found[0]) == len(found[1]) == 20
    assert set(found[0]) != set(found[1])


def test_every_kind_of_file_gives_the_same_mix(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{"question": f"q {n}", "answer": f"a {n}"} for n in range(12)]
    data = Dataset.from_list(rows)
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    data.to_parquet(tmp_path / "a.parquet")
    data.to_csv(tmp_path / "a.csv")
    data.save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    data.to_parquet(tmp_path / "folder" / "train.parquet")
    found = {}
    for name in ("a.jsonl", "a.json", "a.parquet", "a.csv", "saved", "folder", "saved/data-00000-of-00001.arrow"):
        mix = write_mix(tmp_path / "mixes")
        mix.write_text(f"sources:\n  - name: {tmp_path}/{name}\n    label: x\n")
        out = tmp_path / f"out-{name.replace('/', '-')}"
        build(mix, out)
        found[name] = shard_bytes(out)
    assert len(set(map(str, found.values()))) == 1, {name: len(str(value)) for name, value in found.items()}


def test_columns_are_kept_on_request_and_their_types_are_brought_together(tmp_path: Path) -> None:
    a, b = chats(2, "a", id=1, note="n"), chats(2, "b", id=2)
    mix = write_mix(tmp_path, {"a.jsonl": a, "b.jsonl": b})
    mix.write_text(
        f"sources:\n  - {{name: {tmp_path}/a.jsonl, keep_columns: [id, note]}}\n"
        f"  - {{name: {tmp_path}/b.jsonl, keep_columns: [id]}}\n"
    )
    build(mix, tmp_path / "out")
    assert {(row["id"], row["note"]) for row in rows_of(tmp_path / "out")} == {(1, "n"), (2, None)}
    write_rows(tmp_path / "b.jsonl", chats(2, "b", id={"x": 1}))
    (problem,) = problems_of(mix, tmp_path / "other")
    assert problem.slug == "mix-column"
    assert "id is struct" in problem.what
    mix.write_text(f"sources:\n  - {{name: {tmp_path}/a.jsonl, keep_columns: [idd]}}\n")
    (problem,) = problems_of(mix, tmp_path / "other")
    assert "no column idd; it has id, messages, note" in problem.what


def test_where_takes_the_rows_with_these_values(tmp_path: Path) -> None:
    rows = [chat(f"q {n}", model=["gpt-4", "gpt-3", None][n % 3], turn=n % 2) for n in range(12)]
    mix = write_mix(tmp_path, {"a.jsonl": rows})
    mix.write_text(f"sources:\n  - {{name: {tmp_path}/a.jsonl, where: {{model: [gpt-4], turn: 0}}}}\n")
    built = build(mix, tmp_path / "out")
    assert sorted(questions(tmp_path / "out")) == ["q 0", "q 6"]
    mix.write_text(f"sources:\n  - {{name: {tmp_path}/a.jsonl, where: {{model: 'gpt-?', turn: [0, 1]}}}}\n")
    assert build(mix, tmp_path / "wild").lock["result"]["rows"] == 8
    step = built.lock["sources"][0]["steps"][0]
    assert step == {"step": "where", "rows_in": 12, "rows_out": 2, "reasons": {"another value": 10}}


def test_each_step_counts_its_rows(tmp_path: Path) -> None:
    rows = [
        *chats(5, "good"),
        chat("good 0", "answer 0 to good"),  # a duplicate
        chat("long " * 20),
        {"messages": [{"role": "user", "content": "no answer"}, {"role": "assistant", "content": " "}]},
    ]
    mix = write_mix(
        tmp_path,
        {"a.jsonl": rows},
        filters=[{"characters": {"max": 60}}, "exact_duplicates"],
        max_broken_fraction=0.5,
    )
    steps = build(mix, tmp_path / "out").lock["sources"][0]["steps"]
    assert [(step["step"], step["rows_in"], step["rows_out"]) for step in steps] == [
        ("broken", 8, 7),
        ("characters", 7, 6),
        ("exact_duplicates", 6, 5),
        ("amount", 5, 5),
    ]
    assert sum(steps[0]["reasons"].values()) == 1


def test_of_duplicates_across_sources_the_first_source_keeps_its_row(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(4, "x"), "b.jsonl": chats(6, "x")}, filters=["exact_duplicates"])
    lock = build(mix, tmp_path / "out").lock
    assert [source["rows"] for source in lock["sources"]] == [4, 2]
    text = mix.read_text().replace("- exact_duplicates", "- exact_duplicates: {scope: source}")
    mix.write_text(text)
    lock = build(mix, tmp_path / "other").lock
    assert [source["rows"] for source in lock["sources"]] == [4, 6]


def test_copies_survive_the_duplicate_filter_which_comes_before_amounts(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(4) + chats(2)})
    mix.write_text(f"sources:\n  - {{name: {tmp_path}/a.jsonl, repeat: 10}}\nfilters:\n  - exact_duplicates\n")
    lock = build(mix, tmp_path / "out").lock
    assert (lock["sources"][0]["distinct_rows"], lock["result"]["rows"]) == (4, 40)


def test_a_user_s_filter_is_called_with_every_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_filters.py").write_text(
        "def polite(row):\n    return True if row['score'] > 1 else 'rude'\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [chat(f"q {n}", score=n) for n in range(4)]
    mix = write_mix(tmp_path, {"a.jsonl": rows}, filters=["my_filters:polite"])
    lock = build(mix, tmp_path / "out").lock
    assert sorted(questions(tmp_path / "out")) == ["q 2", "q 3"]
    assert lock["sources"][0]["steps"][1]["reasons"] == {"rude": 2}
    assert "score" not in rows_of(tmp_path / "out")[0]
    assert not build(mix, tmp_path / "out").new
    # another text of the function is another mix, and not what the lock holds
    (tmp_path / "my_filters.py").write_text("def polite(row):\n    return True\n", encoding="utf-8")
    (problem,) = problems_of(mix, tmp_path / "again", locked=tmp_path / "out" / "mix.lock.json")
    assert problem.slug == "mix-source-moved"
    assert "my_filters:polite has changed" in problem.what
    assert build(mix, tmp_path / "out").new


def test_tokens_are_those_of_the_named_tokenizer(tmp_path: Path) -> None:
    from tests.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tok")
    rows = chats(5)
    mix = write_mix(tmp_path, {"a.jsonl": rows}, tokenizer=str(tmp_path / "tok"))
    lock = build(mix, tmp_path / "out").lock
    expected = sum(
        len(tokenizer(message["content"], add_special_tokens=False)["input_ids"])
        for row in rows
        for message in row["messages"]
    )
    assert lock["result"]["tokens"] == lock["sources"][0]["tokens"] == expected
    assert lock["tokenizer"]["name"] == str(tmp_path / "tok")
    mix.write_text(mix.read_text().replace("/tok", "/gone"))
    assert "mix-tokenizer" in {problem.slug for problem in problems_of(mix, tmp_path / "other")}


def test_preference_and_rlvr_rows_are_mixed_alike(tmp_path: Path) -> None:
    pairs = [
        {
            "prompt": f"q {n}",
            "chosen": chat(f"q {n}", "good")["messages"],
            "rejected": chat(f"q {n}", "bad")["messages"],
        }
        for n in range(4)
    ]
    build(write_mix(tmp_path / "p", {"a.jsonl": pairs}, target="preference"), tmp_path / "p" / "out")
    row = rows_of(tmp_path / "p" / "out")[0]
    assert list(row) == ["prompt", "chosen", "rejected", "source"]
    assert row["chosen"][-1]["content"] == "good"
    prompts = [
        {"messages": [{"role": "user", "content": f"{n}+1?"}], "ground_truth": str(n + 1), "dataset": "gsm8k"}
        for n in range(4)
    ]
    build(write_mix(tmp_path / "r", {"a.jsonl": prompts}, target="rlvr"), tmp_path / "r" / "out")
    assert {row["ground_truth"] for row in rows_of(tmp_path / "r" / "out")} == {"1", "2", "3", "4"}


def test_a_limit_is_a_trial_that_takes_a_few_rows_of_each(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.data.mixing.mixes import QUIET, describe_nothing
    from tulu_recipes.data.mixing.build import LocalPasses, build_mix
    from tulu_recipes.data.mixing.mix_file import load_mix

    path = write_mix(tmp_path, {"a.jsonl": chats(9, "a"), "b.jsonl": chats(2, "b")})
    path.write_text(path.read_text().replace("- name:", "- rows: 1000\n  name:", 1))
    mix = replace(load_mix(path), limit=3)
    assert mix.sha256 != load_mix(path).sha256
    lock = build_mix(mix, tmp_path / "out", passes=LocalPasses(1, QUIET), describe=describe_nothing).lock
    assert [source["rows"] for source in lock["sources"]] == [3, 2]


def test_one_row_is_a_mix(tmp_path: Path) -> None:
    build(write_mix(tmp_path, {"a.jsonl": chats(1)}), tmp_path / "out")
    assert questions(tmp_path / "out") == ["question 0"]


def test_rows_of_ten_megabytes_and_odd_text_come_through_whole(tmp_path: Path) -> None:
    odd = ["x" * 10_000_000, "é", "e\u0301", "\u200b zero width", "line\u2028break", "\x00 nul", "🙂"]
    rows = [chat(text) for text in odd]
    build(write_mix(tmp_path, {"a.jsonl": rows}), tmp_path / "out")
    assert set(questions(tmp_path / "out")) == set(odd)
    # composed and decomposed letters are different text, and one duplicate
    build(write_mix(tmp_path, {"a.jsonl": rows}, filters=["exact_duplicates"]), tmp_path / "other")
    assert len(set(questions(tmp_path / "other")) & {"é", "e\u0301"}) == 1


def test_shards_end_at_their_rows_and_at_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tulu_recipes.data.mixing import select

    monkeypatch.setattr(select, "SHARD_BYTES", 2000)
    rows = [*chats(25), chat("x" * 5000)]
    lock = build(write_mix(tmp_path, {"a.jsonl": rows}, shard_rows=10), tmp_path / "out").lock
    shards = lock["result"]["shards"]
    assert sum(shard["rows"] for shard in shards) == 26
    assert max(shard["rows"] for shard in shards) <= 10
    assert len(shards) >= 4  # the long row does not fit beside others
    for shard in shards:
        assert pq.read_metadata(tmp_path / "out" / shard["path"]).num_rows == shard["rows"]


def test_what_leaves_nothing_is_refused_with_the_step_that_took_the_last(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(3), "b.jsonl": chats(3)}, filters=[{"characters": {"min": 10_000}}])
    problems = problems_of(mix)
    assert [problem.slug for problem in problems] == ["mix-source-empty"] * 2
    assert "characters dropped the last 3" in problems[0].what
    mix = write_mix(tmp_path, {"a.jsonl": chats(3)})
    mix.write_text(mix.read_text().replace("- name:", "- fraction_of_source: 0.1\n  name:"))
    (problem,) = problems_of(mix)
    assert problem.slug == "mix-amount"
    assert "fraction_of_source 0.1 of 3 rows is none" in problem.what
    mix.write_text(mix.read_text().replace("fraction_of_source: 0.1", "rows: 4"))
    (problem,) = problems_of(mix)
    assert "rows: 4 is more than the 3 rows" in problem.what
    assert not (tmp_path / "out" / "data").exists()


def test_too_many_broken_rows_are_refused_with_their_reasons(tmp_path: Path) -> None:
    broken = [{"messages": [{"role": "user", "content": None}]}, {"messages": None}]
    mix = write_mix(tmp_path, {"a.jsonl": chats(3) + broken})
    (problem,) = problems_of(mix)
    assert problem.slug == "mix-broken-rows"
    assert "2 of 5 rows" in problem.what
    mix.write_text("max_broken_fraction: 0.5\n" + mix.read_text())
    assert build(mix, tmp_path / "other").lock["result"]["rows"] == 3


@pytest.mark.parametrize(
    ("content", "slug", "said"),
    [
        (b'{"messages": [\n', "file-unreadable", "line 1"),
        ('{"messages": "é"}'.encode("latin-1"), "file-unreadable", "not UTF-8"),
        (b"", "file-unreadable", "empty"),
        (b'{"text": "a"}\n', "columns-unknown", "text"),
    ],
)
def test_a_source_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, content: bytes, slug: str, said: str
) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(1)})
    (tmp_path / "a.jsonl").write_bytes(content)
    problem = problems_of(mix)[0]
    assert problem.slug == slug
    assert "mix.yaml line 3" in problem.where
    assert said in problem.what


def test_a_truncated_shard_and_an_unknown_split_are_named_together(tmp_path: Path) -> None:
    to_parquet(tmp_path / "a.parquet", chats(50))
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "folder" / "train.jsonl", chats(2))
    mix = tmp_path / "mix.yaml"
    mix.write_text(
        f"sources:\n  - {{name: {tmp_path}/a.parquet}}\n  - {{name: {tmp_path}/folder, split: validation}}\n"
    )
    problems = problems_of(mix)
    assert [problem.slug for problem in problems] == ["file-unreadable", "split-unknown"]
    assert "the dataset has 'train'" in problems[1].what


def test_the_statistics_of_the_lock_are_those_of_the_rows(tmp_path: Path) -> None:
    lock = build(write_mix(tmp_path, {"a.jsonl": chats(5)}), tmp_path / "out").lock
    assert lock["statistics"]["total"]["rows"] == 5
    assert read_json(tmp_path / "out" / "mix.lock.json") == json.loads(json.dumps(lock))
