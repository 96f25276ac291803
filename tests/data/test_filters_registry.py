"""Asking for filters: every wrong request gets a sentence that says what to write, and users bring their own."""

from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.data.filters import FILTERS, GLOBAL_FILTERS, filter_problems, make_filter
from tulu_recipes.errors import DataError

ROW = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def problem(name: str, params: dict[str, Any] | None = None, target: str = "sft") -> str:
    found = filter_problems(name, params or {}, target)
    assert len(found) == 1
    with pytest.raises(DataError) as refused:
        make_filter(name, params or {}, target=target, tokenizer=None)
    assert "filter-refused" in str(refused.value)
    assert f"`{name}` cannot be used: " in str(refused.value)
    return found[0]


def test_every_filter_says_what_it_does_and_checks_its_own_defaults() -> None:
    needed: dict[str, dict[str, Any]] = {
        "characters": {"max": 5},
        "tokens": {"max": 5},
        "turns": {"min": 2},
        "keywords": {"words": ["x"]},
        "regex": {"pattern": "x"},
        "language": {"keep": ["en"]},
    }
    for name, kind in FILTERS.items():
        assert kind.meaning
        assert all(parameter.meaning for parameter in kind.parameters.values())
        assert filter_problems(name, needed.get(name, {}), kind.targets[-1]) == []
        filled = {key: value for key, value in kind.filled(needed.get(name, {})).items() if value is not None}
        assert filter_problems(name, filled, kind.targets[-1]) == []


def test_the_page_lists_every_filter_with_its_parameters_and_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")
    for name, kind in FILTERS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        for key, parameter in kind.parameters.items():
            default = parameter.default
            if default is None:
                shown = "(none)" if key == "solution_column" else ""
            elif isinstance(default, bool):
                shown = f"({str(default).lower()})"
            elif isinstance(default, list):
                shown = f"({', '.join(default) or {'among': 'all', 'also': 'none'}[key]})"
            else:
                shown = f"({default})"
            assert f"`{key}` {shown}".rstrip() in line, (name, key)


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("model_mention", {}, "there is no filter 'model_mention'. Write model_mentions"),
        ("nothing like it", {}, "Write one of characters, tokens"),
        ("characters", {"maximum": 5}, "there is no parameter 'maximum'"),
        ("characters", {}, "neither min nor max"),
        ("characters", {"min": 9, "max": 3}, "min 9 is above max 3"),
        ("characters", {"max": -1}, "max is -1. Write a whole number of at least 0."),
        ("characters", {"max": True}, "max is True"),
        ("characters", {"max": 5, "of": "asistant"}, "of is 'asistant'. Write assistant."),
        ("characters", {"max": 5, "of": "chosen"}, "of: chosen is for preference rows"),
        ("keywords", {}, "words is missing"),
        ("keywords", {"words": "bad"}, "words is 'bad'. Write a list of texts."),
        ("keywords", {"words": []}, "words is empty"),
        ("keywords", {"words": ["x"], "ignore_case": "yes"}, "Write true or false"),
        ("regex", {"pattern": "("}, "Write a regular expression (missing )"),
        ("repetition", {"ngram": 0}, "ngram is 0"),
        ("repetition", {"max_fraction": 50}, "Write a number from 0 to 1"),
        ("language", {"keep": []}, "keep is empty"),
        ("language", {"keep": ["en"], "among": ["de"]}, "en is kept but not among"),
        ("model_mentions", {"allow": ["Tulu", "Open AI"]}, "'Open AI' is not on the list"),
        ("near_duplicates", {"threshold": 80}, "threshold is 80"),
        ("exact_duplicates", {"scope": "sources"}, "Write source."),
        ("verifiable", {}, "it works on rlvr rows, and the target is sft"),
        ("my_filters:", {}, "'my_filters:' is no module:function"),
        ("os; x:y", {}, "is no module:function"),
    ],
)
def test_what_is_wrong_with_a_request(name: str, params: dict[str, Any], said: str) -> None:
    assert said in problem(name, params)


def test_all_problems_of_a_request_are_told_at_once() -> None:
    assert len(filter_problems("characters", {"max": "x", "min": -1, "off": 1}, "sft")) == 3


def test_filters_that_need_more_than_their_parameters_are_refused_when_built() -> None:
    assert filter_problems("tokens", {"max": 5}, "sft") == []
    with pytest.raises(DataError, match="Write `tokenizer: org/name` in the mix"):
        make_filter("tokens", {"max": 5}, target="sft", tokenizer=None)
    with pytest.raises(DataError, match="klingon is no language"):
        make_filter("language", {"keep": ["klingon"]}, target="sft", tokenizer=None)
    for name in GLOBAL_FILTERS:
        with pytest.raises(DataError, match="compares rows with each other"):
            make_filter(name, {}, target="sft", tokenizer=None)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_filters_for_tests.py").write_text(
        "def answer(row, value=None):\n"
        "    if value == 'raise':\n"
        "        raise KeyError('score')\n"
        "    return value\n"
        "number = 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_filters_for_tests"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(True, None), (None, None), (False, "dropped"), ("too rude", "too rude"), ("x" * 200, "x" * 80)],
)
def test_a_user_s_function_keeps_and_drops(mine: str, answer: Any, reason: str | None) -> None:
    keep = make_filter(f"{mine}:answer", {"value": answer}, target="sft", tokenizer=None)
    assert keep(ROW) == reason


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0, "It returned int"),
        ("", "It returned str"),
        ([], "return True or None"),
        ("raise", "It raised KeyError: 'score'"),
    ],
)
def test_a_user_s_function_that_fails_stops_the_mix(mine: str, answer: Any, said: str) -> None:
    keep = make_filter(f"{mine}:answer", {"value": answer}, target="sft", tokenizer=None)
    with pytest.raises(DataError) as stopped:
        keep(ROW)
    assert "filter-function" in str(stopped.value)
    assert f"filter {mine}:answer" in str(stopped.value)
    assert said in str(stopped.value)


def test_a_user_s_function_that_is_not_there_is_named(mine: str) -> None:
    for name, said in (
        (f"{mine}:other", "no attribute 'other'"),
        (f"{mine}:number", "not a function"),
        ("nomod:f", "nomod"),
    ):
        assert filter_problems(name, {}, "sft") == []
        with pytest.raises(DataError, match=said):
            make_filter(name, {}, target="sft", tokenizer=None)
