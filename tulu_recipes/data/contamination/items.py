"""The items of every evaluation, read from the Hub or from files, at a commit that is written down."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_recipes.config.values import nearest
from tulu_recipes.data.contamination.evals_file import ALL_CONFIGS, EvalsFile, Evaluation
from tulu_recipes.data.contamination.index import EvaluationItems
from tulu_recipes.data.sources import config_names, first_rows, load_dataset_rows
from tulu_recipes.errors import DataError, HubError, Problem
from tulu_recipes.hub import resolve_revision


@dataclass(frozen=True)
class LoadedEvaluations:
    """items: in the order of the file. revisions: by evaluation, the commit; None for local files."""

    items: list[EvaluationItems]
    revisions: dict[str, str | None]


def load_items(evals: EvalsFile) -> LoadedEvaluations:
    """Read the fields of every evaluation; a dataset that several evaluations name is read for each.

    Raises:
        DataError: every evaluation that cannot be read, in one message.
    """
    items: list[EvaluationItems] = []
    revisions: dict[str, str | None] = {}
    problems: list[Problem] = []
    for evaluation in evals.evaluations:
        try:
            revision = resolve_revision(evaluation.dataset, repo_type="dataset", revision=evaluation.revision)
            texts = list(_items(evaluation, revision))
        except (DataError, HubError) as error:
            problems += error.problems
            continue
        revisions[evaluation.name] = revision
        items.append(EvaluationItems(evaluation.name, texts, evaluation.tokenization))
    if problems:
        raise DataError(list(dict.fromkeys(problems)), headline="Evaluations that cannot be read:")
    return LoadedEvaluations(items, revisions)


def _items(evaluation: Evaluation, revision: str | None) -> Iterable[tuple[str, ...]]:
    configs: list[str | None] = [evaluation.config]
    if evaluation.config == ALL_CONFIGS:
        local = Path(evaluation.dataset).is_file()
        configs = [None] if local else list(config_names(evaluation.dataset, revision=revision))
    for config in configs:
        for number, row in enumerate(_rows(evaluation, config, revision), start=1):
            yield tuple(_text(row, field, evaluation, number) for field in evaluation.fields)


def _rows(evaluation: Evaluation, config: str | None, revision: str | None) -> Iterable[Mapping[str, Any]]:
    name, count = evaluation.dataset, evaluation.rows_per_config
    if count is not None and not Path(name).exists():
        return first_rows(name, count, config=config, split=evaluation.split, revision=revision)
    split = None if Path(name).is_file() else evaluation.split  # a file has no splits
    rows = load_dataset_rows(name, config=config, split=split, revision=revision)
    there = rows.column_names
    columns = {field if field in there else field.split(".")[0]: field for field in evaluation.fields}
    for column, field in columns.items():
        if column not in there:
            raise _column_problem(evaluation, field, "is no column", there)
    rows = rows.select_columns(list(columns))
    return rows if count is None else rows.select(range(min(count, len(rows))))  # type: ignore[no-any-return]


def _text(row: Mapping[str, Any], field: str, evaluation: Evaluation, number: int) -> str:
    """The text of a field; "" where there is nothing, a number as it is printed."""
    value: Any = row.get(field) if field in row else row
    for key in () if field in row else field.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
            continue
        if value is None:
            break
        raise _column_problem(evaluation, field, f"has no {key!r}", list(value) if isinstance(value, Mapping) else [])
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (int, float)):
        return str(value)
    raise _column_problem(evaluation, field, f"is {type(value).__name__} in row {number}, not text", [])


def _column_problem(evaluation: Evaluation, field: str, said: str, there: list[str]) -> DataError:
    near = nearest(field, there)
    listed = f"; there are {', '.join(sorted(there))}" if there else ""
    return DataError(
        Problem(
            "evals-column",
            f"{evaluation.name} ({evaluation.dataset})",
            f"The field {field} {said}{listed}.",
            f"did you mean {near}?" if near else "name a column with text; dots lead into nested ones.",
        )
    )
