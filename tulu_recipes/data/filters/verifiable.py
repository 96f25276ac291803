"""RLVR rows that their verifier can really grade: the label can be read, and a known solution is graded correct."""

from typing import Any

from tulu_recipes import verifiers
from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers import VERIFIERS, ifeval_schema, verify


def label_fault(row: dict[str, Any]) -> str | None:
    """Why the row's verifier cannot use its label; the verifier is named by the `dataset` column, in any case."""
    name, label = row["dataset"].lower(), row["ground_truth"]
    if name in VERIFIERS:
        return verifiers.label_fault(name, label)
    if name == "ifeval":
        fault = ifeval_schema.label_fault(label)
        return fault or (None if (row["constraint"] or "").strip() else "constraint is missing")
    return "no verifier for its dataset"


def _verifiable(params: dict[str, Any], _target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    column = params["solution_column"]

    def gradable(row: dict[str, Any]) -> str | None:
        solution = _solution(row, column) if column else None
        name = row["dataset"].lower()
        if solution is None or name not in VERIFIERS:
            return label_fault(row)
        verdict = verify(name, solution, row["ground_truth"])
        if verdict.outcome == "wrong":
            return f"its solution is graded wrong: {verdict.reason}"
        return verdict.reason or None

    return gradable


def _solution(row: dict[str, Any], column: str) -> str | None:
    if column not in row:
        raise DataError(
            Problem(
                "filter-refused",
                "filter verifiable",
                f"The rows have no column {column}.",
                "name the column of the dataset that holds the solution.",
            )
        )
    solution = row[column]
    return solution if isinstance(solution, str) and solution.strip() else None


KINDS = (
    FilterKind(
        "verifiable",
        "rows that their verifier cannot grade go",
        {
            "solution_column": Parameter(
                "text",
                "column of the dataset with a solution, which must be graded correct; rows without one are not graded",
            )
        },
        _verifiable,
        targets=("rlvr",),
    ),
)
