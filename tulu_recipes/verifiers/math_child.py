"""A script, not imported: answers math-verify questions from standard input, one JSON line each.

{"completion": text | null, "ground_truth": text} → [outcome, reason]. Without a completion only the label is read.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import IO

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

STEP_SECONDS = 3
MEMORY = 4 << 30  # bytes; a tower of powers may not take the machine with it
ANSWER = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]


def judge(completion: str | None, ground_truth: str) -> tuple[str, str]:
    """Like the README of math-verify: the label in dollars, the answer wherever it stands, boxed first."""
    label = parse(f"${ground_truth.strip().strip('$')}$", parsing_timeout=STEP_SECONDS, raise_on_error=True)
    if not label or isinstance(label[0], str):  # text alone is what could not be parsed
        return "error", "label is no formula"
    if completion is None:
        return "correct", ""
    reason = "no answer found"
    for reading in readings(completion):
        answer = parse(reading, ANSWER, parsing_timeout=STEP_SECONDS, raise_on_error=True)
        if answer and verify(label, answer, timeout_seconds=STEP_SECONDS, raise_on_error=True):
            return "correct", ""
        reason = "another answer" if answer else reason
    return "wrong", reason


def readings(completion: str) -> Iterator[str]:
    """math-verify reads several boxes as a set, which x = [1] and y = [2] mean, but a corrected answer does not."""
    yield completion
    last = completion.rfind("\\boxed")
    if last > completion.find("\\boxed"):
        yield completion[last:]


def answer_lines(questions: IO[str], answers: IO[str]) -> None:
    print("ready", file=answers, flush=True)
    for line in questions:
        question = json.loads(line)
        try:
            outcome = judge(question["completion"], question["ground_truth"])
        except TimeoutException:
            outcome = ("error", "timed out")
        except (Exception, RecursionError, MemoryError) as error:  # noqa: BLE001 (sympy raises anything on odd input)
            outcome = ("error", f"math-verify failed: {type(error).__name__}")
        print(json.dumps(outcome), file=answers, flush=True)


if __name__ == "__main__":
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # What a library prints must not land between the answers.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answer_lines(sys.stdin, pipe)
