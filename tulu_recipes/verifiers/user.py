"""A verifier of the user's own: `module:function`, called with (completion, ground_truth).

It returns True or False, a score from 0 to 1 (1 is correct), or a Verdict. What it raises, or anything else it
returns, is an error. It runs in a process of its own, as it may hang or crash.
"""

import importlib
import numbers
import re
from collections.abc import Callable
from typing import Any

from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong


def label_fault(_ground_truth: str) -> str | None:
    """Nobody but the function knows what a label of it looks like."""
    return None


def load(name: str) -> Callable[[str, str], Verdict]:
    """The function, wrapped.

    Raises:
        DataError: there is no such module or function.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        raise _unknown(name, "This is no module:function.", "write it as in my_package.my_verifiers:polite.")
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as failure:  # the module is the user's: its import may raise anything
        raise _unknown(
            name,
            f"It cannot be loaded: {type(failure).__name__}: {failure}.",
            "check the spelling, and that the module can be imported where the run starts (PYTHONPATH).",
        ) from failure
    if not callable(function):
        raise _unknown(name, "It is not a function.", "name a function of (completion, ground_truth).")

    def grade(completion: str, ground_truth: str) -> Verdict:
        try:
            answer = function(completion, ground_truth)
        except MemoryError:
            raise  # its process is left for a new one
        except Exception as failure:  # noqa: BLE001 (what the user's function raises becomes the verdict)
            return error(f"the verifier raised {failure!r:.200}")
        return _verdict(answer)

    return grade


def _verdict(answer: Any) -> Verdict:
    if isinstance(answer, Verdict):
        return answer if _is_sound(answer) else error("the verifier returned a Verdict that is none")
    if type(answer).__module__ == "numpy" and getattr(answer, "shape", None) == ():
        answer = answer.item()  # numpy's bool is no number
    if not isinstance(answer, numbers.Real):
        return error(f"the verifier returned {type(answer).__name__}")
    score = float(answer)
    if not 0 <= score <= 1:  # not a number, too
        return error("the verifier returned a score outside 0 to 1")
    if score == 1:
        return CORRECT
    return wrong("refused by the verifier") if score == 0 else Verdict("wrong", score, "partly right")


def _is_sound(verdict: Verdict) -> bool:
    """A score of 7 or an outcome of another name would become a reward."""
    score: Any = verdict.score
    if not isinstance(score, numbers.Real):
        return False
    value = float(score)
    return {"correct": value == 1, "wrong": 0 <= value < 1, "error": value == 0}.get(str(verdict.outcome), False)


def _unknown(name: str, what: str, mend: str) -> DataError:
    return DataError(Problem("verifier-unknown", f"verifier {name}", what, mend))
