"""MATH: the answer of a completion against the label, by math-verify.

The answer is what all boxes hold, or the last one; without boxes the last formula or number.

math-verify stops a comparison by SIGALRM, which works in a main thread alone and not while one huge power is computed.
So it works in a child process, which is killed when an answer takes too long; any thread and process may ask.
"""

import importlib.util

from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers.math_process import ask
from tulu_recipes.verifiers.verdict import Verdict


def grade(completion: str, ground_truth: str) -> Verdict:
    """Raises DataError when math-verify is not installed."""
    return _judged({"completion": completion, "ground_truth": ground_truth})


def label_fault(ground_truth: str) -> str | None:
    """Why math-verify cannot read the label as mathematics."""
    return _judged({"completion": None, "ground_truth": ground_truth}).reason or None


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


def _judged(question: dict[str, str | None]) -> Verdict:
    check_installed()
    outcome, reason = ask(question)
    if outcome == "correct":
        return Verdict("correct", 1.0)
    return Verdict("wrong" if outcome == "wrong" else "error", 0.0, reason)
