"""From matches to what goes: which sources are contaminated by which evaluation, and the rows that are removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tulu_recipes.data.contamination.evals_file import EvalsFile, Evaluation
from tulu_recipes.data.contamination.tokens import Ints


@dataclass(frozen=True)
class Decision:
    """table: one dict a source and evaluation, as in mix.lock.json. removed: sorted row numbers of every source."""

    table: list[dict[str, Any]]
    removed: dict[str, Ints]
    dropped_sources: tuple[str, ...]


def decide(
    matches: Mapping[str, pa.Table],
    evals: EvalsFile,
    items_per_evaluation: Mapping[str, int],
    rows_per_source: Mapping[str, int],
) -> Decision:
    """Apply each evaluation's rule [P:§3.2] to each source.

    drop_rows removes the rows that match, always. drop_source removes every row of a contaminated source; of another
    one the rows that match, unless the evaluation says `below_threshold: keep`. report removes nothing.

    Args:
        matches: by source, what `find_matches` found over all its rows; `evaluation` counts as in `evals`.
        items_per_evaluation: items compared (`EvalIndex.compared`): the share is of these.
        rows_per_source: every source that was looked at, with its rows.
    """
    table: list[dict[str, Any]] = []
    removed: dict[str, Ints] = {}
    dropped = []
    for source, rows in rows_per_source.items():
        lines, parts = [], [np.zeros(0, np.int64)]
        for number, evaluation in enumerate(evals.evaluations):
            line, gone = _judge(matches[source], number, evaluation, items_per_evaluation[evaluation.name], rows)
            lines.append({"source": source} | line)
            parts.append(gone)
        table += lines
        removed[source] = np.unique(np.concatenate(parts))
        if any(line["contaminated"] and line["action"] == "drop_source" for line in lines):
            dropped.append(source)
    return Decision(table, removed, tuple(dropped))


def _judge(
    matches: pa.Table, number: int, evaluation: Evaluation, items: int, rows: int
) -> tuple[dict[str, Any], Ints]:
    of_evaluation = matches["evaluation"].to_numpy() == number
    matched = np.unique(matches["row"].to_numpy()[of_evaluation])
    overlapped = len(np.unique(matches["item"].to_numpy()[of_evaluation]))
    share = overlapped / items if items else 0.0
    contaminated = share > evaluation.threshold
    if evaluation.action == "drop_source" and contaminated:
        gone = np.arange(rows)
    elif evaluation.action == "report" or (
        evaluation.action == "drop_source" and evaluation.below_threshold == "keep"
    ):
        gone = matched[:0]
    else:
        gone = matched
    line = {
        "evaluation": evaluation.name,
        "items": items,
        "overlapped": overlapped,
        "share": share,
        "rows_matched": len(matched),
        "contaminated": contaminated,
        "action": evaluation.action,
        "rows_removed": len(gone),
    }
    return line, gone
