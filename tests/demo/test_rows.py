"""The bundled rows: the same bytes everywhere, nothing of the held-out rows in training."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tulu_recipes.demo import rows

SHIPPED = Path(__file__).parents[2] / "data_mixes" / "tiny"


def load(name: str) -> list[rows.Row]:
    return [json.loads(line) for line in (SHIPPED / name).read_text(encoding="utf-8").splitlines()]


def user_turns(row: rows.Row) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


@pytest.mark.parametrize("name", [rows.TRAIN_FILE, rows.HELDOUT_FILE])
def test_the_script_writes_the_shipped_bytes(tmp_path: Path, name: str) -> None:
    rows.write(tmp_path)
    assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes()


def test_no_question_of_a_held_out_row_is_asked_in_training() -> None:
    asked = {text for row in load(rows.TRAIN_FILE) for text in user_turns(row)}
    assert [text for row in load(rows.HELDOUT_FILE) for text in user_turns(row) if text in asked] == []


@pytest.mark.parametrize("name", [rows.TRAIN_FILE, rows.HELDOUT_FILE])
def test_turns_alternate_after_an_optional_system_turn_and_end_with_the_assistant(name: str) -> None:
    for row in load(name):
        roles = [message["role"] for message in row["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2), row["id"]
        assert turns, row["id"]
        assert all(message["content"] for message in row["messages"]), row["id"]


@pytest.mark.parametrize("name", [rows.TRAIN_FILE, rows.HELDOUT_FILE])
def test_the_sources_have_equal_shares_and_ids_and_conversations_are_unique(name: str) -> None:
    loaded = load(name)
    sources = [row["source"] for row in loaded]
    assert {sources.count(source) for source in set(sources)} == {len(loaded) // 4}
    assert len({row["id"] for row in loaded}) == len(loaded)
    assert len({json.dumps(row["messages"]) for row in loaded}) == len(loaded)


def test_both_files_hold_single_turn_multi_turn_and_system_rows_and_stay_small() -> None:
    for name, most_bytes in ((rows.TRAIN_FILE, 1_000_000), (rows.HELDOUT_FILE, 60_000)):
        loaded = load(name)
        assert (SHIPPED / name).stat().st_size <= most_bytes
        assert {len(user_turns(row)) for row in loaded} == {1, 2}
        assert {row["messages"][0]["role"] for row in loaded} == {"system", "user"}


def test_held_out_answers_are_right() -> None:
    for row in load(rows.HELDOUT_FILE):
        question, answer = row["messages"][-2]["content"], row["messages"][-1]["content"].rstrip(".!")
        if row["source"] == "tiny-sums":
            digits = [int(character) for character in question if character.isdigit()]
            assert sum(digits) == int(answer), row["id"]
        if row["source"] == "tiny-counting":
            numbers = [int(word) for word in answer.split()]
            ends = [int(word.strip(".?")) for word in question.split() if word.strip(".?").isdigit()]
            assert [numbers[0], numbers[-1]] == ends, row["id"]
            assert {abs(b - a) for a, b in pairwise(numbers)} == {1}, row["id"]
        if row["source"] == "tiny-spelling":
            assert answer.replace(" ", "") in question, row["id"]


def test_the_system_turn_decides_how_every_answer_ends() -> None:
    endings = {"End every answer with a full stop.": ".", "End every answer with an exclamation mark.": "!"}
    for row in load(rows.TRAIN_FILE):
        system = row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
        for message in row["messages"]:
            if message["role"] == "assistant":
                last = message["content"][-1]
                assert last == endings[system] if system else last.isalnum(), row["id"]
