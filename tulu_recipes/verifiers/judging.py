"""One completion graded by one verifier, in this process; whatever the verifier raises is an error verdict.

For a caller's own process (rules that cannot hang) and for the children of the pool.
"""

from typing import Any, NamedTuple

from tulu_recipes.verifiers.registry import Verifier
from tulu_recipes.verifiers.verdict import Verdict, error

LABEL = "label"  # asked for in the place of a semantics: only whether the ground truth can be used


class Question(NamedTuple):
    """name: verifier, as in the `dataset` column; completion: the model's answer alone, without its prompt."""

    name: str
    completion: str
    ground_truth: str


def input_fault(question: Question) -> str | None:
    """What no verifier can grade, in a few words; rows of a dataset may hold anything."""
    values: tuple[Any, ...] = question
    for value, what in zip(values, ("verifier name", "completion", "label"), strict=True):
        if not isinstance(value, str):
            return f"{what} is no text"
    return None if question.ground_truth.strip() else "label is empty"


def judged(verifier: Verifier, question: Question, semantics: str) -> Verdict:
    """The verdict; with LABEL as semantics error or "correct", which then means that the label can be used."""
    try:
        if semantics == LABEL:
            fault = verifier.label_fault(question.ground_truth)
            return error(fault) if fault else Verdict("correct", 1.0)
        verdict = verifier.judge(question.completion, question.ground_truth, semantics)
    except MemoryError:
        return error("out of memory")
    except Exception as failure:  # noqa: BLE001 (sympy and user verifiers raise anything on odd input)
        return error(f"verifier failed: {type(failure).__name__}")
    return verdict if isinstance(verdict, Verdict) else error("verifier gave no verdict")
