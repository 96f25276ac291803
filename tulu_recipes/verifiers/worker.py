"""One child process of the pool and its pipes: lines out, lines in, nothing that blocks.

The child is a session of its own, so that a Ctrl-C does not reach it and killing it kills what it started.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

CHILD = Path(__file__).with_name("pool_child.py")
START_SECONDS = 120.0  # to start, or to load a verifier's libraries: half a second, on a cold disk many more
AHEAD_SECONDS = 0.02  # of work lie ready in a child, so that it need not wait for the next question
AHEAD_MOST = 32


class Asked(NamedTuple):
    """number: place in the batch; name: verifier; seconds: wall clock."""

    number: int
    name: str
    seconds: float


class Worker:
    """asked: the questions in the child's hands; the first is the one being answered."""

    def __init__(self, seconds: float, memory: int | None) -> None:
        # -P: the folder of the script holds a math.py, which must not stand for the standard library's.
        # One thread and one hash seed: children share the cores, and a verdict may not depend on the order of a set.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.into, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.into, False)
        os.set_blocking(self.out, False)
        self.asked: deque[Asked] = deque()
        self.ready = self.leaving = self.gone = False
        self._loaded: set[str] = set()
        self._since = time.monotonic()
        self._typical = AHEAD_SECONDS  # seconds an answer takes, smoothed
        self._unread = bytearray()
        path = [str(Path(entry).absolute()) for entry in sys.path]
        setup = {"path": path, "memory": memory, "seconds": seconds, "parent": os.getpid()}
        self._unsent = bytearray(json.dumps(setup).encode() + b"\n")
        self.send()

    @property
    def wants(self) -> bool:
        """Another question would keep it busy: it has less work ahead than it does in AHEAD_SECONDS."""
        ahead = 1 + min(AHEAD_MOST, int(AHEAD_SECONDS / self._typical))
        return self.ready and not self.gone and len(self.asked) < ahead

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def deadline(self) -> float:
        """On the monotonic clock. Loading libraries is not the question's fault and has its own limit."""
        loading = not self.ready or (self.asked and self.asked[0].name not in self._loaded)
        return self._since + (START_SECONDS if loading or not self.asked else self.asked[0].seconds)

    def ask(self, asked: Asked, line: bytes) -> None:
        if not self.asked:
            self._since = time.monotonic()
        self.asked.append(asked)
        self._unsent += line
        self.send()

    def send(self) -> None:
        """As much as the pipe takes."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.into, self._unsent[:65536])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent.clear()  # its end shows when it is read

    def receive(self) -> list[tuple[int, list[Any]]]:
        """(number, answer) of the questions answered since; sets `gone` when the child has ended or is about to."""
        try:
            received = os.read(self.out, 65536)
        except BlockingIOError:
            return []
        self.gone = self.gone or not received
        *lines, rest = (self._unread + received).split(b"\n")
        self._unread = bytearray(rest)
        return [found for line in lines if (found := self._take(json.loads(line)))]

    def _take(self, line: Any) -> tuple[int, list[Any]] | None:
        now, since = time.monotonic(), self._since
        self._since = now
        if line == "ready":
            self.ready = True
        elif line == "loaded":
            self._loaded.add(self.asked[0].name)
        elif line == "leaving":
            self.leaving = self.gone = True
        else:
            self._typical += 0.2 * (max(now - since, 1e-5) - self._typical)
            return self.asked.popleft().number, line
        return None

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """The child and what it started; its group exists until it has been waited for."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS refuses to signal a group of zombies
            self.process.kill()
        self.process.wait()
        self._close()

    def forget(self) -> None:
        """In a forked process: the child belongs to the parent, which would never see it end through our copies."""
        self.process.returncode = 0  # what a Popen of somebody else's child must not look up
        self._close()

    def _close(self) -> None:
        self.gone = True
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
