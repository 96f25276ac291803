"""The bundled rows of the later stages: the same bytes everywhere, and what they say is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.demo import mix_rows, rows

SHIPPED = Path(__file__).parents[2] / "data_mixes" / "tiny"


def load(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHIPPED / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    mix_rows.write(folder)
    return folder


@pytest.mark.parametrize("name", [mix_rows.PREFERENCE_FILE, mix_rows.RLVR_FILE, mix_rows.EVALUATION_FILE])
def test_the_script_writes_the_shipped_bytes(written: Path, name: str) -> None:
    assert (written / name).read_bytes() == (SHIPPED / name).read_bytes()


def test_a_pair_shares_everything_but_its_last_answer_and_the_chosen_one_is_a_training_row() -> None:
    taught = {json.dumps(row["messages"]) for row in load(rows.TRAIN_FILE)}
    pairs = load(mix_rows.PREFERENCE_FILE)
    assert len(pairs) == len({pair["id"] for pair in pairs}) == 400
    for pair in pairs:
        assert pair["chosen"][:-1] == pair["rejected"][:-1], pair["id"]
        assert pair["chosen"][-1] != pair["rejected"][-1], pair["id"]
        assert pair["prompt"] == pair["chosen"][-2]["content"], pair["id"]
        assert json.dumps(pair["chosen"]) in taught, pair["id"]


def test_a_rejected_answer_ends_as_the_chosen_one_does() -> None:
    styled = [pair for pair in load(mix_rows.PREFERENCE_FILE) if pair["chosen"][0]["role"] == "system"]
    assert styled
    for pair in styled:
        assert pair["chosen"][-1]["content"][-1] == pair["rejected"][-1]["content"][-1], pair["id"]


def test_ground_truths_are_the_sums_that_are_asked() -> None:
    prompts = load(mix_rows.RLVR_FILE)
    assert len({row["messages"][0]["content"] for row in prompts}) == len(prompts) == 240
    for row in prompts:
        assert [message["role"] for message in row["messages"]] == ["user"]
        terms = re.findall(r"\d+", row["messages"][0]["content"])
        assert sum(map(int, terms)) == int(row["ground_truth"])
        assert row["dataset"] == "gsm8k"


def test_the_evaluation_asks_nothing_that_is_trained_on() -> None:
    asked = {row["question"] for row in load(mix_rows.EVALUATION_FILE)}
    heldout = {row["messages"][-2]["content"] for row in load(rows.HELDOUT_FILE)}
    trained = {m["content"] for row in load(rows.TRAIN_FILE) for m in row["messages"] if m["role"] == "user"}
    trained |= {row["messages"][0]["content"] for row in load(mix_rows.RLVR_FILE)}
    trained |= {row["prompt"] for row in load(mix_rows.PREFERENCE_FILE)}
    assert asked == heldout
    assert asked.isdisjoint(trained)
