"""A YAML node read as the key expects it: `no` is a word for eval_strategy and false for a switch.

YAML 1.1 guesses types from the text alone and so reads 5e-6 as text, no as false and 1:30 as ninety.
Here the key's declared kinds decide, and what does not fit is refused with the line that would.
"""

import difflib
import json
import math
import re
from typing import Any

import yaml

from tulu_recipes.config.keys import Key
from tulu_recipes.errors import Problem

_NULL = {"", "~", "null", "Null", "NULL", "None"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_YES = {"yes", "Yes", "YES", "on", "On", "ON"}
_NO = {"no", "No", "NO", "off", "Off", "OFF"}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")

_ARTICLE = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
}


class _Misfit(Exception):
    """The value does not fit; `instead` is a value that would, or empty. Never leaves this module."""

    def __init__(self, instead: str = "") -> None:
        self.instead = instead


def read_value(key: Key, node: yaml.Node, where: str) -> Any:
    """The value of `key` that `node` stands for, or the Problem that it is.

    ints are taken for floats; yes/no/on/off only where a switch is expected; text is kept letter by letter
    (a commit like 1e10 stays text); one word where a list is expected is a list of one.
    """
    try:
        value = _read(key, node)
    except _Misfit as misfit:
        return _wrong_type(key, node, where, misfit.instead)
    return _check_range(key, value, where) or _check_choice(key, value, where) or value


def show(value: Any) -> str:
    """A value as it would be written in YAML, on one line."""
    if isinstance(value, float) and math.isfinite(value):
        return _float_text(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, str):
        return _quote_if_needed(value)
    return json.dumps(value, ensure_ascii=False)


def show_node(node: yaml.Node) -> str:
    """A node's text for a message: shortened, and without a Hub token that somebody put into a recipe."""
    if isinstance(node, yaml.ScalarNode):
        text = re.sub(r"hf_\w{8,}", "hf_...", str(node.value))
        return text if len(text) <= 60 else text[:57] + "..."
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def is_quoted(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and bool(node.style)


def _read(key: Key, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        if "list" not in key.kinds:
            raise _Misfit(show_node(node.value[0]) if len(node.value) == 1 else "")
        return [_list_item(key, item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        if "dict" not in key.kinds:
            raise _Misfit
        return plain_value(node)
    text = str(node.value)
    return _quoted(key, text) if is_quoted(node) else _unquoted(key, text.strip())


def _quoted(key: Key, text: str) -> Any:
    if "str" in key.kinds:
        return text
    if "list" in key.kinds and key.item == "str":
        return [text]
    raise _Misfit(_meant_unquoted(key, text))


def _meant_unquoted(key: Key, text: str) -> str:
    """The number or switch inside quotes, as the mend shows it; empty when there is none."""
    try:
        return show(_unquoted(key, text.strip()))
    except _Misfit as misfit:
        return misfit.instead


def _unquoted(key: Key, text: str) -> Any:
    kinds = key.kinds
    # a word like any other where null is none of the values: scale_rewards, whiten_advantages
    word = key.default == "none" or ("null" not in kinds and "str" in kinds)
    if text in _NULL or (text == "none" and not word):
        if "null" in kinds:
            return None
        raise _Misfit("" if key.default is None else show(key.default))
    if "bool" in kinds and (switch := _switch(text, words="str" not in kinds)) is not None:
        return switch
    if "int" in kinds and _INT.fullmatch(text):
        return int(text)
    if "float" in kinds and _FLOAT.fullmatch(text):
        return float(text)
    if "str" in kinds:
        return text
    if "list" in kinds:
        return [_list_item(key, yaml.ScalarNode("tag:yaml.org,2002:str", text))]
    raise _Misfit(_nearest_number(kinds, text))


def _switch(text: str, *, words: bool) -> bool | None:
    if text in _TRUE or (words and text in _YES):
        return True
    if text in _FALSE or (words and text in _NO):
        return False
    return None


def _nearest_number(kinds: tuple[str, ...], text: str) -> str:
    """What was probably meant, e.g. 1000 for 1e3 where a whole number is expected; empty when unclear."""
    if "int" in kinds or "float" in kinds:
        bare = text.replace(",", "").replace(" ", "")
        if _FLOAT.fullmatch(bare):
            number = float(bare)
            if "float" in kinds:
                return _float_text(number)
            return str(int(number)) if number.is_integer() else ""
        if bare.endswith("%") and _FLOAT.fullmatch(bare[:-1]) and "float" in kinds:
            return _float_text(float(bare[:-1]) / 100)
    if "bool" in kinds:
        return {"1": "true", "0": "false"}.get(text, "")
    return ""


def _list_item(key: Key, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise _Misfit
    text = str(node.value).strip()
    if key.item == "str":
        return str(node.value)
    if not _FLOAT.fullmatch(text):
        raise _Misfit
    return float(text)


def plain_value(node: yaml.Node) -> Any:
    """A nested value, with numbers like 5e-7 read as numbers and doubled keys refused as a misfit."""
    if isinstance(node, yaml.SequenceNode):
        return [plain_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        names = [str(name.value) for name, _ in node.value]
        if len(set(names)) != len(names):
            raise _Misfit
        return {str(name.value): plain_value(value) for name, value in node.value}
    text = str(node.value)
    if is_quoted(node):
        return text
    if text in _NULL:
        return None
    if (switch := _switch(text, words=False)) is not None:
        return switch
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _wrong_type(key: Key, node: yaml.Node, where: str, instead: str) -> Problem:
    kinds = [_ARTICLE[kind] for kind in key.kinds if kind != "null"] + (["null"] if "null" in key.kinds else [])
    expected = " or ".join(dict.fromkeys(kinds))
    if key.item == "float":
        expected = expected.replace("a list", "a list of numbers, as [1.0, 0.2],")
    given = show_node(node)
    empty = isinstance(node, yaml.ScalarNode) and not is_quoted(node) and given.strip() in _NULL
    quoted = " in quotes" if is_quoted(node) and instead else ""
    what = f"{key.name} has no value" if empty else f"{key.name} is {given}{quoted}"
    mend = f"write  {key.name}: {instead}" if instead else _example(key, expected)
    return Problem("wrong-type", where, f"{what}; expected is {expected}.", mend)


def _example(key: Key, expected: str) -> str:
    if key.choices:
        return f"write one of {', '.join(key.choices)}."
    if key.default not in (None, [], ""):
        return f"write {expected}, e.g.  {key.name}: {show(key.default)}"
    return f"write {expected}, or remove the key."


def _check_range(key: Key, value: Any, where: str) -> Problem | None:
    if key.limits is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if key.limits.holds(value):
        return None
    return Problem(
        "out-of-range",
        where,
        f"{key.name} is {show(value)}; it must be {key.limits}.",
        f"write a value {key.limits}" + ("." if key.default is None else f"; the default is {show(key.default)}."),
    )


def _check_choice(key: Key, value: Any, where: str) -> Problem | None:
    if isinstance(value, list) and key.choices:
        faults = (_check_choice(key, item, where) for item in value)
        return next((fault for fault in faults if fault is not None), None)
    if not key.choices or not isinstance(value, str) or value in key.choices:
        return None
    near = nearest(value, key.choices)
    mend = f"write  {key.name}: {near}" if near else f"write one of {', '.join(key.choices)}."
    others = "" if not near else f" Valid: {', '.join(key.choices)}." if len(key.choices) <= 8 else ""
    return Problem("unknown-choice", where, f"{key.name} is {value}, which is no valid value.{others}", mend)


def nearest(word: str, words: "tuple[str, ...] | list[str]") -> str:
    """The closest of `words`, or empty when none is close. Case and - or _ do not count."""
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in words}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), list(plain), n=1, cutoff=0.6)
    return plain[found[0]] if found else ""


def _float_text(number: float) -> str:
    """Shortest text that reads back as the same float, here and in YAML 1.1 (which needs a dot)."""
    text = repr(number)
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        sign = "-" if exponent.startswith("-") else "+"
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{int(exponent.lstrip('+-'))}"
    return text


def _quote_if_needed(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_./~][\w./@+:-]*", text) and not text.endswith(":") and ": " not in text
    if plain and text not in _NULL | _TRUE | _FALSE | _YES | _NO | {"none"}:
        return text
    return json.dumps(text, ensure_ascii=False)
