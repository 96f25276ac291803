"""The child process that runs math-verify, one for each process that asks; a line of JSON each way.

The child ends with its parent: its input closes. It is started again after it was killed.
"""

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path

CHILD = Path(__file__).with_name("math_child.py")
START_SECONDS = 120.0  # sympy takes 2 s to import, on a cold disk many more
ANSWER_SECONDS = (
    20.0  # the child gives up by itself after steps of 3 s, five at the most, unless it is inside one huge power
)
_children: dict[int, "_Child"] = {}  # by process id: a forked process must not talk into its parent's pipe
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: _renew_lock())


def _renew_lock() -> None:
    """A fork copies the lock as it stands; nobody would ever release a held one."""
    global _lock
    _lock = threading.Lock()


class _NoAnswerError(Exception):
    """The child is gone, or was too slow."""


class _Child:
    def __init__(self) -> None:
        # -P: the folder of the script holds a math.py, which must not stand for the standard library's.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.unread = b""
        try:
            self.read_line(START_SECONDS)
        except _NoAnswerError:
            self.stop()
            raise

    def ask(self, question: dict[str, str | None], seconds: float) -> list[str]:
        assert self.process.stdin is not None
        line = json.dumps(question).encode() + b"\n"
        try:
            while line:
                line = line[self.process.stdin.write(line) :]
        except BrokenPipeError as error:
            raise _NoAnswerError("the checker stopped") from error
        answer: list[str] = json.loads(self.read_line(seconds))
        return answer

    def read_line(self, seconds: float) -> bytes:
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.unread:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise _NoAnswerError("timed out")
                received = os.read(self.process.stdout.fileno(), 65536)
                if not received:
                    raise _NoAnswerError("the checker stopped")
                self.unread += received
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def ask(question: dict[str, str | None], seconds: float = ANSWER_SECONDS) -> tuple[str, str]:
    """(outcome, reason) from the child; ("error", "timed out") after `seconds`. One question at a time."""
    with _lock:
        own = os.getpid()
        try:
            if own not in _children:
                _children[own] = _Child()
            outcome, reason = _children[own].ask(question, seconds)
        except _NoAnswerError as error:
            if own in _children:
                _children.pop(own).stop()
            return "error", str(error)
    return outcome, reason


@atexit.register
def _stop_own() -> None:
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.stop()
