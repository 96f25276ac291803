"""Verifiers of the user's own, by module:function."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tulu_recipes.errors import DataError
from tulu_recipes.verifiers import Verdict, find_verifier

SOURCE = """
from tulu_recipes.verifiers import Verdict

Polite = "no function"

def polite(completion, ground_truth):
    return "please" in completion

def share(completion, ground_truth):
    return completion.count(ground_truth) / len(completion)

def own(completion, ground_truth):
    return Verdict("error", 0.0, "nothing to say")

def echo(completion, ground_truth):
    return ANSWERS[completion]

def broken(completion, ground_truth):
    raise KeyError(completion)
"""
ANSWERS = {"nan": math.nan, "two": 2.0, "numpy": np.float32(0.5), "one": 1, "text": "yes", "none": None}


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Own_verifiers.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('at import')")
    monkeypatch.syspath_prepend(tmp_path)


def grade(function: str, completion: str, ground_truth: str = "a") -> Verdict:
    return find_verifier(f"Own_verifiers:{function}").grade(completion, ground_truth)


def test_what_the_function_returns_becomes_the_verdict() -> None:
    assert grade("polite", "yes, please") == Verdict("correct", 1.0)
    assert grade("polite", "yes") == Verdict("wrong", 0.0, "refused by the verifier")
    assert grade("share", "ab") == Verdict("wrong", 0.5, "partly right")
    assert grade("share", "aa") == Verdict("correct", 1.0)
    assert grade("own", "aa") == Verdict("error", 0.0, "nothing to say")
    assert grade("broken", "x") == Verdict("error", 0.0, "the verifier raised KeyError('x')")


def test_other_types_and_scores_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    echo = find_verifier("Own_verifiers:echo").grade
    monkeypatch.setattr("Own_verifiers.ANSWERS", ANSWERS, raising=False)
    outside = "the verifier returned a score outside 0 to 1"
    assert {name: echo(name, "").reason for name in ANSWERS} == {
        "nan": outside,
        "two": outside,
        "numpy": "partly right",
        "one": "",
        "text": "the verifier returned str",
        "none": "the verifier returned NoneType",
    }
    assert [echo(name, "").outcome for name in ANSWERS] == ["error", "error", "wrong", "correct", "error", "error"]


def test_a_verdict_of_the_users_is_one_of_three_with_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [Verdict("correct", 1.0), Verdict("wrong", 0.5, "half"), Verdict("error", 0.0, "none")]
    odd: list[Any] = [("great", 7.0), ("correct", 0.3), ("wrong", 1.0), ("wrong", None), ("error", 0.5), ("wrong", -1)]
    given: list[Any] = [*good, *(Verdict(*fields) for fields in odd), np.bool_(True), np.bool_(False)]
    answers = dict(enumerate(given))
    monkeypatch.setattr("Own_verifiers.ANSWERS", answers, raising=False)
    echo: Any = find_verifier("Own_verifiers:echo").grade
    found = [echo(number, "") for number in answers]
    assert found[:3] == good
    assert {(verdict.outcome, verdict.reason) for verdict in found[3:9]} == {
        ("error", "the verifier returned a Verdict that is none")
    }
    assert [verdict.outcome for verdict in found[9:]] == ["correct", "wrong"]


def test_it_runs_apart_and_keeps_its_name_and_any_label() -> None:
    verifier = find_verifier("Own_verifiers:polite")
    assert (verifier.name, verifier.isolated) == ("Own_verifiers:polite", True)
    assert verifier.label_fault("") is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_nowhere:polite", "No module named 'own_nowhere'"),
        ("Own_verifiers:rude", "has no attribute 'rude'"),
        ("Own_verifiers:Polite", "not a function"),
        ("own_broken:polite", "RuntimeError: at import"),
        ("Own_verifiers:", "no module:function"),
        ("Own verifiers:polite", "no module:function"),
    ],
)
def test_what_cannot_be_loaded_is_refused(name: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as refused:
        find_verifier(name)
    assert refused.value.slugs == ["verifier-unknown"]


def test_a_function_of_the_users_own_has_no_released_rule() -> None:
    with pytest.raises(DataError, match="as_released"):
        find_verifier("Own_verifiers:polite", "as_released")
