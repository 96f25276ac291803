"""What the two sides of a graded program say: lines of JSON (code_tests.py asks, code_program.py answers).

Only plain data crosses, as copies: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict,
deque, Decimal, Fraction, dates and times, numpy's scalars as Python's, subclasses as their base. Anything else
stays where it is and crosses as a number.
"""

import builtins
import collections
import importlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

LONGEST_LINE = 4 << 20  # bytes
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
UNSENDABLE = "a test passes an object of its own"
STANDARD = (
    *("decimal.Decimal", "fractions.Fraction"),
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta"),
)


class Stopped(BaseException):
    """Time is up, or the other side is gone. Not an Exception, so that `except Exception` does not go on."""


def pack(value: Any, other: Callable[[Any], Any]) -> Any:
    """Plain data as JSON; `other` packs what is none."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else {"int": hex(value)}  # decimal digits take quadratic time
    if isinstance(value, list):
        return [pack(item, other) for item in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key, other), pack(item, other)] for key, item in value.items()]}
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return {name: [pack(item, other) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return pack(value.item(), other)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in STANDARD:
        return {"standard": [name, *(pack(item, other) for item in value.__reduce__()[1])]}
    return other(value)


def unpack(data: Any, other: Callable[[str, Any], Any]) -> Any:
    """What `pack` made; `other` gets what is not plain, as (kind, packed). Raises ValueError, TypeError, KeyError."""
    if isinstance(data, list):
        return [unpack(item, other) for item in data]
    if not isinstance(data, dict):
        return data
    (kind, packed), *_ = data.items()
    if kind == "dict":
        return {unpack(key, other): unpack(item, other) for key, item in packed}
    if kind in SEQUENCES:
        return SEQUENCES[kind](unpack(item, other) for item in packed)
    if kind == "int":
        return int(packed, 16)
    if kind in ("bytes", "bytearray"):
        return getattr(builtins, kind).fromhex(packed)
    if kind == "complex":
        return complex(*packed)
    if kind == "standard" and packed[0] in STANDARD:
        module, name = packed[0].split(".")
        return getattr(importlib.import_module(module), name)(*(unpack(item, other) for item in packed[1:]))
    return other(kind, packed)


class Channel:
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._lines = self._socket.makefile("rb")

    def send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        line = self._lines.readline(LONGEST_LINE)
        message = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(message, dict):
            raise ValueError("the other side is gone, or says what is no message")
        return message


def names_of(kind: type) -> list[str]:
    return [parent.__name__ for parent in kind.__mro__]


def silence(*fds: int) -> None:
    """What programs and tests print is nobody's, and nothing is there to be read."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
