"""MATH: the answer of a completion (`math_answer`) against the label, as text and by math-verify.

sympy can be made to compute for ever and to fill the memory: this runs in the main thread of a child of the pool.
"""

import importlib.util
from functools import lru_cache
from typing import Any

from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers.math_answer import Found, is_bare_formula, is_comparable, label_text, plain, ways
from tulu_recipes.verifiers.math_size import is_too_large
from tulu_recipes.verifiers.time_limit import OutOfTime, time_limit
from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong

SECONDS = 2.0  # of CPU time for a question; the slowest honest comparison seen took 0.8
LONGEST = 2000  # characters of an answer that are still parsed


def check_installed() -> None:
    if importlib.util.find_spec("math_verify") is None:
        raise DataError(
            Problem(
                "verifier-library",
                "verifier math",
                "The library math-verify is not installed.",
                'pip install "tulu-recipes[eval]".',
            )
        )


def grade(completion: str, ground_truth: str) -> Verdict:
    """Both are texts without an error of their own: `judging.input_fault`."""
    try:
        with time_limit(SECONDS):
            return _compared(ways(completion), label_text(ground_truth))
    except OutOfTime:
        return error("timed out")


def label_fault(ground_truth: str) -> str | None:
    """Why neither math-verify nor a comparison of texts can use the label."""
    label = label_text(ground_truth)
    try:
        with time_limit(SECONDS):
            return None if _read(label) or is_comparable(label) else "label is no formula"
    except OutOfTime:
        return "timed out"


def _compared(found: list[Found], label: str) -> Verdict:
    if not _read(label) and not is_comparable(label):
        return error("label is no formula")
    for way, texts in found:
        if any(plain(text) == plain(label) for text in texts):
            return CORRECT
        if any(is_too_large(text[-LONGEST:]) for text in texts):
            return error("too large to compute")
        answers = [answer for text in texts for answer in _readings(way, text) if answer]
        if any(_equal(_read(label), answer) for answer in answers):
            return CORRECT
        if answers:
            break
    return wrong("another answer" if answers else "no answer found")


def _readings(way: str, text: str) -> list[list[Any]]:
    if way != "whole":
        return [_read(text)]
    bare = [_read(text.strip().rstrip("."))] if is_bare_formula(text) else []
    return [*bare, _read(text.replace("\\$", ""), whole=True)]


@lru_cache(1024)
def _read(text: str, *, whole: bool = False) -> list[Any]:
    """What math-verify sees in a formula, or in running text; empty when it is none. Prompts share their label."""
    from math_verify import parse

    if len(text) > LONGEST or is_too_large(text):
        return []
    seen: list[Any] = parse(text if whole else f"${text}$", parsing_timeout=None, raise_on_error=True)
    return [] if not seen or isinstance(seen[0], str) else seen  # text alone is what could not be parsed


def _equal(label: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    return bool(label) and verify(label, answer, timeout_seconds=None, raise_on_error=True)
