"""The two processes that grade a program, each in a sandbox of its own: one holds the tests, one the program.

Run as a script (code.py says why there are two): `code_sides.py program` with the channel as stdin, or `code_sides.py tests FD`
with the channel as descriptor FD and the question as JSON on stdin; one JSON line a result goes to stdout. Both ends speak
lines of JSON. No imports of the package: nothing but the interpreter is in the sandbox.

Only plain data crosses, as copies: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, deque, range,
Decimal, Fraction, dates and times, subclasses of them as their base. What a call changes in lists, dicts and sets
that it was given is copied back. Exceptions cross by the names of their classes. Any other object stays in the program, and the
tests hold a handle: they can call it, read and set attributes and items, iterate, take its length, text and truth. They cannot
compare it or calculate with it, since its own class would then decide whether the test passes.
"""

import ast
import builtins
import collections
import importlib
import json
import os
import signal
import socket
import symtable
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

LONGEST_LINE = 4 << 20  # bytes
GRACE = 0.5  # seconds that the program's own alarm has before it is given up
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
UNSENDABLE = "a test passes an object of its own"
STANDARD = (
    *("decimal.Decimal", "fractions.Fraction", "builtins.range"),
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta"),
)
# Methods with which tests ask plain data whether it is right. A handle would answer them as it likes.
QUESTIONS = {
    name for kind in (str, bytes, set, float) for name in dir(kind) if name.startswith("is") or name.endswith("with")
}


class Stopped(BaseException):
    """Not an Exception, so that no `except Exception` of a test or program goes on: time is up, or the other side is gone."""


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


# The program's side. Whatever the program does to it, it can only send other plain data than its functions returned.

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *args, **kwargs: function(*args, **kwargs),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": lambda holder, key: holder[key],
    "setitem": lambda holder, key, value: holder.__setitem__(key, value),
    "delitem": lambda holder, key: holder.__delitem__(key),
    "isinstance": lambda kind, value: isinstance(value, kind),
    "len": len,
    "iter": iter,
    "next": next,
    "bool": bool,
    "str": str,
    "repr": repr,
}


class Program:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.module = types.ModuleType("solution")  # not __main__: examples below a main guard are not run
        sys.modules["solution"] = self.module
        self.objects: list[Any] = [self.module]
        self.numbers: dict[int, int] = {}

    def serve(self) -> dict[str, Any]:
        """Answer the tests until they answer a question of ours."""
        while True:
            message = self.channel.receive()
            if "op" not in message:
                return message
            self.channel.send(self.answer(message))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, message["seconds"])
                return self.operate(message["op"], message["target"], message["args"], message["kwargs"])
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Stopped:
            return {"fault": "timed out"}
        except BaseException as raised:  # noqa: BLE001  what programs raise, sys.exit included, is for the test to judge
            return self.exception(raised)

    def operate(self, op: str, target: int, packed: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
        args = [unpack(item, self.named) for item in packed]
        if op == "load":
            exec(compile(args[0], "solution.py", "exec"), self.module.__dict__)  # noqa: S102
            return {"value": None}
        kwargs = {name: unpack(item, self.named) for name, item in keywords.items()}
        value = OPERATIONS[op](self.objects[target], *args, **kwargs)
        now = {str(i): pack(arg, self.handle) for i, arg in enumerate(args) if isinstance(arg, list | dict | set)}
        changed = {place: item for place, item in now.items() if item != packed[int(place)]}
        return {"value": pack(value, self.handle), "changed": changed}

    def out_of_time(self, *_: object) -> NoReturn:
        raise Stopped("timed out")

    def handle(self, value: Any) -> dict[str, Any]:
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        is_exception = isinstance(value, type) and issubclass(value, BaseException)
        return {"handle": [number, names_of(value) if is_exception else []]}

    def named(self, kind: str, packed: Any) -> Any:
        if kind == "handle":
            return self.objects[packed]
        return lambda *args: self.call_test(packed, args)

    def call_test(self, number: int, args: tuple[Any, ...]) -> Any:
        """A function that a test passed is run by the test's side."""
        self.channel.send({"callback": number, "args": [pack(arg, self.handle) for arg in args]})
        reply = self.serve()
        if "raise" in reply:
            raise getattr(builtins, reply["raise"], Exception)(*reply["args"])
        return unpack(reply["value"], self.named)

    def exception(self, raised: BaseException) -> dict[str, Any]:
        try:
            args = json.loads(json.dumps([pack(arg, self.handle) for arg in raised.args]))
        except (RecursionError, TypeError, ValueError, MemoryError):
            args = []
        return {"raise": names_of(type(raised)), "args": args}


def names_of(kind: type) -> list[str]:
    return [parent.__name__ for parent in kind.__mro__]


# The tests' side.


class Handle:
    """An object that stays with the program."""

    __slots__ = ("_number", "_tests")

    def __init__(self, tests: "Tests", number: int) -> None:
        object.__setattr__(self, "_tests", tests)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tests.ask("call", self._number, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in QUESTIONS:
            self._tests.refuse("a result that is no plain data")
        return self._tests.ask("getattr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._tests.ask("setattr", self._number, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._tests.ask("getitem", self._number, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._tests.ask("setitem", self._number, key, value)

    def __delitem__(self, key: Any) -> None:
        self._tests.ask("delitem", self._number, key)

    def __instancecheck__(self, value: Any) -> Any:
        return self._tests.ask("isinstance", self._number, value)

    def __len__(self) -> Any:
        return self._tests.ask("len", self._number)

    def __iter__(self) -> Iterator[Any]:
        return self._tests.ask("iter", self._number)  # type: ignore[no-any-return]

    def __next__(self) -> Any:
        return self._tests.ask("next", self._number)

    def __bool__(self) -> Any:
        return self._tests.ask("bool", self._number)

    def __str__(self) -> Any:
        return self._tests.ask("str", self._number)

    def __repr__(self) -> Any:
        return self._tests.ask("repr", self._number)

    def __hash__(self) -> int:
        return hash(self._number)

    def __eq__(self, value: object) -> bool:
        """The same object is equal to itself, as members of an enumeration are. Nothing else can be said here."""
        if isinstance(value, Handle) and value._number == self._number:
            return True
        self._tests.refuse("a result that is no plain data")


class Tests:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.namespace: dict[str, Any] = {"__name__": "tests"}
        self.exceptions: dict[str, type] = {}
        self.callbacks: list[Callable[..., Any]] = []
        self.deadline = 0.0
        self.asked = 0
        self.waiting = self.gone = False
        self.fault = ""

    def refuse(self, fault: str) -> NoReturn:
        """A test that meets it has failed, even if it catches every exception."""
        self.fault = self.fault or fault
        raise Stopped(fault)

    def out_of_time(self, *_: object) -> NoReturn:
        """The alarm. An answer that is waited for may still come, and would be taken for that to the next question."""
        self.gone = self.gone or self.waiting
        self.refuse("timed out")

    def ask(self, op: str, target: int, *args: Any, **kwargs: Any) -> Any:
        """Have the program's side do something. Raises what the program raised, or Stopped."""
        if self.gone:
            self.refuse("the program stopped")
        request = {
            "op": op,
            "target": target,
            "args": [pack(arg, self.reference) for arg in args],
            "kwargs": {name: pack(arg, self.reference) for name, arg in kwargs.items()},
            "seconds": max(self.deadline - time.monotonic(), 0.001),
        }
        self.asked += 1
        self.waiting = True
        try:
            raised, value = self.exchange(request, args)
        except Exception:  # noqa: BLE001  nothing that it sends can do more than end it
            self.gone = True
            self.refuse("the program stopped")
        self.waiting = False
        if raised is not None:
            raise raised
        return value

    def exchange(self, request: dict[str, Any], args: tuple[Any, ...]) -> tuple[BaseException | None, Any]:
        self.channel.send(request)
        reply = self.channel.receive()
        while "callback" in reply:
            self.channel.send(self.call_back(reply["callback"], reply["args"]))
            reply = self.channel.receive()
        if "fault" in reply:
            self.waiting = False
            self.refuse("timed out")
        if "raise" in reply:
            return self.exception(reply["raise"])(*unpack(reply["args"], self.object_of)), None
        for place, packed in reply.get("changed", {}).items():
            replace_contents(args[int(place)], unpack(packed, self.object_of))
        return None, unpack(reply["value"], self.object_of)

    def call_back(self, number: int, packed: list[Any]) -> dict[str, Any]:
        try:
            value = self.callbacks[number](*(unpack(item, self.object_of) for item in packed))
            return {"value": pack(value, self.reference)}
        except Exception as raised:  # noqa: BLE001  it is raised again where the program called
            return {"raise": type(raised).__name__, "args": [str(raised)]}

    def reference(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Handle):
            return {"handle": value._number}
        if callable(value):
            self.callbacks.append(value)
            return {"callback": len(self.callbacks) - 1}
        self.refuse(UNSENDABLE)

    def object_of(self, kind: str, packed: Any) -> Any:
        if kind != "handle":
            raise ValueError(kind)
        number, names = packed
        return self.exception(names) if names else Handle(self, int(number))

    def exception(self, names: list[str]) -> Any:
        """The class of these names, its own and its parents': a builtin one, or one made for the program's."""
        builtin: Any = next(
            kind
            for kind in (getattr(builtins, name, None) for name in names)
            if isinstance(kind, type) and issubclass(kind, BaseException)
        )
        if builtin.__name__ == names[0]:
            return builtin
        return self.exceptions.setdefault(names[0], type(names[0], (builtin,), {}))

    def run(self, source: str, seconds: float) -> dict[str, Any]:
        """One test, as a line of the result. Tests share their names, as the lines of one program do."""
        return self.timed(lambda: exec(compile(source, "test", "exec"), self.namespace), seconds)  # noqa: S102

    def timed(self, work: Callable[[], Any], seconds: float) -> dict[str, Any]:
        self.fault, failed = "", ""
        self.deadline = time.monotonic() + seconds
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
                work()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Stopped as stopped:
            failed = str(stopped)
        except MemoryError:
            failed = "out of memory"
        except BaseException:  # noqa: BLE001  whatever a test raises, it has failed
            failed = "a test failed"
        return {"passed": not (failed or self.fault), "reason": self.fault or failed}

    def take_names(self, sources: list[str]) -> None:
        """Bind the names that the tests use and do not define to what the program has under them."""
        module = Handle(self, 0)
        for name in wanted_names(sources):
            if name in sys.stdlib_module_names and is_only_a_module(name, sources):
                self.namespace[name] = importlib.import_module(name)  # the program's would be the program's word
                continue
            asked = self.asked
            try:
                self.namespace[name] = getattr(module, name)
            except AttributeError:
                pass  # the test that uses it fails with a NameError
            if isinstance(self.namespace.get(name), Handle):
                self.asked = asked  # only a handle so far: nothing that could be right or wrong


def replace_contents(old: Any, new: Any) -> None:
    if type(old) is not type(new):
        raise ValueError("arguments do not change their type")
    if isinstance(old, list):
        old[:] = new
    else:
        old.clear()
        old.update(new)


def wanted_names(sources: list[str]) -> list[str]:
    """Global names that are used and not defined.

    One of a builtin counts only when there is no other: in `assert sum(10, 15) == 6` the program's `sum` is tested, in
    `assert set(f(3)) == set([1])` its `set` would forge the result.
    """
    used, defined = set(), set()
    for source in sources:
        tables = [symtable.symtable(source, "test", "exec")]
        for table in tables:  # grows
            tables += table.get_children()
            for symbol in table.get_symbols():
                if table.get_type() == "module" or symbol.is_declared_global():
                    (defined if symbol.is_assigned() or symbol.is_imported() else used).add(symbol.get_name())
                elif symbol.is_global():
                    used.add(symbol.get_name())
    free = used - defined - {"__name__"}
    return sorted(free - set(dir(builtins)) or free)


def is_only_a_module(name: str, sources: list[str]) -> bool:
    """Whether every use is `name.something`."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    holders = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    return all(id(node) in holders for node in nodes if isinstance(node, ast.Name) and node.id == name)


def grade(channel: Channel, question: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """question: program, tests, seconds (of all), seconds_per_test."""
    tests, end = Tests(channel), time.monotonic() + question["seconds"]
    signal.signal(signal.SIGALRM, tests.out_of_time)

    def seconds() -> float:
        return float(min(question["seconds_per_test"], end - time.monotonic()))

    loaded = tests.timed(lambda: tests.ask("load", 0, question["program"]), seconds())
    tests.asked = 0
    say(loaded)
    if not loaded["passed"]:
        return
    tests.timed(lambda: tests.take_names(question["tests"]), seconds())
    for source in question["tests"]:
        left = seconds()
        say(tests.run(source, left) if left > 0 else {"passed": False, "reason": "timed out"})
    say({"ended": "", "asked": tests.asked})


def main(side: str, *fds: str) -> None:
    sys.set_int_max_str_digits(0)
    if side == "program":
        program = Program(Channel(os.dup(0)))
        silence(0, 1, 2)
        signal.signal(signal.SIGALRM, program.out_of_time)
        program.serve()
        return
    question = json.load(sys.stdin)
    result = os.fdopen(os.dup(1), "w")
    silence(0, 1, 2)

    def say(line: dict[str, Any]) -> None:
        result.write(json.dumps(line) + "\n")
        result.flush()

    grade(Channel(int(fds[0])), question, say)


def silence(*fds: int) -> None:
    """What programs and tests print is nobody's, and nothing is there to be read."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
