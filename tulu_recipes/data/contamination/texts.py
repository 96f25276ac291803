"""The user turns of a dataset's rows, read from its columns in Arrow, without a Python object for each row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tulu_recipes.data.conversion import ROLES
from tulu_recipes.errors import DataError, Problem

USER_ROLES = tuple(sorted(name for name, role in ROLES.items() if role == "user"))  # as the layouts read them


def text_columns(schema: pa.Schema, where: str, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns whose user turns are compared: those named, else the ones a known layout has.

    `messages`, `conversations`, a `chosen` conversation (which holds the prompt's turns), `prompt`, or one column
    `instruction`, `question` or `text`; `input` belongs to `instruction`.

    Raises:
        DataError: a named column is missing or holds no text, or no layout fits.
    """
    there = {field.name: field.type for field in schema}
    wrong = [name for name in named if not _holds_text(there.get(name))]
    if wrong or not named:
        for layout in () if wrong else (*LAYOUTS, ("question",), ("text",)):
            if all(_holds_text(there.get(name)) for name in layout):
                return layout
        raise DataError(
            Problem(
                "columns-unknown",
                where,
                f"No text to compare in {', '.join(wrong) or 'columns that are known'}; the columns are "
                f"{', '.join(sorted(there)) or '(none)'}.",
                "name columns with text or messages: --column NAME.",
            )
        )
    return tuple(named)


def holds_turns(schema: pa.Schema, column: str) -> bool:
    """Whether a column holds messages, of which the user's are told apart, and no bare text."""
    return _is_list(schema.field(column).type)


LAYOUTS = (
    ("messages",),
    ("conversations",),
    ("chosen", "prompt"),
    ("prompt",),
    ("instruction", "input"),
    ("instruction",),
)


def user_texts(table: pa.Table, columns: Sequence[str]) -> pa.ListArray:
    """For each row the user turns of its columns, in order. A column of strings is one turn a row."""
    parts = [_turns(table[column].combine_chunks(), column) for column in columns]
    if len(parts) == 1:
        return parts[0]
    row = np.concatenate([pc.list_parent_indices(part).to_numpy(zero_copy_only=False) for part in parts])
    values = pa.concat_arrays([pc.list_flatten(part) for part in parts])
    order = np.argsort(row, kind="stable")
    return _lists(row[order], values.take(pa.array(order)), len(table))


def _turns(column: pa.Array, name: str) -> pa.ListArray:
    if isinstance(column, pa.ChunkedArray):  # an empty table combines to no chunk at all
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if not _is_list(kind):
        kept = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return _lists(kept, column.drop_null().cast(pa.large_string()), len(column))
    row = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(column)
    if pa.types.is_struct(values.type):
        role, content = _keys(values.type)
        said = pc.utf8_trim_whitespace(pc.utf8_lower(values.field(role)))
        user = pc.is_in(said, pa.array(USER_ROLES, said.type))
        values = values.field(content)
    else:
        user = pa.array(np.ones(len(values), bool))
    kept = pc.and_(user, values.is_valid())
    mask = kept.to_numpy(zero_copy_only=False)
    return _lists(row[mask], values.filter(kept).cast(pa.large_string()), len(column))


def _lists(row: Any, values: pa.Array, num_rows: int) -> pa.ListArray:
    """A list a row; `row` is sorted and says where each value belongs."""
    offsets = np.searchsorted(row, np.arange(num_rows + 1)).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_text(kind: pa.DataType | None) -> bool:
    if kind is None:
        return False
    if not _is_list(kind):
        return _is_text(kind)
    return _is_text(kind.value_type) or (pa.types.is_struct(kind.value_type) and _keys(kind.value_type) != ("", ""))


def _keys(kind: pa.StructType) -> tuple[str, str]:
    names = {field.name for field in kind if _is_text(field.type)}
    return next((keys for keys in (("role", "content"), ("from", "value")) if set(keys) <= names), ("", ""))
