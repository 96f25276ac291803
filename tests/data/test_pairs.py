"""Pairs as tokens: what is compared, what is cut, what is counted, against text that a person can read."""

from io import StringIO
from typing import Any

import pytest
from datasets import Dataset
from rich.console import Console

from tests.tiny import tiny_tokenizer
from tulu_recipes.data import pair_audit
from tulu_recipes.data.audit import Limits, print_audit
from tulu_recipes.data.pair_audit import PairCounts, PairLimits, audit_pairs, check_limits
from tulu_recipes.data.pairs import PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.errors import DataError

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talk(*contents: str) -> list[dict[str, str]]:
    return [turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]


def pair(chosen: list[dict[str, str]], rejected: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return {"prompt": chosen[-2]["content"], "chosen": chosen, "rejected": rejected, "source": "here"} | more


TWO_TURNS = pair(talk("hello", "one cat", "how many", "two"), talk("hello", "one cat", "how many", "three red"))


def tokenized(*rows: dict[str, Any], max_length: int | None = None, **rules: Any) -> Dataset:
    return tokenize_pairs(Dataset.from_list(list(rows)), TOKENIZER, PairRules(max_length, **rules))


def compared(row: dict[str, Any], side: str) -> str:
    """The text that the mask leaves, spans parted by |."""
    parts: list[list[int]] = [[]]
    for token, bit in zip(row[f"{side}_ids"], row[f"{side}_mask"], strict=True):
        if bit:
            parts[-1].append(token)
        elif parts[-1]:
            parts.append([])
    return "|".join(TOKENIZER.decode(part) for part in parts if part)


def test_last_turn_compares_the_last_answer_and_its_end() -> None:
    row = tokenized(TWO_TURNS)[0]
    assert (compared(row, "chosen"), compared(row, "rejected")) == (f"two{EOS}", f"three red{EOS}")
    assert row["chosen_tokens"] == sum(row["chosen_mask"])


def test_all_assistant_turns_compares_shared_answers_too() -> None:
    row = tokenized(TWO_TURNS, masking="all_assistant_turns")[0]
    assert compared(row, "chosen") == f"one cat{EOS}|two{EOS}"
    assert compared(row, "rejected") == f"one cat{EOS}|three red{EOS}"


@pytest.mark.parametrize(("masking", "text"), [("last_turn", "two"), ("all_assistant_turns", "one cat|two")])
def test_termination_tokens_can_be_left_out_of_any_masking(masking: str, text: str) -> None:
    row = tokenized(TWO_TURNS, masking=masking, mask_termination_tokens=True)[0]
    assert compared(row, "chosen") == text


def test_the_whole_conversation_is_what_the_template_makes_of_it() -> None:
    row = tokenized(TWO_TURNS)[0]
    assert TOKENIZER.decode(row["chosen_ids"]) == TOKENIZER.apply_chat_template(TWO_TURNS["chosen"], tokenize=False)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello", "chosen": "two", "rejected": "three"},
        {"prompt": talk("hello"), "chosen": talk("x", "two")[1:], "rejected": talk("x", "three")[1:]},
        {"chosen": talk("hello", "two"), "rejected": talk("hello", "three")},
        {"prompt": "hello", "chosen": talk("hello", "two"), "rejected": talk("hello", "three"), "chosen_score": "bad"},
    ],
)
def test_every_spelling_of_a_pair_gives_the_same_tokens(row: dict[str, Any]) -> None:
    found, published = tokenized(row)[0], tokenized(pair(talk("hello", "two"), talk("hello", "three")))[0]
    for name in ("chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask"):
        assert found[name] == published[name]


SHORT = pair(talk("hello", "two"), talk("hello", "three one"))
BROKEN = {
    "empty": pair(talk("hello", "two"), talk("hello", " ")),
    "prompts": pair(talk("hello", "two"), talk("red", "three")),
    "system": pair([*talk("hello", "two"), turn("system", "be brief")], talk("hello", "three")),
    "user": pair(talk("hello", "two", "more"), talk("hello", "three")),
    "missing": {"prompt": "hello", "chosen": talk("hello", "two"), "rejected": None, "source": "here"},
    "same": pair(talk("hello", "two"), talk("hello", "two")),
}


def test_what_is_no_pair_is_counted_with_its_reason_and_not_trained() -> None:
    rows = tokenized(*BROKEN.values(), TWO_TURNS)
    assert rows["fault"] == [
        "a message (assistant) is empty",
        "chosen and rejected have different prompts",
        "chosen does not end with an assistant turn",
        "chosen does not end with an assistant turn",
        "rejected is missing" if rows["fault"][4] == "rejected is missing" else rows["fault"][4],
        "chosen and rejected are the same",
        "",
    ]
    assert rows["fault"][4]
    assert len(trainable_pairs(rows, over_length="truncate")) == 1
    total = audit_pairs(rows, max_length=None, over_length="truncate").total
    assert isinstance(total, PairCounts)
    assert (total.rows, total.trained_rows, total.broken, total.identical, total.unsupervised) == (7, 1, 5, 1, 0)


LONG = pair(talk("hello", "two"), talk("hello", "red " * 30 + "one"))
LONG_PROMPT = pair(talk("cat " * 60, "two"), talk("cat " * 60, "three"))
LONG_START = pair(talk("hello", "red " * 30 + "one"), talk("hello", "red " * 30 + "two"))


def counts(over_length: str, *rows: dict[str, Any], **rules: Any) -> PairCounts:
    found = tokenized(*rows, max_length=40, **rules)
    total = audit_pairs(found, max_length=40, over_length=over_length).total
    assert isinstance(total, PairCounts)
    assert total.trained_rows == len(trainable_pairs(found, over_length=over_length))
    return total


def test_truncate_cuts_and_says_which_answer_lost_its_end() -> None:
    total = counts("truncate", LONG, SHORT)
    assert (total.over_length, total.rows_cut, total.chosen_cut, total.rejected_cut) == (1, 1, 0, 1)
    assert (total.trained_rows, total.chosen_shorter, total.chosen_longer) == (2, 2, 0)
    row = tokenized(LONG, max_length=40)[0]
    assert len(row["rejected_ids"]) == 40
    assert EOS not in compared(row, "rejected")


def test_drop_and_stop_and_the_released_filter() -> None:
    dropped = counts("drop", LONG, SHORT)
    assert (dropped.trained_rows, dropped.over_length_dropped, dropped.rejected_cut) == (1, 1, 0)
    stopped = audit_pairs(tokenized(LONG, SHORT, max_length=40), max_length=40, over_length="stop")
    assert [problem.slug for problem in check_limits(stopped, LIMITS, "rows")] == ["over-length", "answers-cut"]
    # as released the prompt alone is measured, and a long answer passes whole
    released = counts("as_released", LONG, LONG_PROMPT, prompt_only=True)
    assert (released.over_length, released.trained_rows, released.rows_cut) == (1, 1, 0)
    assert len(tokenized(LONG, max_length=40, prompt_only=True)[0]["rejected_ids"]) > 40


def test_a_prompt_that_fills_max_length_leaves_nothing_to_compare() -> None:
    total = counts("truncate", LONG_PROMPT, SHORT)
    assert (total.trained_rows, total.unsupervised, total.identical) == (1, 1, 0)


def test_pairs_of_which_only_the_shared_start_is_left_are_identical() -> None:
    total = counts("truncate", LONG_START, SHORT)
    assert (total.prefix_only, total.identical, total.trained_rows) == (1, 1, 1)


EARLY = pair(talk("hello", "one", "how many", "two"), talk("hello", "red", "how many", "three"))
LIMITS = PairLimits(Limits(0.0, 0.0, 0.0, 1.0), identical=0.0, early=0.0)


def test_pairs_that_part_early_are_counted_and_stop_last_turn_alone() -> None:
    audit = audit_pairs(tokenized(EARLY), max_length=None, over_length="truncate")
    assert audit.total.early == 1  # type: ignore[attr-defined]
    problem = check_limits(audit, LIMITS, "rows")[0]
    assert problem.slug == "pairs-part-early"
    assert "row 1 (here)" in problem.what
    assert check_limits(audit, PairLimits(LIMITS.rows, 0.0, None), "rows") == []
    assert compared(tokenized(EARLY, masking="all_assistant_turns")[0], "rejected") == f"red{EOS}|three{EOS}"


def test_each_limit_names_its_rows_and_its_key() -> None:
    audit = audit_pairs(tokenized(*BROKEN.values(), TWO_TURNS), max_length=None, over_length="truncate")
    problems = {problem.slug: problem for problem in check_limits(audit, LIMITS, "rows")}
    assert set(problems) == {"rows-broken", "pairs-identical"}
    assert "row 2 (here): chosen and rejected have different prompts" in problems["rows-broken"].what
    assert "row 6 (here)" in problems["pairs-identical"].what
    assert "max_identical_fraction" in problems["pairs-identical"].mend


def test_a_margin_that_is_no_number_breaks_the_row_and_other_columns_do_no_harm() -> None:
    rows = Dataset.from_list([TWO_TURNS | {"lead": "0.5", "score": "high"}, TWO_TURNS | {"lead": "1", "score": "x"}])
    named = tokenize_pairs(rows, TOKENIZER, PairRules(None), margin_column="lead")
    assert named["fault"] == ["lead is not a number"] * 2
    assert tokenize_pairs(rows, TOKENIZER, PairRules(None))["fault"] == ["", ""]
    numbers = rows.remove_columns("lead").add_column("lead", [0.5, 1.0])
    kept = trainable_pairs(
        tokenize_pairs(numbers, TOKENIZER, PairRules(None), margin_column="lead"), over_length="drop"
    )
    assert kept["margin"] == [0.5, 1.0]
    assert "margin" not in trainable_pairs(tokenized(SHORT), over_length="drop").column_names


def test_chat_rows_are_refused_by_their_columns() -> None:
    with pytest.raises(DataError) as caught:
        tokenize_pairs(Dataset.from_list([{"messages": talk("hello", "two")}]), TOKENIZER, PairRules(None))
    assert caught.value.problems[0].slug == "columns-unknown"


def test_the_report_shows_lengths_and_says_what_does_not_occur() -> None:
    console = Console(record=True, width=140, file=StringIO())
    audit = audit_pairs(tokenized(LONG, SHORT, max_length=40), max_length=40, over_length="truncate")
    print_audit(audit, console, pair_audit.COLUMNS, title="Length report", always=pair_audit.ALWAYS_SHOWN)
    text = console.export_text()
    assert "chosen shorter" in text
    assert "rejected cut" in text
    assert "identical" in text.splitlines()[-1]
