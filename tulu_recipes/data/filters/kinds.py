"""What a filter is: a name, documented parameters, and a function that builds it for one target."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tulu_recipes.config.values import nearest
from tulu_recipes.data.layouts import TARGETS

SIDES = ("all", "user", "assistant", "system", "chosen", "rejected")
EXPECTED = {
    "count": "a whole number of at least 0",
    "fraction": "a number from 0 to 1",
    "text": "text",
    "texts": "a list of texts",
    "switch": "true or false",
    "pattern": "a regular expression",
}


class RowFilter(Protocol):
    def __call__(self, row: dict[str, Any]) -> str | None:
        """None keeps the canonical row; else a short reason, the same for all rows that go for that reason."""


class Tokenizer(Protocol):
    """What filters need of a tokenizer: `tokenizers.Tokenizer` fits, as do the backends of transformers' fast ones."""

    def encode_batch_fast(self, texts: list[str], /, *, add_special_tokens: bool) -> list[Any]: ...


@dataclass(frozen=True)
class Parameter:
    """One parameter: `kind` is a key of EXPECTED or "choice"; a default of None with needed=False means no limit."""

    kind: str
    meaning: str
    default: Any = None
    needed: bool = False
    choices: tuple[str, ...] = ()

    def fault(self, value: Any) -> str:
        """What is expected instead of the value; empty when it fits."""
        if value is None and not self.needed and self.default is None:
            return ""
        if self.kind == "choice":
            near = nearest(value, self.choices) if isinstance(value, str) else ""
            return "" if value in self.choices else f"{near or ' | '.join(self.choices)}"
        if self.kind == "pattern" and isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                return f"a regular expression ({error})"
        return "" if _FITS[self.kind](value) else EXPECTED[self.kind]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FITS: dict[str, Callable[[Any], bool]] = {
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "fraction": lambda value: _is_number(value) and 0 <= value <= 1,
    "text": lambda value: isinstance(value, str) and bool(value),
    "texts": lambda value: isinstance(value, list) and all(isinstance(item, str) and item for item in value),
    "switch": lambda value: isinstance(value, bool),
    "pattern": lambda value: isinstance(value, str) and bool(value),
}


@dataclass(frozen=True)
class FilterKind:
    """A filter of the house. build: (parameters with defaults filled in, target, tokenizer) → RowFilter."""

    name: str
    meaning: str
    parameters: Mapping[str, Parameter]
    build: Callable[[dict[str, Any], str, Tokenizer | None], RowFilter] | None  # None: works on keys, in the mixer
    targets: tuple[str, ...] = TARGETS
    check: Callable[[dict[str, Any], str], list[str]] | None = None  # what no single parameter shows

    def filled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: parameter.default for name, parameter in self.parameters.items()} | dict(params)


def side(default: str) -> Parameter:
    """The parameter `of`: which turns a filter looks at."""
    return Parameter("choice", "which turns are looked at", default, choices=SIDES)


def range_problems(params: dict[str, Any], _target: str) -> list[str]:
    """For filters with `min` and `max`."""
    low, high = params["min"], params["max"]
    if low is None and high is None:
        return ["neither min nor max is given. Write at least one, as in {max: 2048}."]
    if low is not None and high is not None and low > high:
        return [f"min {low} is above max {high}, so no row would stay. Swap them."]
    return []


def picked(row: Mapping[str, Any], target: str, of: str) -> list[list[str]]:
    """The texts that `of` names, one list a conversation: a preference row has two, the chosen and the rejected.

    Shared turns stand in both lists.
    """
    sides = (of,) if of in ("chosen", "rejected") else ("chosen", "rejected")
    conversations = [row[name] for name in sides] if target == "preference" else [row["messages"]]
    role = "assistant" if of in ("chosen", "rejected") else of
    if role == "all":
        return [[message["content"] for message in messages] for messages in conversations]
    return [[message["content"] for message in messages if message["role"] == role] for messages in conversations]
