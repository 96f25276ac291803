"""Who is contaminated, and what goes, by hand-made numbers."""

import numpy as np
import pyarrow as pa
import pytest

from tulu_recipes.data.contamination.decide import decide
from tulu_recipes.data.contamination.evals_file import EvalsFile, Evaluation
from tulu_recipes.data.contamination.match import MATCH_SCHEMA


def matches(*pairs: tuple[int, int, int]) -> pa.Table:
    """(row, evaluation, item) with any score."""
    return pa.Table.from_pylist(
        [{"row": row, "evaluation": which, "item": item, "score": 0.9} for row, which, item in pairs], MATCH_SCHEMA
    )


def evals(*actions: str, below: str = "drop_rows") -> EvalsFile:
    return EvalsFile(
        tuple(Evaluation(f"e{i}", "x", ("q",), action, below_threshold=below) for i, action in enumerate(actions))
    )


def test_two_percent_is_not_contaminated_and_more_is() -> None:
    two = matches((5, 0, 0), (5, 0, 1), (9, 0, 1))
    decision = decide({"s": two}, evals("drop_source"), {"e0": 100}, {"s": 50})
    assert decision.table == [
        {
            "source": "s",
            "evaluation": "e0",
            "items": 100,
            "overlapped": 2,
            "share": 0.02,
            "rows_matched": 2,
            "contaminated": False,
            "action": "drop_source",
            "rows_removed": 2,
        }
    ]
    assert decision.removed["s"].tolist() == [5, 9]
    assert decision.dropped_sources == ()
    decision = decide({"s": two}, evals("drop_source"), {"e0": 99}, {"s": 50})
    assert decision.table[0]["contaminated"] is True
    assert decision.removed["s"].tolist() == list(range(50))
    assert decision.dropped_sources == ("s",)


@pytest.mark.parametrize(
    ("action", "below", "items", "removed"),
    [
        ("drop_rows", "drop_rows", 1, [3]),
        ("drop_rows", "keep", 1000, [3]),
        ("drop_source", "drop_rows", 1000, [3]),
        ("drop_source", "keep", 1000, []),
        ("drop_source", "keep", 1, [0, 1, 2, 3]),
        ("report", "drop_rows", 1, []),
    ],
)
def test_what_goes_under_each_rule(action: str, below: str, items: int, removed: list[int]) -> None:
    decision = decide({"s": matches((3, 0, 0))}, evals(action, below=below), {"e0": items}, {"s": 4})
    assert decision.removed["s"].tolist() == removed
    assert decision.table[0]["rows_removed"] == len(removed)


def test_sources_are_judged_apart_and_rows_removed_once() -> None:
    found = {"a": matches((0, 0, 0), (0, 1, 4), (2, 1, 4)), "b": matches(), "empty": matches()}
    decision = decide(found, evals("drop_rows", "drop_rows"), {"e0": 10, "e1": 0}, {"a": 3, "b": 2, "empty": 0})
    assert [line["rows_removed"] for line in decision.table] == [1, 2, 0, 0, 0, 0]
    assert [line["share"] for line in decision.table] == [0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert {key: rows.tolist() for key, rows in decision.removed.items()} == {"a": [0, 2], "b": [], "empty": []}
    assert decision.removed["b"].dtype == np.int64
