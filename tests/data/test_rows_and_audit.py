"""Rows of every broken shape, what cutting does to them, and the books kept about it."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from datasets import Dataset

from tests.tiny import conversation, tiny_tokenizer
from tulu_recipes.data.audit import Audit, Limits, audit_rows, check_limits
from tulu_recipes.data.rows import check_columns, has_odd_order, row_fault
from tulu_recipes.data.supervision import FEATURES, tokenize_row, tokenize_rows, trainable_rows
from tulu_recipes.errors import DataError

USER = {"role": "user", "content": "how many legs"}
ANSWER = {"role": "assistant", "content": "four"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"messages": []}, "messages is an empty list"),
        ({"messages": None}, "messages is missing"),
        ({"messages": "hello"}, "messages is text, not a list"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "message 2 (assistant) is empty"),
        ({"messages": [USER, {"role": "assistant", "content": "  \n"}]}, "message 2 (assistant) is empty"),
        ({"messages": [USER, {"role": "assistant", "content": 4}]}, "message 2 (assistant) has a number for content"),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "message 2 (assistant) has nothing for content",
        ),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]}, "has a list for content"),
        ({"messages": [{"content": "x"}]}, "message 1 has no role"),
        ({"messages": ["hello"]}, "message 1 is text, not an object"),
        ({"prompt": "q", "completion": " "}, "empty completion"),
        ({"prompt": "q", "completion": [ANSWER]}, "prompt is text and completion is a list"),
        ({"prompt": [USER], "completion": []}, "empty completion"),
    ],
)
def test_each_broken_row_is_named(row: dict[str, Any], fault: str) -> None:
    assert fault in str(row_fault(row))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [ANSWER]},
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER], "completion": [ANSWER]},
    ],
)
def test_whole_rows_have_no_fault(row: dict[str, Any]) -> None:
    assert row_fault(row) is None


def test_odd_orders_are_seen() -> None:
    system = {"role": "system", "content": "s"}
    assert not has_odd_order([system, USER, ANSWER, USER, ANSWER])
    assert has_odd_order([ANSWER, USER])
    assert has_odd_order([USER, USER, ANSWER])
    assert has_odd_order([USER, ANSWER, system])


def test_unknown_columns_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="columns-unknown") as refused:
        check_columns(["instruction", "output"], "rows.jsonl")
    assert "instruction, output" in str(refused.value)


def tokenized(rows: list[dict[str, Any]], max_length: int | None = None) -> Dataset:
    tokenizer = tiny_tokenizer()
    made = [tokenize_row(row, i, tokenizer, max_length, "default") for i, row in enumerate(rows)]
    return Dataset.from_list(made, features=FEATURES)


def audit(rows: list[dict[str, Any]], max_length: int | None = None, over_length: str = "truncate") -> Audit:
    return audit_rows(tokenized(rows, max_length), max_length=max_length, over_length=over_length)


NO_LIMITS = Limits(cut_answers=1, unsupervised=1, broken=1, duplicates=1)


def test_totals_are_hand_counted() -> None:
    tokenizer = tiny_tokenizer()
    row = {"messages": [USER, ANSWER], "source": "a"}
    text = "<|user|>\nhow many legs\n<|assistant|>\nfour</s>"
    counts = audit([row, row | {"source": "b"}, {"messages": [USER], "source": "b"}, {"messages": []}])
    length, answer = len(tokenizer(text)["input_ids"]), len(tokenizer("four</s>")["input_ids"])
    assert counts.total.rows == 4
    assert counts.total.trained_rows == 2
    assert counts.total.tokens == 2 * length
    assert counts.total.supervised_tokens == 2 * answer
    assert (counts.total.unsupervised, counts.total.broken, counts.total.duplicates) == (1, 1, 1)
    assert set(counts.sources) == {"a", "b", "default"}
    assert counts.sources["b"].rows == 2
    assert counts.sources["b"].trained_rows == 1


def test_sources_add_up_to_the_total() -> None:
    counts = audit([conversation(i, 1 + i % 3, 9) for i in range(30)], max_length=40)
    for key, value in asdict(counts.total).items():
        if key != "duplicates":  # a repeat may stand in another source than its first
            assert value == sum(asdict(source)[key] for source in counts.sources.values()), key


def test_a_cut_is_counted_only_where_it_takes_supervised_tokens() -> None:
    long_answer = {"messages": [USER, {"role": "assistant", "content": "four " * 30}]}
    trailing_user = {"messages": [USER, ANSWER, {"role": "user", "content": "and then " * 30}]}
    counts = audit([long_answer, trailing_user], max_length=45).total
    assert counts.rows_cut == 2
    assert counts.answers_cut == 1
    assert counts.eos_missing == 0  # a cut turn is reported as cut, not as missing its EOS


def test_over_length_rows_are_truncated_dropped_or_stop_the_run() -> None:
    rows = [{"messages": [USER, {"role": "assistant", "content": "four " * n}]} for n in (1, 60)]
    table = tokenized(rows, max_length=50)
    assert len(trainable_rows(table, over_length="truncate")) == 2
    assert max(map(len, trainable_rows(table, over_length="truncate")["input_ids"])) == 50
    assert len(trainable_rows(table, over_length="drop")) == 1
    dropped = audit(rows, max_length=50, over_length="drop").total
    assert (dropped.over_length_dropped, dropped.rows_cut, dropped.trained_rows) == (1, 0, 1)
    (problem,) = check_limits(audit(rows, 50, "stop"), NO_LIMITS, "rows.jsonl")
    assert problem.slug == "over-length"
    assert "1 of 2 rows are longer than max_length: 50 tokens: row 2" in problem.what


def test_max_length_8_is_refused_because_it_cuts_every_answer() -> None:
    problems = check_limits(
        audit([conversation(i, 1, 9) for i in range(10)], max_length=8),
        Limits(cut_answers=0.05, unsupervised=0.01, broken=0.001, duplicates=1),
        "rows.jsonl",
    )
    assert {"no-rows", "rows-unsupervised", "answers-cut"} <= {problem.slug for problem in problems}


@pytest.mark.parametrize(
    ("rows", "limits", "slug", "text"),
    [
        ([{"messages": []}], replace(NO_LIMITS, broken=0.5), "rows-broken", "row 2 (default): messages is an empty"),
        ([{"messages": [USER]}], replace(NO_LIMITS, unsupervised=0.4), "rows-unsupervised", "no supervised token"),
        ([conversation(0)], replace(NO_LIMITS, duplicates=0.4), "rows-duplicate", "1 of 2 rows repeat"),
    ],
)
def test_limits_stop_a_run_and_say_which_rows(
    rows: list[dict[str, Any]], limits: Limits, slug: str, text: str
) -> None:
    good = conversation(0)
    found = audit([good, *rows])
    assert check_limits(found, NO_LIMITS, "rows.jsonl") == []
    if slug == "rows-broken":  # 1 of 2 is not more than one half
        assert check_limits(found, limits, "rows.jsonl") == []
        limits = replace(limits, broken=0.4)
    (problem,) = check_limits(found, limits, "rows.jsonl")
    assert problem.slug == slug
    assert text in problem.what


def test_double_bos_and_missing_eos_always_stop() -> None:
    row = tokenized([conversation(0)])[0]
    bad = Dataset.from_list([row | {"double_bos": True, "eos_missing": True}], features=FEATURES)
    found = audit_rows(bad, max_length=None, over_length="truncate")
    slugs = [problem.slug for problem in check_limits(found, NO_LIMITS, "rows.jsonl")]
    assert slugs == ["eos-unsupervised", "double-bos"]


def test_double_bos_is_detected_in_plain_text_rows() -> None:
    tokenizer = tiny_tokenizer()
    row = tokenize_row({"prompt": "<s><s>hello", "completion": " there"}, 0, tokenizer, None)
    assert row["double_bos"]


def test_prompt_completion_text_is_supervised_on_the_completion_and_eos() -> None:
    tokenizer = tiny_tokenizer()
    row = tokenize_row({"prompt": "hello", "completion": " there"}, 0, tokenizer, None)
    assert tokenizer.decode(row["input_ids"]) == "hello there</s>"
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == " there</s>"


def test_prompt_completion_messages_are_supervised_in_the_completion_alone() -> None:
    tokenizer = tiny_tokenizer()
    row = tokenize_row(
        {"prompt": [USER, {"role": "assistant", "content": "three"}, USER], "completion": [ANSWER]}, 0, tokenizer, None
    )
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == "four</s>"


def test_assistant_first_and_system_only_survive() -> None:
    counts = audit([{"messages": [ANSWER, USER]}, {"messages": [{"role": "system", "content": "x"}]}]).total
    assert counts.trained_rows == 1
    assert counts.unsupervised == 1
    assert counts.odd_order == 1  # a lone system turn is not odd, only useless


@pytest.mark.integration
def test_a_row_of_ten_megabytes_is_cut_not_fatal() -> None:
    row = {"messages": [USER, {"role": "assistant", "content": "four " * 2_000_000}]}
    counts = audit([row], max_length=64).total
    assert counts.tokens == 64
    assert counts.answers_cut == 1


def test_tokenize_rows_keeps_order_and_columns_over_processes() -> None:
    rows = Dataset.from_list([conversation(i) for i in range(8)])
    one = tokenize_rows(rows, tiny_tokenizer(), max_length=64)
    two = tokenize_rows(rows, tiny_tokenizer(), max_length=64, num_proc=2)
    assert one.to_dict() == two.to_dict()
    assert one["row"][:] == list(range(8))
