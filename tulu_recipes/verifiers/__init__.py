"""Answers that a rule can grade: `verify(name, completion, ground_truth)` says correct, wrong or error."""

from tulu_recipes.verifiers.judging import Question, input_fault, judged
from tulu_recipes.verifiers.pool import VerifierPool, default_pool
from tulu_recipes.verifiers.registry import SEMANTICS, VERIFIERS, Semantics, find_verifier
from tulu_recipes.verifiers.verdict import Verdict, error

__all__ = [
    "SEMANTICS",
    "VERIFIERS",
    "Question",
    "Semantics",
    "Verdict",
    "VerifierPool",
    "default_pool",
    "find_verifier",
    "label_fault",
    "verify",
]


def verify(name: str, completion: str, ground_truth: str, semantics: str = "fixed") -> Verdict:
    """Grade a completion; a verifier that could hang on it works in a process of its own (`default_pool`).

    Args:
        name: verifier, as in the `dataset` column, in any case: gsm8k, MATH.
        completion: the model's answer alone, without its prompt.
        semantics: fixed, the corrected rules; as_released, those of the Tülu 3 release, bugs included.
    Raises:
        DataError: there is no such verifier or semantics, or its library is not installed.
    """
    verifier, question = find_verifier(name, semantics), Question(name, completion, ground_truth)
    if verifier.isolated:
        return default_pool().verify_all([question], semantics)[0]
    verifier.check_installed()
    fault = input_fault(question)
    return error(fault) if fault else judged(verifier, question, semantics)


def label_fault(name: str, ground_truth: str) -> str | None:
    """What is wrong with a ground truth, in a few words without its values; None when the verifier can use it.

    Raises:
        DataError: there is no such verifier, or its library is not installed.
    """
    verifier = find_verifier(name)
    if verifier.isolated:
        return default_pool().label_faults([(name, ground_truth)])[0]
    return input_fault(Question(name, "", ground_truth)) or verifier.label_fault(ground_truth)
