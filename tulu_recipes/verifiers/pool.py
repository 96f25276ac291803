"""Killable processes that grade completions: no completion can hang, crash or fill the memory of the run.

    with VerifierPool(workers=4) as pool:
        verdicts = pool.verify_all([Question("math", "\\boxed{4}", "4"), …])

Each question has `seconds` by the clock and each process `memory` bytes. A question that takes more, or whose process
ends, is an error verdict; its process is replaced and the questions that waited behind it go to the next one.
Rules that cannot hang (verifiers that are not `isolated`) are graded by the caller.
"""

import atexit
import json
import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from tulu_recipes.errors import DataError
from tulu_recipes.verifiers.judging import LABEL, Question, input_fault, judged
from tulu_recipes.verifiers.registry import Verifier, find_verifier
from tulu_recipes.verifiers.verdict import Verdict, error
from tulu_recipes.verifiers.worker import Asked, Worker

SECONDS = 20.0  # a question; the released math rule may spend 5 s of CPU time on each of two candidates
MEMORY = 4 << 30
MOST_WORKERS = 16
STARTS = 3  # of processes may fail with no answer in between; then the other questions are errors too


class VerifierPool:
    """Any thread may use it, one batch at a time; a forked process gets children of its own.

    workers: processes; None: one a core of this rank, at least two, so that one question that hangs stops nobody.
    seconds: wall clock of a question. memory: bytes of address space of a process; None: no limit.
    """

    def __init__(self, workers: int | None = None, *, seconds: float = SECONDS, memory: int | None = MEMORY) -> None:
        self.workers = workers or _workers_of_this_rank()
        self.seconds = seconds
        self.memory = memory
        self._running: list[Worker] = []
        self._lock = threading.Lock()
        _pools.add(self)

    def verify_all(self, questions: Sequence[Question], semantics: str = "fixed") -> list[Verdict]:
        """Verdicts in the order of the questions; an unknown verifier or a value that is no text is an error verdict.

        Raises:
            DataError: the library of a verifier is not installed.
        """
        verdicts: dict[int, Verdict] = {}
        isolated: list[tuple[int, Question]] = []
        needed: dict[str, Verifier] = {}
        for number, question in enumerate(questions):
            verifier = _verifier_or_error(question, semantics)
            if isinstance(verifier, Verdict):
                verdicts[number] = verifier
                continue
            if verifier.name not in needed:
                verifier.check_installed()
                needed[verifier.name] = verifier
            if verifier.isolated:
                isolated.append((number, question._replace(name=verifier.name)))
            else:
                verdicts[number] = judged(verifier, question, semantics)
        found = self._ask([self._waiting(needed[question.name], question, semantics) for _, question in isolated])
        verdicts.update((number, verdict) for (number, _), verdict in zip(isolated, found, strict=True))
        return [verdicts[number] for number in range(len(questions))]

    def _waiting(self, verifier: Verifier, question: Question, semantics: str) -> "Waiting":
        line = json.dumps([semantics, *question]).encode() + b"\n"
        return Waiting(verifier.name, max(self.seconds, verifier.seconds), line)

    def label_faults(self, labels: Sequence[tuple[str, str]]) -> list[str | None]:
        """For each (name, ground truth): why its verifier cannot use it, in a few words."""
        found = self.verify_all([Question(name, "", truth) for name, truth in labels], LABEL)
        return [verdict.reason or None for verdict in found]

    def close(self) -> None:
        """Stop the processes; a later question starts new ones."""
        with self._lock:
            while self._running:
                self._running.pop().kill()

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def forget(self) -> None:
        """After a fork, in the child: the lock stands as it was copied, and the processes are the parent's."""
        self._lock = threading.Lock()
        while self._running:
            self._running.pop().forget()

    def _ask(self, lines: list["Waiting"]) -> list[Verdict]:
        if not lines:
            return []
        with self._lock:
            batch = _Batch(lines)
            for worker in [worker for worker in self._running if worker.has_ended()]:  # killed while it was idle
                self._running.remove(worker)
                worker.kill()
            try:
                while len(batch.verdicts) < len(lines):
                    self._round(batch)
            except BaseException:  # an interrupt, say: the answers under way belong to nobody
                while self._running:
                    self._running.pop().kill()
                raise
        return [batch.verdicts[number] for number in range(len(lines))]

    def _round(self, batch: "_Batch") -> None:
        """Hand out questions, wait for whatever comes first, take answers, replace what is stuck."""
        while batch.waiting and len(self._running) < min(self.workers, batch.unanswered):
            self._running.append(Worker(self.seconds, self.memory))
        while batch.waiting and (eager := [worker for worker in self._running if worker.wants]):
            for worker in eager[: len(batch.waiting)]:  # in turn, so that a small batch is spread
                number = batch.waiting.popleft()
                name, seconds, line = batch.lines[number]
                worker.ask(Asked(number, name, seconds), line)
        busy = [worker for worker in self._running if worker.asked or not worker.ready]
        self._wait(busy)
        for worker in busy:
            for number, answer in worker.receive():
                batch.take(number, Verdict(*answer))
            if worker.gone or time.monotonic() > worker.deadline:
                self._running.remove(worker)
                batch.retire(worker)

    @staticmethod
    def _wait(busy: list[Worker]) -> None:
        with selectors.PollSelector() as selector:
            for worker in busy:
                selector.register(worker.out, selectors.EVENT_READ)
                if worker.has_unsent:
                    selector.register(worker.into, selectors.EVENT_WRITE, worker)
            first = min(worker.deadline for worker in busy)
            for key, _ in selector.select(max(first - time.monotonic(), 0)):
                if key.data is not None:
                    key.data.send()


class Waiting(NamedTuple):
    """A question on its way to a process. seconds: wall clock it may take."""

    name: str
    seconds: float
    line: bytes


class _Batch:
    def __init__(self, lines: list[Waiting]) -> None:
        self.lines = lines
        self.waiting = deque(range(len(lines)))
        self.verdicts: dict[int, Verdict] = {}
        self._failed_starts = 0

    @property
    def unanswered(self) -> int:
        return len(self.lines) - len(self.verdicts)

    def take(self, number: int, verdict: Verdict) -> None:
        self.verdicts[number] = verdict
        self._failed_starts = 0

    def retire(self, worker: Worker) -> None:
        """Its first question is to blame, unless it never came to it; the others wait again, before the rest."""
        reason = "the checker stopped" if worker.gone else "timed out"
        worker.kill()
        if not worker.ready:
            self._failed_starts += 1
        elif worker.asked and not worker.leaving:
            self.verdicts[worker.asked.popleft().number] = error(reason)
        self.waiting.extendleft(asked.number for asked in reversed(worker.asked))
        if self._failed_starts >= STARTS:
            for number in self.waiting:
                self.verdicts[number] = error("the checker does not start")
            self.waiting.clear()


def _verifier_or_error(question: Question, semantics: str) -> Verifier | Verdict:
    fault = input_fault(question)
    if fault:
        return error(fault)
    try:
        return find_verifier(question.name, "fixed" if semantics == LABEL else semantics)
    except DataError:
        return error("no such verifier or semantics")


def _workers_of_this_rank() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(2, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


_pools: "weakref.WeakSet[VerifierPool]" = weakref.WeakSet()
_default: VerifierPool | None = None
_default_lock = threading.Lock()


def default_pool() -> VerifierPool:
    """The one of this process, of two children, started when they are needed."""
    global _default
    with _default_lock:
        if _default is None:
            _default = VerifierPool(2)
        return _default


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for pool in list(_pools):
        pool.forget()


@atexit.register
def _stop_all() -> None:
    for pool in list(_pools):
        pool.close()


os.register_at_fork(after_in_child=_after_fork)
