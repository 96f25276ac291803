"""A script, not imported: grades questions from standard input in a process that may hang, crash or be killed.

The first line says how: {"path", "memory", "seconds", "parent"}. Then one question a line,
[semantics, name, completion, ground_truth], and one answer a line in the same order, [outcome, score, reason].
Between answers stand "ready" (questions are read), "loaded" (the libraries of the next question's verifier are there,
its time starts now) and "leaving" (no further question will be answered).
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

Say = Callable[[Any], None]
REASON_LENGTH = 200  # characters; a verifier's reason is a few words


def protected_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output under other numbers: what a verifier reads or prints must not land between lines."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return questions, answers


def set_limits(memory: int | None) -> None:
    """memory: bytes of address space, so that no answer takes the machine with it. A crash leaves no core file."""
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with(parent: int) -> None:
    """End this process and all it started when the parent is gone, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def allow_cpu(seconds: float) -> None:
    """One huge power holds the interpreter, so that `watch` gets no turn: then the kernel ends an orphan."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + 2 * seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def answer(question: list[str], loaded: set[str], say: Say) -> list[Any]:
    from tulu_recipes.errors import DataError
    from tulu_recipes.verifiers.judging import LABEL, Question, judged
    from tulu_recipes.verifiers.registry import find_verifier

    semantics, name, completion, ground_truth = question
    try:
        verifier = find_verifier(name, "fixed" if semantics == LABEL else semantics)
        if name not in loaded:
            judged(verifier, Question(name, "", "1"), LABEL)  # makes it import its libraries
    except DataError:
        return ["error", 0.0, "no such verifier or semantics"]
    finally:
        if name not in loaded:
            loaded.add(name)
            say("loaded")
    verdict = judged(verifier, Question(name, completion, ground_truth), semantics)
    return [verdict.outcome, float(verdict.score), str(verdict.reason)[:REASON_LENGTH]]


def answer_all(questions: IO[bytes], say: Say, seconds: float) -> None:
    loaded: set[str] = set()
    say("ready")
    for line in questions:
        allow_cpu(seconds)
        try:
            found = answer(json.loads(line), loaded, say)
        except MemoryError:
            found = ["error", 0.0, "out of memory"]
        except BaseException as failure:  # noqa: BLE001 (sys.exit in a verifier of the user's is one question's error)
            found = ["error", 0.0, f"verifier failed: {type(failure).__name__}"]
        say(found)
        if found[2] == "out of memory":
            say("leaving")  # what filled the memory may stay there and fail every later question
            return


def main() -> None:
    questions, answers = protected_pipes()
    setup = json.loads(questions.readline())
    sys.path[:] = setup["path"]
    set_limits(setup["memory"])
    die_with(setup["parent"])

    def say(what: Any) -> None:
        answers.write(json.dumps(what).encode() + b"\n")
        answers.flush()

    import tulu_recipes.verifiers.judging  # noqa: F401 (before "ready", so that no question pays for it)

    answer_all(questions, say, setup["seconds"])


if __name__ == "__main__":
    main()
