"""Layouts: which one a dataset has, what each row becomes, and every way in which a row can be broken."""

import pickle
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, Features, Json, List, Value

from tests.data.odd_values import odd_value
from tulu_recipes.data.layouts import (
    LAYOUTS,
    TARGETS,
    BrokenRow,
    Layout,
    canonical_schema,
    recognise,
    turns,
    user_texts,
)
from tulu_recipes.errors import DataError


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(*contents: str) -> list[dict[str, Any]]:
    return [said(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]


def one(row: dict[str, Any], target: str, **asked: Any) -> tuple[str, dict[str, Any]]:
    """Recognised from the features and converted, as read back from Arrow."""
    rows = Dataset.from_list([row])
    layout = recognise(rows.features, target, "here", **asked)
    return layout.name, layout.convert(rows[0])


def by_name(name: str, row: dict[str, Any]) -> dict[str, Any]:
    kind = LAYOUTS[name]
    return Layout(name, kind.target, {column: column for column in [*kind.needs, *kind.takes]}).convert(row)


def broken(name: str, row: dict[str, Any]) -> str:
    with pytest.raises(BrokenRow) as refused:
        by_name(name, row)
    return str(refused.value)


QA = {"messages": talk("q", "a")}
SYSTEM = said("system", "s")


@pytest.mark.parametrize(
    ("row", "layout", "messages"),
    [
        ({"messages": talk("q", "a", "r", "b")}, "messages", talk("q", "a", "r", "b")),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            "sharegpt",
            [SYSTEM, *talk("q", "a")],
        ),
        ({"conversations": talk("q", "a"), "system": "s"}, "sharegpt", [SYSTEM, *talk("q", "a")]),
        ({"conversations": talk("q", "a"), "system": ""}, "sharegpt", talk("q", "a")),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", talk("q", "a")),
        (
            {"prompt": [SYSTEM, *talk("q")], "completion": [said("assistant", "a")]},
            "prompt_completion",
            [SYSTEM, *talk("q", "a")],
        ),
        ({"prompt": talk("q"), "completion": "a"}, "prompt_completion", talk("q", "a")),
        ({"instruction": "do", "input": "x", "output": "a"}, "alpaca", talk("do\nx", "a")),
        ({"instruction": "do", "input": "", "output": "a", "system": "s"}, "alpaca", [SYSTEM, *talk("do", "a")]),
        ({"instruction": "do", "output": "a"}, "alpaca", talk("do", "a")),
        ({"problem": " q", "solution": "a\n"}, "question_answer", talk(" q", "a\n")),
        ({"query": "q", "response": "a", "type": "x"}, "question_answer", talk("q", "a")),
        ({"prompt": "q", "response": "a"}, "question_answer", talk("q", "a")),
        ({"problem": "q", "solution": "a", "messages": talk("x", "y")}, "messages", talk("x", "y")),
        ({"prompt": "q", "completion": "a", "question": "z"}, "prompt_completion", talk("q", "a")),
    ],
)
def test_layouts_of_conversations(row: dict[str, Any], layout: str, messages: list[dict[str, Any]]) -> None:
    assert one(row, "sft") == (layout, {"messages": messages})


def test_roles_get_their_usual_names_and_other_keys_are_left_out() -> None:
    row = {
        "conversations": [
            {"from": "Human", "value": "q", "weight": 0},
            {"from": " MODEL", "value": "a", "weight": None},
            {"role": "function", "content": "5", "name": "sum"},
            {"role": "bot", "content": "b", "tool_calls": []},
        ]
    }
    assert by_name("sharegpt", row)["messages"] == [*talk("q", "a"), said("tool", "5"), said("assistant", "b")]


def test_a_column_per_key_is_read_as_turns() -> None:
    row = {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}}
    assert by_name("messages", row) == QA


def test_renamed_columns_decide() -> None:
    row = {"problem": "q", "solution": "long", "answer": "short", "response": "other"}
    renames = {"question": "problem", "answer": "solution"}
    assert one(row, "sft", columns=renames) == ("question_answer", {"messages": talk("q", "long")})
    pair = {"prompt": "q", "completion": "a"}  # a renamed column is not there under its own name
    assert one(pair, "sft", columns={"question": "prompt", "answer": "completion"})[0] == "question_answer"
    chat = {"chat": talk("q", "a"), "n": 1}
    assert one(chat, "sft", columns={"messages": "chat"}) == ("messages", QA)
    assert (
        one({"q": "do", "a": "x"}, "sft", layout="alpaca", columns={"instruction": "q", "output": "a"})[0] == "alpaca"
    )


def test_a_layout_is_picklable_and_survives_missing_columns() -> None:
    layout = recognise(Dataset.from_list([QA]).features, "sft", "here")
    assert pickle.loads(pickle.dumps(layout)) == layout
    with pytest.raises(BrokenRow, match="messages is missing"):
        layout.convert({})


def refusal(row: dict[str, Any] | Features, target: str = "sft", **asked: Any) -> str:
    features = row if isinstance(row, Features) else Dataset.from_list([row]).features
    with pytest.raises(DataError) as refused:
        recognise(features, target, "org/x", **asked)
    text = str(refused.value)
    assert "org/x" in text
    return text


def test_unknown_columns_are_named_with_the_layouts_there_are() -> None:
    text = refusal({"text": "x", "n": 1})
    assert "columns-unknown" in text
    assert "text (text), n (number)" in text
    assert "question_answer (question, answer)" in text
    assert "rlvr (messages, ground_truth, dataset)" in refusal({"text": "x"}, "rlvr")
    assert "(none)" in refusal(Features({}))


def test_columns_of_the_wrong_type_do_not_fit_and_the_type_is_said() -> None:
    assert "`messages` is text, not turns" in refusal({"messages": "hello"}, layout="messages")
    assert "`answer` is number, not text" in refusal({"question": "q", "answer": 5})
    assert "messages (list)" in refusal(Features({"messages": List({"text": Value("string")})}))
    assert "messages (object)" in refusal(Features({"messages": {"text": Value("string")}}))
    assert "chosen (text)" in refusal({"chosen": "a", "rejected": "b"}, "preference")


def test_types_that_say_nothing_are_left_to_the_rows() -> None:
    for feature in (Json(), Value("null"), List(Json()), List(Value("null"))):
        assert recognise(Features({"messages": feature}), "sft", "here").name == "messages"


def test_two_layouts_or_two_columns_are_a_choice_for_a_person() -> None:
    both = refusal({"messages": talk("q", "a"), "conversations": talk("q", "a")})
    assert "layout-ambiguous" in both
    assert "`layout: messages` or `layout: sharegpt`" in both
    text = refusal({"problem": "q", "solution": "a", "answer": "5"})
    assert "answer or in solution" in text
    assert "columns: {answer: answer}" in text
    assert "prompt_completion and alpaca" in refusal(
        {"prompt": "q", "completion": "a", "instruction": "q", "output": "a"}
    )


def test_rows_of_other_stages_do_not_pass_for_conversations() -> None:
    pair = {"chosen": talk("q", "a"), "rejected": talk("q", "b"), "messages": talk("q", "a")}
    assert "target: preference" in refusal(pair)
    assert one(pair, "sft", layout="messages") == ("messages", QA)
    assert "target: rlvr" in refusal({"messages": talk("q"), "ground_truth": "5", "dataset": "gsm8k"})
    assert "No layout for target preference" in refusal(QA, "preference")


def test_unknown_names_are_refused() -> None:
    assert "layout-unknown" in refusal(QA, layout="chatml")
    assert "It makes rows for preference" in refusal(QA, layout="ultrafeedback")
    text = refusal(QA, columns={"massages": "messages", "system": "sys"})
    assert "massages, which no layout" in text
    assert "sys, which the dataset does not have" in text


def test_the_page_lists_every_layout_with_its_columns() -> None:
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    for name, kind in LAYOUTS.items():
        cells = next(
            line for line in page.split("## What goes in")[1].splitlines() if line.startswith(f"| `{name}` |")
        ).split("|")
        assert cells[2].strip() == kind.target
        assert set(re.findall(r"`(\w+)`", cells[3])) >= set(kind.needs)
        assert re.findall(r"`(\w+)`", cells[4]) == list(kind.takes)


@pytest.mark.parametrize(
    ("layout", "row", "reason"),
    [
        ("messages", {"messages": None}, "messages is missing"),
        ("messages", {"messages": []}, "messages is an empty list"),
        ("messages", {"messages": "hello"}, "messages is not a list of turns"),
        ("messages", {"messages": [None]}, "a message is not an object with role and content"),
        ("messages", {"messages": [said("user", "q"), {"content": "a"}]}, "a message has no role"),
        ("messages", {"messages": [said(5, "q")]}, "a message has no role"),
        ("messages", {"messages": [said("narrator", "q")]}, "a message has an unknown role"),
        ("messages", {"messages": talk("q", None)}, "a message (assistant) has nothing for content, not text"),
        ("messages", {"messages": [said("user", ["q"])]}, "a message (user) has a list for content, not text"),
        ("messages", {"messages": talk("q", " \n")}, "a message (assistant) is empty"),
        ("messages", {"messages": talk("q")}, "no assistant turn"),
        ("messages", {"messages": talk(" ", "a")}, "no user turn with text"),
        (
            "messages",
            {"messages": [said("user", "q"), {**said("assistant", "a"), "tool_calls": [{"id": 1}]}]},
            "a message calls tools",
        ),
        ("messages", {"messages": {"role": ["user"], "content": []}}, "messages is not a list of turns"),
        ("sharegpt", {"conversations": [SYSTEM, *talk("q", "a")], "system": "t"}, "two system prompts"),
        ("sharegpt", {"conversations": talk("q", "a"), "system": 5}, "system is not text"),
        ("prompt_completion", {"prompt": "q", "completion": ""}, "empty completion"),
        ("prompt_completion", {"prompt": "q", "completion": None}, "completion is missing"),
        ("prompt_completion", {"prompt": 5, "completion": "a"}, "prompt is not text"),
        ("prompt_completion", {"prompt": "q", "completion": []}, "messages is an empty list"),
        ("alpaca", {"instruction": "", "input": "x", "output": "a"}, "empty instruction"),
        ("alpaca", {"instruction": "q", "input": ["x"], "output": "a"}, "input is not text"),
        ("question_answer", {"question": "q", "answer": 5}, "answer is not text"),
    ],
)
def test_broken_conversations(layout: str, row: dict[str, Any], reason: str) -> None:
    assert broken(layout, row) == reason


WHOLE = {"chosen": talk("q", "good"), "rejected": talk("q", "bad")}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", **WHOLE},
        WHOLE,
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": talk("q"), "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": [said("assistant", "good")], "rejected": [said("assistant", "bad")]},
        {"prompt": talk("q"), **WHOLE},
        {"prompt": "q", **WHOLE, "score_chosen": 4.5, "score_rejected": 2.0, "messages": talk("q", "good")},
        {"prompt": "q", **WHOLE, "score_chosen": 4.0, "score_rejected": 4.0},
        {"prompt": "q", **WHOLE, "score_chosen": None, "score_rejected": float("nan")},
    ],
)
def test_preference_rows_in_every_spelling_are_the_published_layout(row: dict[str, Any]) -> None:
    assert one(row, "preference") == ("preference", {"prompt": "q", **WHOLE})


def test_preference_rows_of_several_turns() -> None:
    chosen, rejected = talk("q", "a", "r", "good"), talk("q", "a", "r", "bad")
    for prompt in ("q", "r", talk("q", "a", "r"), None):
        found = by_name("preference", {"prompt": prompt, "chosen": chosen, "rejected": rejected})
        assert found == {"prompt": "r", "chosen": chosen, "rejected": rejected}
    given = {"prompt": [SYSTEM, *talk("q")], "chosen": "good", "rejected": "bad"}
    assert by_name("preference", given)["chosen"] == [SYSTEM, *talk("q", "good")]
    with_system = {"prompt": talk("q"), **{side: [SYSTEM, *messages] for side, messages in WHOLE.items()}}
    assert by_name("preference", with_system)["prompt"] == "q"


def test_conversations_may_part_early_at_two_answers() -> None:
    row = {"chosen": talk("q", "a", "r", "good"), "rejected": talk("q", "b", "why", "bad")}
    found = by_name("preference", row)
    assert found == {"prompt": "q", **row}
    assert turns(found, "preference") == [
        ("user", "q"),
        ("chosen", "a"),
        ("user", "r"),
        ("chosen", "good"),
        ("rejected", "b"),
        ("user", "why"),
        ("rejected", "bad"),
    ]
    assert user_texts(found, "preference") == ["q", "r", "why"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": talk("q", "a"), "rejected": talk("r", "b")}, "chosen and rejected have different prompts"),
        (
            {"chosen": talk("q", "a", "r", "c"), "rejected": talk("q", "a", "s", "d")},
            "chosen and rejected have different prompts",
        ),
        ({"prompt": "z", **WHOLE}, "prompt is not in the conversations"),
        ({"prompt": talk("z"), **WHOLE}, "prompt is not in the conversations"),
        ({"chosen": talk("q", "a"), "rejected": talk("q", "a")}, "chosen and rejected are the same"),
        ({"prompt": "q", "chosen": "", "rejected": "b"}, "empty chosen"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is missing"),
        ({"chosen": "a", "rejected": "b"}, "prompt is missing"),
        ({"prompt": "q", "chosen": [], "rejected": "b"}, "messages is an empty list"),
        (
            {"chosen": [*talk("q", "a"), SYSTEM], "rejected": talk("q", "b")},
            "chosen does not end with an assistant turn",
        ),
        ({"chosen": talk("q", "a", "r"), "rejected": talk("q", "b")}, "chosen does not end with an assistant turn"),
        ({"chosen": talk("q", "a"), "rejected": talk("q", "a", "r", "b")}, "one answer continues the other"),
        (
            {
                "chosen": [SYSTEM, said("assistant", "a"), *talk("q", "c")],
                "rejected": [SYSTEM, said("assistant", "b")],
            },
            "prompt is missing",
        ),
        (
            {
                "chosen": [SYSTEM, said("assistant", "a"), *talk("q", "c")],
                "rejected": [SYSTEM, said("assistant", "b"), *talk("q", "c")],
            },
            "chosen and rejected do not part after a user turn",
        ),
        ({"chosen": talk(" ", "a"), "rejected": talk(" ", "b")}, "empty prompt"),
        ({"prompt": "q", **WHOLE, "score_chosen": 1, "score_rejected": 2}, "rejected has the higher score"),
        (
            {"chosen": talk("q", None), "rejected": talk("q", "b")},
            "a message (assistant) has nothing for content, not text",
        ),
    ],
)
def test_broken_preference_rows(row: dict[str, Any], reason: str) -> None:
    assert broken("preference", row) == reason


def rated(response: Any, *ratings: Any, **scores: Any) -> dict[str, Any]:
    aspects = ("helpfulness", "honesty", "truthfulness", "instruction_following")
    given = {aspect: {"Rating": rating, "Rationale": ""} for aspect, rating in zip(aspects, ratings, strict=False)}
    return {"response": response, "annotations": given, **scores}


def picked(*completions: dict[str, Any]) -> tuple[str, str]:
    row = by_name("ultrafeedback", {"instruction": "q", "completions": list(completions)})
    assert row["prompt"] == "q"
    return row["chosen"][1]["content"], row["rejected"][1]["content"]


def test_the_best_mean_is_chosen_and_a_lower_one_rejected_whatever_their_order() -> None:
    answers = [rated("good", "5", "4", "5", "5"), rated("mid", "3", "N/A", "4", "4"), rated("low", 1, 1, 2, 1)]
    chosen, rejected = picked(*answers)
    assert chosen == "good"
    assert rejected in ("mid", "low")
    assert picked(*reversed(answers)) == (chosen, rejected)
    even = [rated(f"good {i}", 5) for i in range(4)] + [rated("low", 1)]
    assert picked(*even) == picked(*reversed(even))


def test_the_rejected_answer_is_drawn_evenly_among_the_lower_ones() -> None:
    drawn = []
    for number in range(300):
        completions = [rated(f"{name} {number}", score) for name, score in (("best", 5), ("b", 2), ("c", 1))]
        row = by_name("ultrafeedback", {"instruction": "q", "completions": completions})
        drawn.append(row["rejected"][1]["content"][0])
    assert set(drawn) == {"b", "c"}
    assert 100 < drawn.count("b") < 200  # 150 expected, one standard deviation is 8.7


def test_ratings_come_before_single_scores_and_an_answer_without_either_is_left_out() -> None:
    assert picked(rated("a", 1, overall_score=9.0), rated("b", 2, overall_score=1.0)) == ("b", "a")
    plain = [{"response": "a", "fine-grained_score": 2.0, "overall_score": 9}, {"response": "b", "overall_score": 5.0}]
    assert picked(*plain) == ("b", "a")
    assert picked(rated("a", 1), rated("b", 2), rated("", 5), rated("c", "N/A"), rated(None, 5)) == ("b", "a")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": None, "completions": []}, "instruction is missing"),
        ({"instruction": "q", "completions": None}, "completions is not a list"),
        ({"instruction": "q", "completions": [None]}, "a completion is not an object"),
        ({"instruction": "q", "completions": [rated("a", 5)]}, "fewer than two answers with a score"),
        ({"instruction": "q", "completions": [rated("a", 5), rated("b", "5.0")]}, "all answers have the same score"),
    ],
)
def test_broken_rated_rows(row: dict[str, Any], reason: str) -> None:
    assert broken("ultrafeedback", row) == reason


def verifiable(**changes: Any) -> dict[str, Any]:
    return {"messages": talk("q"), "ground_truth": "5", "dataset": "gsm8k", **changes}


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        ("5", "5"),
        (5, "5"),
        (0.5, "0.5"),
        (True, "true"),
        (["b", "ü"], '["b", "ü"]'),
        ({"N": 2, "func_name": "x", "word": None}, '{"N": 2, "func_name": "x", "word": null}'),
    ],
)
def test_a_ground_truth_is_text_or_becomes_json(truth: Any, text: str) -> None:
    name, row = one(verifiable(ground_truth=truth), "rlvr")
    assert name == "rlvr"
    assert row == verifiable(ground_truth=text, constraint_type=None, constraint=None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ground_truth": None}, "ground_truth is missing"),
        ({"ground_truth": " "}, "empty ground_truth"),
        ({"ground_truth": float("nan")}, "ground_truth has no JSON form"),
        ({"ground_truth": b"5"}, "ground_truth has no JSON form"),
        ({"messages": talk("q", "a")}, "messages hold an answer, not only the prompt"),
        ({"messages": [*talk("q"), SYSTEM]}, "messages do not end with a user turn"),
        ({"messages": talk("  ")}, "empty prompt"),
        ({"dataset": ["gsm8k"]}, "dataset is not text"),
        ({"dataset": None}, "dataset is missing"),
        ({"constraint": 5}, "constraint is not text"),
    ],
)
def test_broken_verifiable_rows(changes: dict[str, Any], reason: str) -> None:
    assert broken("rlvr", verifiable(**changes)) == reason


def test_canonical_rows_are_what_the_schema_says() -> None:
    rows = {
        "sft": QA,
        "preference": by_name("preference", WHOLE),
        "rlvr": by_name("rlvr", verifiable(constraint="say so")),
    }
    for target in TARGETS:
        table = pa.Table.from_pylist([rows[target]], schema=canonical_schema(target))
        assert table.to_pylist() == [rows[target]]
    assert turns(rows["rlvr"], "rlvr") == [("user", "q")]
    assert user_texts(QA, "sft") == ["q"]
    assert turns(rows["preference"], "preference") == [("user", "q"), ("chosen", "good"), ("rejected", "bad")]


FINE: dict[str, Any] = {
    "conversations": talk("q", "a"),
    "completions": [rated("a", 1), rated("b", 2)],
    "ground_truth": "5",
    **{
        name: f"some {name}" for name in "prompt completion instruction output question answer chosen rejected".split()
    },
    "dataset": "gsm8k",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_value_raises_anything_but_a_broken_row(name: str) -> None:
    """Arrow can write every row that is converted; every reason is short and without values."""
    rng = random.Random(name)
    kind = LAYOUTS[name]
    fine = {**FINE, "messages": talk("q") if name == "rlvr" else talk("q", "a")}
    converted, reasons = [], set()
    for _ in range(2000):
        row = {}
        for column in [*kind.needs, *kind.takes]:
            row[column] = fine.get(column) if rng.random() < 0.6 else odd_value(rng, 4)
        try:
            converted.append(by_name(name, row))
        except BrokenRow as error:
            reasons.add(str(error))
    assert len(converted) > 20
    assert 5 < len(reasons) < 100
    assert max(map(len, reasons)) < 80
    assert not any("unusual" in reason for reason in reasons)  # the text of odd values
    pa.Table.from_pylist(converted, schema=canonical_schema(kind.target))
