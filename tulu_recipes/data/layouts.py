"""Layouts of datasets: which there are, which one a dataset has, and the canonical rows that all become.

A layout is recognised from column names and types, never from values, so that every row of a dataset is read alike.
`data.conversion` holds what happens to one row; docs/layouts.md is the table for readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tulu_recipes.data.conversion import CONVERTERS, BrokenRow, messages_of, shared_turns
from tulu_recipes.errors import DataError, Problem

if TYPE_CHECKING:
    from datasets import Features

__all__ = [
    "LAYOUTS",
    "TARGETS",
    "BrokenRow",
    "Layout",
    "canonical_schema",
    "layout_names",
    "messages_of",
    "recognise",
    "turns",
    "user_texts",
]
TARGETS = ("sft", "preference", "rlvr")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
QUESTIONS = ("question", "problem", "query", "prompt", "instruction")
ANSWERS = ("answer", "solution", "response", "output", "completion")


def canonical_schema(target: str) -> pa.Schema:
    """Columns of a canonical row, without `source` and kept columns."""
    columns = {
        "sft": [("messages", MESSAGES)],
        "preference": [("prompt", pa.string()), ("chosen", MESSAGES), ("rejected", MESSAGES)],
        "rlvr": [
            ("messages", MESSAGES),
            ("ground_truth", pa.string()),
            ("dataset", pa.string()),
            ("constraint_type", pa.string()),
            ("constraint", pa.string()),
        ],
    }
    return pa.schema(columns[target])


@dataclass(frozen=True)
class Kind:
    """What a layout asks of a dataset. Types: text, turns (list of role/content or from/value), either, list, any."""

    target: str
    needs: dict[str, str]
    takes: dict[str, str] = field(default_factory=dict)  # read where there, of any type
    rank: int = 0  # a lower rank goes before a higher one where both fit


LAYOUTS = {
    "messages": Kind("sft", {"messages": "turns"}),
    "sharegpt": Kind("sft", {"conversations": "turns"}, {"system": "text"}),
    "prompt_completion": Kind("sft", {"prompt": "either", "completion": "either"}, rank=1),
    "alpaca": Kind("sft", {"instruction": "text", "output": "text"}, {"input": "text", "system": "text"}, rank=1),
    "question_answer": Kind("sft", {"question": "text", "answer": "text"}, {"system": "text"}, rank=2),
    "preference": Kind(
        "preference",
        {"chosen": "either", "rejected": "either"},
        {"prompt": "either", "score_chosen": "any", "score_rejected": "any"},
    ),
    "ultrafeedback": Kind("preference", {"instruction": "text", "completions": "list"}),
    "rlvr": Kind(
        "rlvr",
        {"messages": "turns", "ground_truth": "any", "dataset": "any"},
        {"constraint_type": "any", "constraint": "any"},
    ),
}


@dataclass(frozen=True)
class Layout:
    """A layout as one dataset spells it. columns: the layout's column → the dataset's. Picklable."""

    name: str
    target: str
    columns: dict[str, str]

    def convert(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One canonical row. Raises BrokenRow with a countable reason."""
        return CONVERTERS[self.name]({name: row.get(column) for name, column in self.columns.items()})


def layout_names(target: str) -> list[str]:
    return [name for name, kind in LAYOUTS.items() if kind.target == target]


def recognise(
    features: "Features",
    target: str,
    where: str,
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of a dataset with these features, for one target.

    Args:
        where: the source, for messages.
        layout: name in `LAYOUTS`; None looks for the one that fits.
        columns: the layout's column → the dataset's column, where names differ.
    Raises:
        DataError: no layout fits, two do, or a name does not exist; the columns there are and the layouts are named.
    """
    renames = dict(columns or {})
    problems = _name_problems(features, target, where, layout, renames)
    if problems:
        raise DataError(problems)
    seen = {name: name for name in features if name not in renames.values()} | renames
    if layout is None:
        layout = _pick(features, seen, target, where)
    if layout == "question_answer":
        seen = _with_question_and_answer(seen, renames, features, where)
    kind = LAYOUTS[layout]
    misfits = _misfits(kind, seen, features)
    if misfits:
        raise _no_layout(features, target, where, f"For layout {layout!r} {'; '.join(misfits)}.")
    read = [*kind.needs, *kind.takes]
    return Layout(layout, target, {name: seen[name] for name in read if name in seen})


def _name_problems(
    features: Mapping[str, Any], target: str, where: str, layout: str | None, renames: dict[str, str]
) -> list[Problem]:
    known = layout_names(target)
    if layout is not None and layout not in known:
        other = f" It makes rows for {LAYOUTS[layout].target}." if layout in LAYOUTS else ""
        return [
            Problem(
                "layout-unknown",
                where,
                f"There is no layout {layout!r} for target {target}.{other}",
                f"write one of {', '.join(known)}, or remove `layout` to have it recognised.",
            )
        ]
    kinds = [LAYOUTS[name] for name in ([layout] if layout else known)]
    own = sorted({name for kind in kinds for name in [*kind.needs, *kind.takes]})
    strange = [name for name in renames if name not in own]
    absent = [name for name in renames.values() if name not in features]
    problems = []
    if strange:
        problems.append(
            Problem(
                "columns-unknown",
                where,
                f"columns renames to {', '.join(strange)}, which no layout for {target} reads"
                + (f" ({layout!r} was asked for)." if layout else "."),
                f"write `columns: {{layout's column: dataset's column}}`; the layouts read {', '.join(own)}.",
            )
        )
    if absent:
        problems.append(
            Problem(
                "columns-unknown",
                where,
                f"columns names {', '.join(absent)}, which the dataset does not have; it has {_listed(features)}.",
                "name columns of the dataset to the right of the colon.",
            )
        )
    return problems


def _pick(features: Mapping[str, Any], seen: dict[str, str], target: str, where: str) -> str:
    if target == "sft":
        _refuse_other_stages(seen, where)
    fits = [name for name in layout_names(target) if _fits(name, seen, features)]
    best = min((LAYOUTS[name].rank for name in fits), default=0)
    fits = [name for name in fits if LAYOUTS[name].rank == best]
    if not fits:
        raise _no_layout(features, target, where, "")
    if len(fits) > 1:
        raise DataError(
            Problem(
                "layout-ambiguous",
                where,
                f"The columns {_listed(features)} fit the layouts {' and '.join(fits)}.",
                f"say which with `layout: {fits[0]}` or `layout: {fits[1]}`.",
            )
        )
    return fits[0]


def _refuse_other_stages(seen: Mapping[str, str], where: str) -> None:
    """Rows of later stages often hold `messages` too, but not the conversation to imitate."""
    for marks, stage in (({"chosen", "rejected"}, "preference"), ({"ground_truth", "dataset", "messages"}, "rlvr")):
        if marks <= set(seen):
            raise DataError(
                Problem(
                    "layout-ambiguous",
                    where,
                    f"The columns {', '.join(sorted(marks))} are those of {stage} rows, and the target is sft.",
                    f"write `target: {stage}`, or name a `layout` if these rows do hold conversations for sft.",
                )
            )


def _fits(name: str, seen: dict[str, str], features: Mapping[str, Any]) -> bool:
    if name == "question_answer":
        return any(column in seen for column in QUESTIONS) and any(column in seen for column in ANSWERS)
    if name == "preference" and "prompt" not in seen and _type_of(features, seen.get("chosen")) == "text":
        return False
    return not _misfits(LAYOUTS[name], seen, features)


def _misfits(kind: Kind, seen: Mapping[str, str], features: Mapping[str, Any]) -> list[str]:
    """What the layout asks for and the dataset does not have, in words."""
    faults = []
    for name, asked in kind.needs.items():
        if name not in seen:
            faults.append(f"`{name}` is missing")
            continue
        found = _type_of(features, seen[name])
        accepted = {"either": ("text", "turns"), "list": ("turns", "list"), "any": (found,)}.get(asked, (asked,))
        if found != "any" and found not in accepted:
            faults.append(f"`{seen[name]}` is {found}, not {' or '.join(accepted)}")
    return faults


def _with_question_and_answer(
    seen: dict[str, str], renames: Mapping[str, str], features: Mapping[str, Any], where: str
) -> dict[str, str]:
    """`question` and `answer` are whichever one column of each table is there; two are a choice for a person."""
    found = dict(seen)
    for name, table in (("question", QUESTIONS), ("answer", ANSWERS)):
        if name in renames:
            continue
        there = [column for column in table if column in seen]
        if len(there) > 1:
            raise DataError(
                Problem(
                    "layout-ambiguous",
                    where,
                    f"The {name} may be in {' or in '.join(there)} (columns: {_listed(features)}).",
                    f"say which, as in `columns: {{{name}: {there[0]}}}`.",
                )
            )
        if there:
            found[name] = seen[there[0]]
    return found


def _type_of(features: Mapping[str, Any], column: str | None) -> str:
    """text, number, turns, list, object; any where the type leaves it open (nulls only, mixed JSON)."""
    feature = features.get(column) if column is not None else None
    if isinstance(feature, dict):
        return "turns" if _is_turn(feature) else "object"
    inner = getattr(feature, "feature", None)
    if inner is not None:
        if isinstance(inner, dict):
            return "turns" if _is_turn(inner) else "list"
        return "turns" if _open_ended(inner) else "list"
    if _open_ended(feature):
        return "any"
    dtype = str(getattr(feature, "dtype", ""))
    return (
        "text" if "string" in dtype else "number" if dtype.startswith(("int", "uint", "float", "bool")) else "object"
    )


def _open_ended(feature: Any) -> bool:
    return type(feature).__name__ == "Json" or getattr(feature, "dtype", None) == "null"


def _is_turn(struct: Mapping[str, Any]) -> bool:
    return {"role", "content"} <= set(struct) or {"from", "value"} <= set(struct)


def _no_layout(features: Mapping[str, Any], target: str, where: str, why: str) -> DataError:
    known = "; ".join(f"{name} ({', '.join(LAYOUTS[name].needs)})" for name in layout_names(target))
    return DataError(
        Problem(
            "columns-unknown",
            where,
            f"No layout for target {target} fits the columns {_listed(features)}. {why}".rstrip(),
            f"rename with `columns`, or convert the rows to one of: {known}.",
        )
    )


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({_type_of(features, name)})" for name in features) or "(none)"


def turns(row: Mapping[str, Any], target: str) -> list[tuple[str, str]]:
    """(role, content) of everything in a canonical row, once.

    Preference: the shared turns, then what only one side has; its assistant turns have the roles `chosen`, `rejected`.
    """
    if target != "preference":
        return [(message["role"], message["content"]) for message in row["messages"]]
    chosen, rejected = row["chosen"], row["rejected"]
    shared = shared_turns(chosen, rejected)
    found = [(message["role"], message["content"]) for message in chosen[:shared]]
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        for message in messages[shared:]:
            found.append((side if message["role"] == "assistant" else message["role"], message["content"]))
    return found


def user_texts(row: Mapping[str, Any], target: str) -> list[str]:
    """Contents of the user turns; what two answers share, once."""
    return [content for role, content in turns(row, target) if role == "user"]
