"""Constraints that a rule can check: the label names one, or several with the layouts of IFEval (ifeval_schema.py).

The score is the share of the constraints followed; correct are all of them. As IFEval's strict accuracy: the
completion is taken as it is, without leaving out a first line or asterisks, and an empty one follows nothing.
"""

from tulu_recipes.verifiers.ifeval_functions import FUNCTIONS
from tulu_recipes.verifiers.ifeval_official import CHECKS
from tulu_recipes.verifiers.ifeval_released import RELEASED
from tulu_recipes.verifiers.ifeval_schema import Constraint, LabelFault, label_fault, read_label
from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong

__all__ = ["grade", "grade_as_released", "label_fault"]

_FIXED = {**FUNCTIONS, **CHECKS}


def grade(completion: str, ground_truth: str) -> Verdict:
    """Raises DataError when a language is asked for and langdetect is not installed."""
    try:
        constraints = read_label(ground_truth)
    except LabelFault as fault:
        return error(str(fault))
    if not completion.strip():
        return wrong("empty answer")
    broken = [constraint.name for constraint in constraints if not _followed(constraint, completion)]
    if not broken:
        return CORRECT
    kept = len(constraints) - len(broken)
    among = "" if len(constraints) == 1 else f" ({kept} of {len(constraints)} are)"
    return Verdict("wrong", kept / len(constraints), f"{broken[0]} is not followed{among}")


def grade_as_released(completion: str, ground_truth: str) -> Verdict:
    """The functions of the release, which knew no instruction ids. Where one raised, the verdict is error.

    So it is for labels that no constraint can be checked with, where the release raised too, or gave no reward.
    """
    try:
        (constraint, *more) = read_label(ground_truth)
    except LabelFault as fault:
        return error(str(fault))
    if more or constraint.name not in RELEASED:
        return error("the release knew no instruction ids")
    answer = completion.split("<|assistant|>\n")[-1].strip()
    try:
        followed = RELEASED[constraint.name](answer, **constraint.arguments)
    except (ValueError, OverflowError, RecursionError) as failure:
        return error(f"the released rule raised {type(failure).__name__}")
    return CORRECT if followed else wrong(f"{constraint.name} is not followed")


def _followed(constraint: Constraint, completion: str) -> bool:
    return _FIXED[constraint.name](completion, **constraint.arguments)
