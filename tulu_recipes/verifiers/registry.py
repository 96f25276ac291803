"""Verifiers by name, with their versions: what `verify`, the pool and the reward of RLVR know of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from tulu_recipes.config.values import nearest
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers import (
    code,
    gsm8k,
    ifeval,
    ifeval_language,
    math,
    math_released,
    multiple_choice,
    sandbox,
    string_match,
    user,
)
from tulu_recipes.verifiers.verdict import Verdict

Semantics = Literal["fixed", "as_released"]
SEMANTICS: tuple[Semantics, ...] = ("fixed", "as_released")

Grade = Callable[[str, str], Verdict]


@dataclass(frozen=True)
class Verifier:
    """One rule that grades completions.

    version: raised when any verdict changes; written into run folders.
    grade: (completion, ground_truth) -> Verdict, by the corrected rules.
    grade_as_released: by the rules of the Tülu 3 release, bugs included; None where it had no such verifier.
    label_fault: what is wrong with a ground truth, in a few words without its values; None when it can be used.
    isolated: may hang, crash or fill the memory on a hostile completion, so that it only runs in a child process.
    check_installed: raises DataError when a library that it needs is not there.
    seconds: wall clock that a question may take at least; for a verifier with limits of its own.
    """

    name: str
    version: int
    grade: Grade
    grade_as_released: Grade | None
    label_fault: Callable[[str], str | None]
    isolated: bool = False
    check_installed: Callable[[], None] = lambda: None
    seconds: float = 0.0

    def judge(self, completion: str, ground_truth: str, semantics: str) -> Verdict:
        """Grade in this process, whatever the completion does to it."""
        grade = self.grade if semantics == "fixed" else self.grade_as_released
        assert grade is not None, "refused by find_verifier"
        return grade(completion, ground_truth)


_ALL = (
    Verifier("gsm8k", 2, gsm8k.grade, gsm8k.grade_as_released, gsm8k.label_fault),
    Verifier("math", 3, math.grade, math_released.grade, math.label_fault, True, math.check_installed),
    Verifier(
        "ifeval", 2, ifeval.grade, ifeval.grade_as_released, ifeval.label_fault, False, ifeval_language.check_installed
    ),
    Verifier("string_match", 1, string_match.grade, None, string_match.label_fault),
    Verifier("multiple_choice", 2, multiple_choice.grade, None, multiple_choice.label_fault),
    Verifier("code", 2, code.grade, None, code.label_fault, True, sandbox.check_installed, code.LONGEST),
)

VERIFIERS: Mapping[str, Verifier] = MappingProxyType({verifier.name: verifier for verifier in _ALL})


def find_verifier(name: str, semantics: str = "fixed") -> Verifier:
    """The verifier of a `dataset` column's value, in any case, or of `module:function`.

    Raises:
        DataError: there is no such verifier, module or function, or it has no such semantics.
    """
    name = name if isinstance(name, str) else repr(name)  # a column of a dataset may hold anything
    verifier = VERIFIERS.get(name.lower())
    if verifier is None and ":" in name:
        verifier = Verifier(name, 1, user.load(name), None, user.label_fault, isolated=True)
    if verifier is None:
        near = nearest(name.lower(), list(VERIFIERS))
        mend = f"write {near}." if near else f"use one of {', '.join(VERIFIERS)}, or leave these rows out."
        raise DataError(Problem("verifier-unknown", f"verifier {name}", "There is no verifier of this name.", mend))
    if semantics not in SEMANTICS or (semantics == "as_released" and verifier.grade_as_released is None):
        what = f"Its semantics {semantics!r} are not there."
        raise DataError(Problem("verifier-unknown", f"verifier {name}", what, "write  semantics: fixed."))
    return verifier
