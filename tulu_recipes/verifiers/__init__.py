"""Answers that a rule can grade: `verify(name, completion, ground_truth)` says correct, wrong or error."""

from tulu_recipes.verifiers.registry import SEMANTICS, VERIFIERS, Semantics, find_verifier
from tulu_recipes.verifiers.verdict import Verdict

__all__ = ["SEMANTICS", "VERIFIERS", "Semantics", "Verdict", "find_verifier", "verify"]


def verify(name: str, completion: str, ground_truth: str, semantics: str = "fixed") -> Verdict:
    """Grade a completion.

    Args:
        name: verifier, as in the `dataset` column, in any case: gsm8k, MATH.
        completion: the model's answer alone, without its prompt.
        semantics: fixed, the corrected rules; as_released, those of the Tülu 3 release, bugs included.
    Raises:
        DataError: there is no such verifier or semantics, or its library is not installed.
    """
    return find_verifier(name, semantics).judge(completion, ground_truth, semantics)
