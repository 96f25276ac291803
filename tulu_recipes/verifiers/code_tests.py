"""The side of the tests of a graded program: runs them, and has the program's side do what they ask of it.

A script of the sandbox: descriptor of the channel as its argument, the question as JSON on stdin, one JSON line a
result on stdout. Exceptions come over by the names of their classes. Of an object that is no plain data the tests
hold a handle: they can call it, read and set attributes and items, iterate, take its length, text and truth. They
cannot compare it or calculate with it, since the program's own class would then decide whether the test passes.
"""

import ast
import builtins
import importlib
import json
import os
import signal
import symtable
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from tulu_recipes.verifiers.code_wire import UNSENDABLE, Channel, Stopped, pack, silence, unpack

GRACE = 0.5  # seconds that the program's own alarm has before it is given up
# Methods with which tests ask plain data whether it is right. A handle would answer them as it likes.
QUESTIONS = {"__contains__"} | {
    name for kind in (str, bytes, set, float) for name in dir(kind) if name.startswith("is") or name.endswith("with")
}


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
        if not isinstance(value, Handle) or value._number != self._number:
            self._tests.refuse("a result that is no plain data")
        return True


class Tests:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.namespace: dict[str, Any] = {"__name__": "tests"}
        self.exceptions: dict[str, type] = {}
        self.callbacks: list[Callable[..., Any]] = []
        self.deadline = 0.0
        self.asked = 0
        self.gone = False
        self.fault = ""

    def refuse(self, fault: str) -> NoReturn:
        """A test that meets it has failed, even if it catches every exception."""
        self.fault = self.fault or fault
        raise Stopped(fault)

    def out_of_time(self, *_: object) -> NoReturn:
        """The alarm."""
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
        try:
            reply = self.exchange(request)
            raised, value = self.read(reply, args)
        except Stopped:
            self.gone = True  # its answer may still come, and would be taken for that to the next question
            raise
        except Exception:  # noqa: BLE001  nothing that it sends can do more than end it
            self.gone = True
            self.refuse("the program stopped")
        if "fault" in reply:
            self.refuse("timed out")
        if raised is not None:
            raise raised
        return value

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self.channel.send(request)
        reply = self.channel.receive()
        while "callback" in reply:
            self.channel.send(self.call_back(reply["callback"], reply["args"]))
            reply = self.channel.receive()
        return reply

    def read(self, reply: dict[str, Any], args: tuple[Any, ...]) -> tuple[BaseException | None, Any]:
        """What was raised, and what came back."""
        if "fault" in reply:
            return None, None
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
        if not callable(value):
            self.refuse(UNSENDABLE)
        self.callbacks.append(value)
        return {"callback": len(self.callbacks) - 1}

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
            with suppress(AttributeError):  # the test that uses it fails with a NameError
                self.namespace[name] = getattr(module, name)
            if isinstance(self.namespace.get(name, module), Handle):
                self.asked = asked  # nothing yet that could be right or wrong


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
    used: set[str] = set()
    defined: set[str] = set()
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


def main(fd: int) -> None:
    sys.set_int_max_str_digits(0)
    question = json.load(sys.stdin)
    result = os.fdopen(os.dup(1), "w")
    silence(0, 1, 2)

    def say(line: dict[str, Any]) -> None:
        result.write(json.dumps(line) + "\n")
        result.flush()

    grade(Channel(fd), question, say)


if __name__ == "__main__":
    main(int(sys.argv[1]))
