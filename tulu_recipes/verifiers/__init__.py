"""Answers that a rule can grade: `verify(name, completion, ground_truth)` says correct, wrong or error.

Two verifiers are here so far, `gsm8k` and `math`; names are those of the `dataset` column, in any case.
`ifeval_schema` checks the labels of constraint rows.
"""

from collections.abc import Callable

from tulu_recipes.config.values import nearest
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers import gsm8k, math
from tulu_recipes.verifiers.verdict import Verdict

__all__ = ["VERIFIERS", "Verdict", "verify"]

VERIFIERS: dict[str, Callable[[str, str], Verdict]] = {"gsm8k": gsm8k.grade, "math": math.grade}


def verify(name: str, completion: str, ground_truth: str, semantics: str = "fixed") -> Verdict:
    """Grade a completion.

    Args:
        name: verifier, as in the `dataset` column: gsm8k, MATH.
        semantics: fixed, the corrected rules. The rules as released are not offered.
    Raises:
        DataError: there is no such verifier or semantics, or its library is not installed.
    """
    grade = VERIFIERS.get(name.lower())
    if grade is None:
        near = nearest(name, list(VERIFIERS))
        mend = f"write {near}." if near else f"use one of {', '.join(VERIFIERS)}, or leave these rows out."
        raise DataError(Problem("verifier-unknown", f"verifier {name}", "There is no verifier of this name.", mend))
    if semantics != "fixed":
        raise DataError(
            Problem(
                "verifier-unknown",
                f"verifier {name}",
                f"Its semantics {semantics!r} are not there.",
                "write  semantics: fixed.",
            )
        )
    return grade(completion, ground_truth)
