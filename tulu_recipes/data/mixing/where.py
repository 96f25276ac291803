"""`where`: the rows of a source whose columns have certain values."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from datasets import Dataset


def positions_where(rows: Dataset, positions: range, asked: Mapping[str, list[Any]]) -> range | list[int]:
    """The positions whose columns have the values asked for; only these columns are read."""
    if not asked:
        return positions
    columns = rows.select_columns(list(asked))[positions]
    values = zip(*(columns[column] for column in asked), strict=True)
    found = (dict(zip(asked, row, strict=True)) for row in values)
    return [position for position, row in zip(positions, found, strict=True) if is_wanted(row, asked)]


def is_wanted(row: Mapping[str, Any], asked: Mapping[str, list[Any]]) -> bool:
    """Whether each column equals one of its values, of which text may hold the wildcards * and ?."""
    return all(_is_one_of(row.get(column), allowed) for column, allowed in asked.items())


def _is_one_of(value: Any, allowed: list[Any]) -> bool:
    if value in allowed:
        return True
    patterns = (pattern.replace("[", "[[]") for pattern in allowed if isinstance(pattern, str))
    return isinstance(value, str) and any(fnmatchcase(value, pattern) for pattern in patterns)
