"""The stand-ins: every dataset that a shipped mix or evaluation list names, readable by the real client."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.hub.fixtures import RunningHub
from tests.standins import SOURCE_LABELS, STANDINS, add_standins, files, small_copy, standin_rows
from tests.standins.evaluations import DEEPMIND_MODULES, EVALUATIONS
from tests.standins.packages import PACKAGE_OF, rows_from_package

ROOT = Path(__file__).parents[2]
MIXES = sorted(ROOT.glob("data_mixes/**/*.yaml"))

# What load_dataset finds. It asks datasets-server.HOST about every dataset; for a loopback address that name does not
# exist, and where the name server is slow each question costs seconds.
LOADER = """
    import json, os
    import datasets.config
    datasets.config.USE_PARQUET_EXPORT = False
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar
    disable_progress_bar()
    result = []
    for name, config, split in json.loads(os.environ["WANTED"]):
        rows = load_dataset(name, None if config == "default" else config, split=split)
        types = {column: repr(kind) for column, kind in rows.features.items()}
        result.append({"rows": len(rows), "columns": rows.column_names, "first": repr(rows[0]), "types": types})
"""


def load(hub: RunningHub, wanted: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.run(LOADER, env=hub.env(WANTED=json.dumps(wanted)))
    return found


def named_datasets() -> set[str]:
    """Hub ids of every shipped YAML: sources of mixes, datasets of evaluation lists."""
    names = set()
    for path in MIXES:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names |= {source["name"] for source in content.get("sources", [])}
        names |= {evaluation["dataset"] for evaluation in content.get("evaluations", [])}
    return {name for name in names if not name.startswith("data_mixes/")}


def test_every_dataset_that_a_shipped_mix_names_has_a_stand_in() -> None:
    assert sorted(named_datasets() - STANDINS.keys()) == []


@pytest.mark.integration
def test_the_real_client_reads_every_dataset_with_its_columns_types_and_rows(hub: RunningHub) -> None:
    """One process for all: the first table of each, and some that have to be asked for by name."""
    by_name = [
        ("openai/gsm8k", "socratic", "test"),
        ("HuggingFaceH4/no_robots", "default", "test"),
        ("allenai/wildjailbreak", "eval", "train"),
        ("lukaemon/bbh", "word_sorting", "test"),
        ("deepmind/math_dataset", "numbers__gcd", "test"),
    ]
    add_standins(hub)
    wanted = [(name, *next(iter(standin.tables))) for name, standin in STANDINS.items()] + by_name
    loaded = dict(zip(wanted, load(hub, wanted), strict=True))
    for (name, config, split), found in loaded.items():
        table = STANDINS[name].tables[config, split]
        assert found["columns"] == table.schema.names, name
        assert found["rows"] == len(standin_rows(name, config, split)), name
    turns = loaded["allenai/WildChat-1M", "default", "train"]["types"]["conversation"]
    assert "user-agent" in turns
    assert "turn_identifier" in turns
    messages = loaded["allenai/tulu-3-sft-mixture", "default", "train"]["types"]["messages"]
    assert messages == "List({'content': Value('string'), 'role': Value('string')})"
    empty = loaded["allenai/wildjailbreak", "train", "train"]
    assert "'adversarial': None" in empty["first"], "a TSV has no empty text, only null"


def test_the_mixture_has_rows_of_all_19_sources() -> None:
    sources = [row["source"] for row in standin_rows("allenai/tulu-3-sft-mixture")]
    assert len(set(SOURCE_LABELS)) == 19
    assert set(sources) == set(SOURCE_LABELS)
    assert min(map(sources.count, SOURCE_LABELS)) >= 4


def test_hard_coded_rows_are_24_whatever_is_asked() -> None:
    assert len(standin_rows("allenai/tulu-3-hard-coded", rows=7)) == 24


def test_rows_are_the_same_every_time_and_no_turn_stands_twice() -> None:
    assert files("openai/gsm8k") == files("openai/gsm8k")
    names = ("allenai/tulu-3-sft-mixture", "allenai/tulu-3-sft-personas-math", "allenai/tulu-3-hard-coded")
    turns = [turn["content"] for name in names for row in standin_rows(name) for turn in row["messages"]]
    assert len(turns) == len(set(turns)) > 300


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)


def eight_grams(name: str) -> set[tuple[str, ...]]:
    found = set()
    for key in STANDINS[name].tables:
        for text in texts_of(standin_rows(name, *key)):
            words = re.findall(r"\w+", text.lower())
            found |= {tuple(words[i : i + 8]) for i in range(len(words) - 7)}
    return found


def test_no_evaluation_shares_eight_words_with_training_rows() -> None:
    """What decontamination finds in a test was planted there."""
    trained = set().union(*(eight_grams(name) for name in STANDINS.keys() - EVALUATIONS.keys()))
    shared = {name: len(eight_grams(name) & trained) for name in EVALUATIONS}
    assert {name: count for name, count in shared.items() if count} == {}
    assert len(trained) > 10_000


def test_ground_truths_of_constraints_are_json_with_every_argument() -> None:
    rows = [row for row in standin_rows("allenai/RLVR-GSM-MATH-IF-Mixed-Constraints") if row["dataset"] == "ifeval"]
    assert len(rows) == 12
    assert len({row["constraint_type"] for row in rows}) == 3
    for row in rows:
        truth = json.loads(row["ground_truth"])
        assert {"func_name", "N", "keyword_list", "original_prompt"} <= truth.keys()
        assert row["constraint"] in row["messages"][0]["content"]


def test_rows_can_be_planted(hub: RunningHub) -> None:
    question = standin_rows("openai/gsm8k", "main", "test")[0]["question"]
    planted = {"id": "planted", "prompt": question, "messages": [{"role": "user", "content": question}]}
    name = "allenai/tulu-3-sft-personas-math"
    add_standins(hub, [name], more={name: [planted]})
    rows = pq.read_table(io.BytesIO(hub.files(name, kind="dataset")["data/train-00000-of-00001.parquet"])).to_pylist()
    assert len(rows) == len(standin_rows(name)) + 1
    assert rows[-1]["messages"] == [{"role": "user", "content": question}]


def test_a_small_copy_asks_for_few_rows_and_carries_its_base(tmp_path: Path) -> None:
    copy = small_copy(ROOT / "data_mixes/tulu3-sft-upstream.yaml", tmp_path, rows=5)
    content = yaml.safe_load(copy.read_text(encoding="utf-8"))
    assert {source["rows"] for source in content["sources"] if "rows" in source} == {5}
    base = yaml.safe_load((tmp_path / content["base"]).read_text(encoding="utf-8"))
    assert len(base["sources"]) == 19


def test_the_modules_of_deepmind_s_dataset_are_56() -> None:
    assert len(DEEPMIND_MODULES) == len(set(DEEPMIND_MODULES)) == 56


@pytest.mark.parametrize("name", PACKAGE_OF)
def test_rows_of_a_package_fit_the_layout_they_stand_for(name: str) -> None:
    rows = rows_from_package(name)
    table = next(iter(STANDINS[name].tables.values()))
    assert len(rows) > 20
    assert {frozenset(row) for row in rows} == {frozenset(table.schema.names)}
    assert table.encode([*standin_rows(name), *rows])
