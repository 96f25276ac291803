"""RLVR rows that their verifier can really grade: the label can be read, and a known solution is graded correct."""

from typing import Any

from tulu_recipes import verifiers
from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.verifiers import VERIFIERS, verify


def label_fault(row: dict[str, Any]) -> str | None:
    """Why the row's verifier cannot use its label; the verifier is named by the `dataset` column, in any case.

    Raises:
        DataError: it names a module:function that is not there.
    """
    if not _known(row["dataset"]):
        return "no verifier for its dataset"
    fault = verifiers.label_fault(row["dataset"], row["ground_truth"])
    return fault or _constraint_fault(row)


def _known(name: str) -> bool:
    return name.lower() in VERIFIERS or ":" in name


def _constraint_fault(row: dict[str, Any]) -> str | None:
    """The sentence that a constraint function checks stands in a column of its own; instruction ids have none."""
    if row["dataset"].lower() != "ifeval" or "func_name" not in row["ground_truth"]:
        return None
    return None if (row["constraint"] or "").strip() else "constraint is missing"


def _verifiable(params: dict[str, Any], _target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    column = params["solution_column"]

    def gradable(row: dict[str, Any]) -> str | None:
        solution = _solution(row, column) if column else None
        if solution is None or not _known(row["dataset"]):
            return label_fault(row)
        verdict = verify(row["dataset"], solution, row["ground_truth"])
        if verdict.outcome == "wrong":
            return f"its solution is graded wrong: {verdict.reason}"
        return verdict.reason or _constraint_fault(row)

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
