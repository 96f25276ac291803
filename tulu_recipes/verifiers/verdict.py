"""What a verifier answers."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """outcome: error means that nothing can be said (a label that cannot be read, a time-out); its score is 0.

    score: 0.0-1.0. reason: a few words, without values of the row; empty when correct.
    """

    outcome: Literal["correct", "wrong", "error"]
    score: float
    reason: str = ""


CORRECT = Verdict("correct", 1.0)


def wrong(reason: str) -> Verdict:
    return Verdict("wrong", 0.0, reason)


def error(reason: str) -> Verdict:
    return Verdict("error", 0.0, reason)
