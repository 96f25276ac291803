"""The columns of a finished mix: the target's own and those that sources keep, brought to one type."""

import pyarrow as pa
from datasets import Dataset

from tulu_recipes.data.layouts import canonical_schema
from tulu_recipes.data.mixing.job import ResolvedSource
from tulu_recipes.errors import DataError, Problem


def mix_schema(sources: tuple[ResolvedSource, ...], target: str) -> pa.Schema:
    """Columns of the finished rows: the target's, kept ones, and `source` last.

    Raises:
        DataError: a kept column has another type in another source.
    """
    schema = canonical_schema(target)
    kept: dict[str, tuple[pa.DataType, ResolvedSource]] = {}
    problems = []
    for source in sources:
        types, mixed = source.rows.features.arrow_schema, json_columns(source.rows)
        for column in source.source.keep_columns:
            if column in (*schema.names, "source"):
                continue
            found = pa.string() if column in mixed else types.field(column).type
            known, first = kept.get(column, (found, source))
            merged = _common_type(known, found)
            if merged is None:
                what = f"{column} is {found} in {source.title} and {known} in {first.title}."
                mend = "keep it in one of them alone, or bring the files to one type."
                problems.append(Problem("mix-column", source.source.place, what, mend))
            kept[column] = (merged or known, first)
    if problems:
        raise DataError(problems)
    fields = [pa.field(name, found) for name, (found, _) in kept.items()]
    return pa.schema([*schema, *fields, pa.field("source", pa.string())])


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds both, as Arrow sees it (int32 and int64, null and anything); None when there is none."""
    try:
        unified = pa.unify_schemas([pa.schema([("x", one)]), pa.schema([("x", other)])], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None
    return unified.field("x").type


def json_columns(rows: Dataset) -> set[str]:
    """Columns of mixed types, which `datasets` holds as JSON: a mix keeps them as JSON text."""
    return {field.name for field in rows.features.arrow_schema if "arrow.json" in str(field.type)}
