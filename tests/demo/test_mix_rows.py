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


PAIR_FILES = [mix_rows.PREFERENCE_FILE, mix_rows.HELDOUT_PREFERENCE_FILE]


@pytest.mark.parametrize(
    "name", [*PAIR_FILES, mix_rows.RLVR_FILE, mix_rows.HELDOUT_RLVR_FILE, mix_rows.EVALUATION_FILE]
)
def test_the_script_writes_the_shipped_bytes(written: Path, name: str) -> None:
    assert (written / name).read_bytes() == (SHIPPED / name).read_bytes()


def asked_ending(pair: dict[str, Any]) -> str:
    """The final character that the system turn of a pair asks for, read from its words; empty without one."""
    first = pair["chosen"][0]
    words = first["content"] if first["role"] == "system" else ""
    return "." if "full stop" in words else "!" if "exclamation mark" in words else ""


@pytest.mark.parametrize(("name", "rows_there"), [(mix_rows.PREFERENCE_FILE, 800), (PAIR_FILES[1], 192)])
def test_a_pair_shares_everything_but_its_last_answer(name: str, rows_there: int) -> None:
    pairs = load(name)
    assert len(pairs) == len({pair["id"] for pair in pairs}) == rows_there
    assert [pair["source"] for pair in pairs].count(mix_rows.ENDING) == rows_there / 2
    for pair in pairs:
        assert pair["chosen"][:-1] == pair["rejected"][:-1], pair["id"]
        assert pair["chosen"][-1] != pair["rejected"][-1], pair["id"]
        assert pair["prompt"] == pair["chosen"][-2]["content"], pair["id"]


@pytest.mark.parametrize(
    ("name", "chat"), [(mix_rows.PREFERENCE_FILE, rows.TRAIN_FILE), (PAIR_FILES[1], rows.HELDOUT_FILE)]
)
def test_a_chosen_answer_is_the_chat_rows_own_and_ends_with_a_mark_unless_told_otherwise(name: str, chat: str) -> None:
    taught = {json.dumps(row["messages"]) for row in load(chat)}
    for pair in load(name):
        *shared, answer = pair["chosen"]
        assert answer["content"][-1] == (asked_ending(pair) or "!"), pair["id"]
        own = answer["content"] if asked_ending(pair) else answer["content"][:-1]
        assert json.dumps([*shared, {"role": "assistant", "content": own}]) in taught, pair["id"]


@pytest.mark.parametrize("name", PAIR_FILES)
def test_a_rejected_answer_has_one_thing_wrong(name: str) -> None:
    for pair in load(name):
        chosen, rejected = pair["chosen"][-1]["content"], pair["rejected"][-1]["content"]
        if pair["source"] == mix_rows.ENDING:
            assert rejected.rstrip("!") == chosen.rstrip(".!"), pair["id"]
            assert rejected.endswith("!") == (asked_ending(pair) == "."), pair["id"]
        else:
            assert pair["source"] == mix_rows.ANSWER
            assert rejected[-1] == chosen[-1], pair["id"]
            assert rejected[:-1].rstrip(".!") == rejected[:-1], pair["id"]
            assert kind_of(rejected[:-1]) != kind_of(chosen[:-1]), pair["id"]


def kind_of(answer: str) -> str:
    """Of which of the four kinds of question this is an answer, by its looks."""
    if re.fullmatch(r"\d+", answer):
        return "sum"
    if re.fullmatch(r"\d+( \d+)+", answer):
        return "count"
    return "letters" if re.fullmatch(r"[a-z]( [a-z])+", answer) else "fact"


def test_the_first_held_out_pairs_ask_every_held_out_row_once() -> None:
    asked = [json.dumps(pair["chosen"][:-1]) for pair in load(mix_rows.HELDOUT_PREFERENCE_FILE)]
    heldout = [json.dumps(row["messages"][:-1]) for row in load(rows.HELDOUT_FILE)]
    assert asked == [*heldout, *heldout]


RLVR_FILES = {mix_rows.RLVR_FILE: 404, mix_rows.HELDOUT_RLVR_FILE: 100}


@pytest.mark.parametrize("name", RLVR_FILES)
def test_ground_truths_are_the_sums_and_letters_that_are_asked(name: str) -> None:
    prompts = load(name)
    assert len({asked_by(row) for row in prompts}) == len(prompts) == RLVR_FILES[name]
    for row in prompts:
        assert [message["role"] for message in row["messages"]] == ["user"]
        terms = re.findall(r"\d+", asked_by(row))
        if row["dataset"] == "gsm8k":
            assert sum(map(int, terms)) == int(row["ground_truth"])
        else:
            assert row["dataset"] == "string_match"
            assert row["ground_truth"].replace(" ", "") in re.findall(r"[a-z]+", asked_by(row))


def test_wording_and_arguments_of_a_held_out_prompt_are_trained_on_but_not_together() -> None:
    def parts(row: dict[str, Any]) -> tuple[str, str]:
        key = r"\d" if row["dataset"] == "gsm8k" else row["ground_truth"].replace(" ", "")
        return re.sub(key, "_", asked_by(row)), row["ground_truth"]

    wordings, answers = map(set, zip(*map(parts, load(mix_rows.RLVR_FILE)), strict=True))
    answers |= {row["messages"][-1]["content"].rstrip(".!") for row in load(rows.TRAIN_FILE)}
    for row in load(mix_rows.HELDOUT_RLVR_FILE):
        wording, answer = parts(row)
        assert wording in wordings
        assert answer in answers, asked_by(row)


def test_no_stage_trains_on_a_held_out_prompt_of_rlvr() -> None:
    trained = {m["content"] for row in load(rows.TRAIN_FILE) for m in row["messages"] if m["role"] == "user"}
    trained |= questions(mix_rows.PREFERENCE_FILE) | {asked_by(row) for row in load(mix_rows.RLVR_FILE)}
    assert trained.isdisjoint(asked_by(row) for row in load(mix_rows.HELDOUT_RLVR_FILE))


def asked_by(row: dict[str, Any]) -> str:
    content: str = row["messages"][0]["content"]
    return content


def test_the_evaluation_asks_nothing_that_is_trained_on() -> None:
    asked = {row["question"] for row in load(mix_rows.EVALUATION_FILE)}
    heldout = {row["messages"][-2]["content"] for row in load(rows.HELDOUT_FILE)}
    trained = {m["content"] for row in load(rows.TRAIN_FILE) for m in row["messages"] if m["role"] == "user"}
    trained |= {asked_by(row) for row in load(mix_rows.RLVR_FILE)}
    trained |= questions(mix_rows.PREFERENCE_FILE)
    assert asked == heldout
    assert asked.isdisjoint(trained)
    assert trained.isdisjoint(questions(mix_rows.HELDOUT_PREFERENCE_FILE))


def questions(name: str) -> set[str]:
    """Every user turn of every pair of a file."""
    turns = [turn for pair in load(name) for side in ("chosen", "rejected") for turn in pair[side]]
    return {turn["content"] for turn in turns if turn["role"] == "user"}
