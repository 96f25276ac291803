"""MATH: the answer of a completion against the label, by math-verify.

The answer is what all boxes hold, or the last one; without boxes the last formula or number.

sympy can be made to compute for ever and to fill the memory: this runs in the main thread of a child of the pool.
"""

import importlib.util
from typing import Any

from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers.time_limit import OutOfTime, time_limit
from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong

SECONDS = 2.0  # of CPU time; the slowest honest comparison seen took 0.8


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
    try:
        with time_limit(SECONDS):
            return _compared(completion, ground_truth)
    except OutOfTime:
        return error("timed out")


def label_fault(ground_truth: str) -> str | None:
    """Why math-verify cannot read the label as mathematics."""
    try:
        with time_limit(SECONDS):
            return None if _label(ground_truth) else "label is no formula"
    except OutOfTime:
        return "timed out"


def _label(ground_truth: str) -> list[Any]:
    from math_verify import parse

    label = parse(f"${ground_truth.strip().strip('$')}$", parsing_timeout=None, raise_on_error=True)
    return label if label and not isinstance(label[0], str) else []


def _compared(completion: str, ground_truth: str) -> Verdict:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    label = _label(ground_truth)
    if not label:
        return error("label is no formula")
    reason = "no answer found"
    last = completion.rfind("\\boxed")
    readings = [completion, completion[last:]] if last > completion.find("\\boxed") else [completion]
    for reading in readings:
        answer = parse(reading, config, parsing_timeout=None, raise_on_error=True)
        if answer and verify(label, answer, timeout_seconds=None, raise_on_error=True):
            return CORRECT
        reason = "another answer" if answer else reason
    return wrong(reason)
