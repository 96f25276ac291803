"""A pool whose workers hang, crash, are killed and fill the memory: each time one question is lost."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.verifiers import Question, Verdict, VerifierPool, pool_child, registry
from tulu_recipes.verifiers.pool import Waiting, _Batch
from tulu_recipes.verifiers.verdict import CORRECT, error
from tulu_recipes.verifiers.worker import Worker

integration = pytest.mark.integration  # a worker takes half a second to start
ROOT = Path(__file__).parents[2]
GOOD = Question("math", "\\boxed{10.0}", "10")
BAD = Question("math", "\\boxed{11}", "10")
TOWER = Question("math", "\\boxed{\\binom{99999999}{4999999}}", "10")  # given up after two seconds


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(2, seconds=1.0) as pool:
        yield pool


def pids(pool: VerifierPool) -> list[int]:
    return [worker.process.pid for worker in pool._running]


def outcomes(verdicts: list[Verdict]) -> list[str]:
    return [verdict.outcome for verdict in verdicts]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@integration
def test_verdicts_stand_in_the_order_of_the_questions(pool: VerifierPool) -> None:
    assert pool.verify_all([]) == []
    assert outcomes(pool.verify_all([GOOD, BAD, BAD] * 50)) == ["correct", "wrong", "wrong"] * 50
    assert len(pids(pool)) == 2


@integration
def test_a_question_that_no_verifier_can_grade_does_not_stop_the_others(pool: VerifierPool) -> None:
    odd: list[Any] = [
        Question("poetry", "1", "1"),
        Question("math", None, "1"),  # type: ignore[arg-type]
        Question("math", "1", ["1"]),  # type: ignore[arg-type]
        Question("gsm8k", "1", " \n"),
        Question(None, "1", "1"),  # type: ignore[arg-type]
    ]
    found = pool.verify_all([GOOD, *odd, Question("GSM8K", "so 3", "3"), Question("MATH", "$10$", "10")])
    assert [found[place] for place in (0, -2, -1)] == [CORRECT] * 3
    assert [verdict.reason for verdict in found[1:-2]] == [
        "no such verifier or semantics",
        "completion is no text",
        "label is no text",
        "label is empty",
        "verifier name is no text",
    ]
    assert set(outcomes(found[1:-2])) == {"error"}


@integration
def test_labels_are_checked_in_the_pool_too(pool: VerifierPool) -> None:
    labels = [("math", "\\frac12"), ("math", "\\frac{1}{"), ("math", ""), ("gsm8k", "many"), ("gsm8k", "3")]
    assert pool.label_faults(labels) == [None, "label is no formula", "label is empty", "label is no number", None]


@integration
def test_what_hangs_is_killed_and_nothing_else_is_lost(pool: VerifierPool) -> None:
    """The rule would give up by itself after 2 s, more than this pool grants."""
    found = pool.verify_all([GOOD] * 20 + [TOWER] + [GOOD] * 200)
    assert found[20] == error("timed out")
    assert found[:20] + found[21:] == [CORRECT] * 220
    assert pool.verify_all([GOOD]) == [CORRECT]


@integration
def test_a_worker_that_is_killed_costs_at_most_the_question_it_worked_on(pool: VerifierPool) -> None:
    pool.verify_all([GOOD] * 4)
    os.kill(pids(pool)[0], signal.SIGKILL)
    time.sleep(0.1)
    assert pool.verify_all([GOOD] * 50) == [CORRECT] * 50  # it was idle: nothing is lost

    victim = pids(pool)[0]
    threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
    found = pool.verify_all([TOWER, TOWER, *[GOOD] * 50])
    assert sorted(verdict.reason for verdict in found[:2]) == ["the checker stopped", "timed out"]
    assert found[2:] == [CORRECT] * 50
    assert victim not in pids(pool)


HOSTILE = """
import ctypes, os, subprocess, sys
from tulu_recipes.verifiers import registry
from tulu_recipes.verifiers.verdict import CORRECT

def grade(completion, label):
    if completion == "memory":
        return [bytearray(1 << 26) for _ in range(1000)]
    if completion == "crash":
        ctypes.string_at(0)
    if completion == "hang":
        with open(label, "w") as file:
            file.write(str(subprocess.Popen(["sleep", "60"]).pid))
        sum(iter(int, 1))
    print("to whoever reads this", sys.stdin.read())
    return CORRECT

hostile = registry.Verifier("hostile", 1, grade, None, lambda label: None, True)
registry.VERIFIERS = {**registry.VERIFIERS, "hostile": hostile}
"""


@integration
def test_verifiers_of_users_may_do_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the memory, crash, hang in C with a child process of their own, print, read."""
    (tmp_path / "sitecustomize.py").write_text(HOSTILE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    hostile = registry.Verifier("hostile", 1, lambda completion, label: CORRECT, None, lambda label: None, True)
    monkeypatch.setattr(registry, "VERIFIERS", {**registry.VERIFIERS, "hostile": hostile})
    note = tmp_path / "pid"
    with VerifierPool(1, memory=200 << 20, seconds=1.0) as pool:
        asked = [Question("hostile", what, str(note)) for what in ("fine", "memory", "fine", "crash", "hang", "fine")]
        found = pool.verify_all(asked)
    assert [verdict.reason for verdict in found] == ["", "out of memory", "", "the checker stopped", "timed out", ""]
    assert not alive(int(note.read_text(encoding="utf-8")))  # killed with the worker that started it


@integration
def test_a_worker_that_cannot_start_is_an_error_and_no_endless_loop() -> None:
    with VerifierPool(1, memory=10 << 20) as pool:
        assert pool.verify_all([GOOD, BAD]) == [error("the checker does not start")] * 2


@integration
def test_starts_that_fail_between_answers_do_not_end_the_batch() -> None:
    """Workers may be killed before they are ready, by whoever makes room; while others answer, the batch goes on."""
    batch = _Batch([Waiting("math", 1.0, b"")] * 9)
    for number in range(6):
        batch.retire(Worker(1.0, None))
        batch.take(number, CORRECT)
    assert len(batch.waiting) == 9
    for _ in range(3):
        batch.retire(Worker(1.0, None))
    assert not batch.waiting


@integration
def test_large_and_odd_text_passes(pool: VerifierPool) -> None:
    """More than a pipe holds, in several questions at once; NUL, lone surrogates, right to left."""
    for odd in ("{" * 100_000, "\x00\ud800\udfff", "النتيجة هي ", "\\boxed{" * 1000, "\r\n\u2028\x85"):
        assert pool.verify_all([Question("math", odd + " $10$", "10")] * 4) == [CORRECT] * 4


@integration
def test_several_threads_at_once(pool: VerifierPool) -> None:
    found: list[list[str]] = []
    ask = [GOOD, BAD] * 20
    threads = [threading.Thread(target=lambda: found.append(outcomes(pool.verify_all(ask)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [["correct", "wrong"] * 20] * 4


@integration
def test_an_interrupt_leaves_no_answers_for_the_next_batch(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.verify_all([GOOD] * 20)  # both run
    wait, rounds = pool._wait, iter(range(5))

    def interrupted(busy: list[Any]) -> None:
        if next(rounds, None) is None:
            raise KeyboardInterrupt
        wait(busy)

    monkeypatch.setattr(pool, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.verify_all([BAD] * 500)
    monkeypatch.undo()
    assert pool.verify_all([GOOD] * 20) == [CORRECT] * 20


ORPHANS = """
import os, signal, sys
from tulu_recipes.verifiers import Question, VerifierPool
pool = VerifierPool(2)
tower = Question("math", "\\\\boxed{\\\\binom{99999999}{4999999}}", "10")
pool.verify_all([Question("math", "1", "1")] * 2)
print(*[worker.process.pid for worker in pool._running], flush=True)
if sys.argv[1] == "busy":
    pool._wait = lambda busy: os.kill(os.getpid(), signal.SIGKILL)
    pool.verify_all([tower, tower])
"""


@integration
@pytest.mark.parametrize("how", ["idle", "busy"])
def test_workers_end_with_their_parent(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS, how], capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == (0 if how == "idle" else -signal.SIGKILL)
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


@integration
def test_a_worker_loads_no_torch() -> None:
    say = (
        "import sys, math_verify\n"
        "from tulu_recipes.verifiers import Question, judging, find_verifier\n"
        "print(judging.judged(find_verifier('math'), Question('math', '$4$', '4'), 'fixed').outcome)\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", say], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["correct", "[]"]


def test_whatever_a_verifier_does_is_its_questions_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's loop in this process, with verifiers that misbehave."""

    def grade(completion: str, _label: str) -> Any:
        if completion == "exit":
            sys.exit(0)
        if completion == "memory":
            raise MemoryError
        return {"long": error("x" * 10_000)}[completion]

    odd = registry.Verifier("odd", 1, grade, None, lambda label: 1 / 0, isolated=True)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(registry, "VERIFIERS", {"odd": odd})
    monkeypatch.setattr(pool_child, "allow_cpu", lambda seconds: None)
    asked = [["fixed", "odd", text, "1"] for text in ("exit", "raise", "long", "memory", "raise")]
    asked.insert(0, ["label", "odd", "", "1"])
    said: list[Any] = []
    pool_child.answer_all(io.BytesIO("\n".join(map(json.dumps, asked)).encode()), said.append, 1.0)
    assert said[:2] == ["ready", "loaded"]
    assert [answer[2] for answer in said[2:-1]] == [
        "verifier failed: ZeroDivisionError",
        "verifier failed: SystemExit",
        "verifier failed: KeyError",
        "x" * pool_child.REASON_LENGTH,
        "out of memory",
    ]
    assert said[-1] == "leaving"  # the question after it is for another worker
