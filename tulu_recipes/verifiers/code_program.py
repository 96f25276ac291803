"""The side of a graded program: loads it, and does with its functions and objects what the tests' side asks.

A script of the sandbox, with the channel as stdin. Whatever the program does to this process, replaces in it or
writes into the channel, it can only send other plain data than its functions would have returned.
"""

import builtins
import json
import os
import signal
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from tulu_recipes.verifiers.code_wire import Channel, Stopped, names_of, pack, silence, unpack

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


def main() -> None:
    sys.set_int_max_str_digits(0)
    program = Program(Channel(os.dup(0)))
    silence(0, 1, 2)
    signal.signal(signal.SIGALRM, program.out_of_time)
    program.serve()


if __name__ == "__main__":
    main()
