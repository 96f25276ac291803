"""The filters there are, what is wrong with a request for one, and the filter itself."""

import reprlib
from collections.abc import Mapping
from typing import Any

from tulu_recipes.config.values import nearest
from tulu_recipes.data.filters import language, lengths, models, repetition, text, user, verifiable
from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer
from tulu_recipes.errors import DataError, Problem

SCOPE = Parameter(
    "choice", "rows compared: those of one source, or of the whole mix", "mix", choices=("source", "mix")
)
ON = Parameter("choice", "text compared: everything in the row, or its user turns", "row", choices=("row", "prompt"))
GLOBAL = (
    FilterKind(
        "exact_duplicates", "of rows with the same normalised text one stays", {"scope": SCOPE, "on": ON}, None
    ),
    FilterKind(
        "near_duplicates",
        "of rows whose word n-grams overlap one stays (MinHash, so an estimate)",
        {
            "scope": SCOPE,
            "on": ON,
            "threshold": Parameter("fraction", "Jaccard similarity from which rows count as near duplicates", 0.8),
            "ngram": Parameter("count", "words in an n-gram", 5),
            "num_perm": Parameter("count", "hashes in a signature; more are surer and slower", 128),
        },
        None,
    ),
)
GLOBAL_FILTERS = tuple(kind.name for kind in GLOBAL)
OF_ROWS = (*lengths.KINDS, *text.KINDS, *repetition.KINDS, *language.KINDS, *models.KINDS, *verifiable.KINDS)
FILTERS = {kind.name: kind for kind in (*OF_ROWS, *GLOBAL)}


def filter_problems(name: str, params: Mapping[str, Any], target: str) -> list[str]:
    """What is wrong with a request, as "what is wrong. How to mend it."; none when it can be built.

    The mend is the last sentence.
    Loads no library beyond what reading rows takes, and not the user's module.
    """
    if ":" in name:
        return user.name_problems(name)
    kind = FILTERS.get(name)
    if kind is None:
        near = nearest(name, list(FILTERS))
        meant = f"Write {near}" if near else f"Write one of {', '.join(FILTERS)}"
        return [f"there is no filter {name!r}. {meant}, or module:function for one of your own."]
    if target not in kind.targets:
        return [f"it works on {' and '.join(kind.targets)} rows, and the target is {target}. Remove it."]
    problems = _parameter_problems(kind, params)
    of = params.get("of")
    if of in ("chosen", "rejected") and target != "preference":
        problems.append(f"of: {of} is for preference rows. Write of: assistant.")
    if not problems and kind.check:
        problems += kind.check(kind.filled(params), target)
    return problems


def _parameter_problems(kind: FilterKind, params: Mapping[str, Any]) -> list[str]:
    known = list(kind.parameters)
    problems = []
    for key, value in params.items():
        if key not in kind.parameters:
            near = nearest(str(key), known)
            meant = f"Write {near}" if near else f"It takes {', '.join(known) or 'none'}"
            problems.append(f"there is no parameter {key!r}. {meant}.")
            continue
        expected = kind.parameters[key].fault(value)
        if expected:
            problems.append(f"{key} is {reprlib.repr(value)}. Write {expected}.")
    missing = [key for key, parameter in kind.parameters.items() if parameter.needed and key not in params]
    return problems + [f"{key} is missing. Add it: {kind.parameters[key].meaning}." for key in missing]


def make_filter(name: str, params: Mapping[str, Any], *, target: str, tokenizer: Tokenizer | None) -> RowFilter:
    """The filter a mix asks for.

    Args:
        params: as in the mix; missing ones take their defaults.
        tokenizer: of the mix; needed by `tokens` alone.
    Raises:
        DataError: what `filter_problems` finds, a missing tokenizer or library, a user function that cannot be loaded.
    """
    problems = filter_problems(name, params, target)
    if not problems and name in GLOBAL_FILTERS:
        problems = ["it compares rows with each other and is no filter of single rows. Use data.filters.duplicates."]
    if problems:
        raise DataError([_refused(name, problem) for problem in problems])
    if ":" in name:
        return user.load(name, params)
    kind = FILTERS[name]
    assert kind.build is not None
    try:
        return kind.build(kind.filled(params), target, tokenizer)
    except ValueError as error:
        raise DataError(_refused(name, str(error))) from error


def _refused(name: str, problem: str) -> Problem:
    what, _, mend = problem.rpartition(". ")  # the value in front may hold anything, the mend is one sentence
    return Problem("filter-refused", "", f"Filter `{name}` cannot be used: {what}.", mend)
