"""A limit on the CPU time of a comparison: another job on the machine cannot turn a verdict into an error."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class OutOfTime(BaseException):
    """The block took too long. No Exception: sympy catches those at many places and goes on."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block after `seconds` of this process's CPU time; in a main thread alone.

    Code that never returns to the interpreter is deaf to it: the pool's clock is for that.
    """
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
