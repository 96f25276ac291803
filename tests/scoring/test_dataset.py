"""What of a dataset is scored, and how two datasets are told apart."""

from pathlib import Path

import pytest
from datasets import Dataset, concatenate_datasets

from tests.tiny import conversation, pair
from tulu_recipes.errors import DataError
from tulu_recipes.scoring.dataset import content_digest, rows_to_score

PAIRS = Dataset.from_list([{**pair(i), "note": f"n{i}" if i else None} for i in range(5)])


def test_earlier_scores_are_no_reason_not_to_score() -> None:
    row = {**pair(0), "score_chosen": 1.0, "score_rejected": 2.0}
    data = rows_to_score(Dataset.from_list([row]), "rows")
    assert data.columns == ["chosen_score", "rejected_score"]
    assert data.conversations(row) == [row["chosen"], row["rejected"]]


def test_conversations_have_one_score_and_no_other_columns_may_be_taken() -> None:
    assert rows_to_score(Dataset.from_list([conversation(0)]), "rows").columns == ["score"]
    taken = PAIRS.add_column("rejected_score", [0.5] * 5)
    with pytest.raises(DataError) as caught:
        rows_to_score(taken, "rows")
    assert caught.value.slugs == ["score-columns"]
    assert "The rows have rejected_score already" in str(caught.value)
    with pytest.raises(DataError) as caught:
        rows_to_score(PAIRS.select([]), "rows")
    assert caught.value.slugs == ["no-rows"]


def test_equal_rows_have_one_digest_in_whatever_files_they_are(tmp_path: Path) -> None:
    digest = content_digest(PAIRS)
    pieces = concatenate_datasets([PAIRS.select(range(2)), PAIRS.select(range(2, 5))])
    PAIRS.to_parquet(str(tmp_path / "rows.parquet"))
    from_file = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    assert content_digest(pieces) == content_digest(from_file) == digest
    others = [
        PAIRS.select([1, 0, 2, 3, 4]),
        PAIRS.select(range(4)),
        PAIRS.rename_column("note", "notes"),
        PAIRS.map(lambda row, i: {"note": "x" if i == 3 else row["note"]}, with_indices=True),
    ]
    assert len({digest, *map(content_digest, others)}) == 5
