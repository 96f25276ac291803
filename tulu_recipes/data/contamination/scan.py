"""Matches of a whole dataset: parts of it in turn, in this process or in several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.contamination.match import MATCH_SCHEMA, find_matches
from tulu_recipes.data.contamination.texts import user_texts

PART_ROWS = 5_000


def scan(
    rows: Dataset, columns: Sequence[str], index_folder: Path, *, workers: int, advance: Callable[[int], object]
) -> pa.Table:
    """All matches (`match.MATCH_SCHEMA`, rows counted over the dataset), the same for every number of workers.

    Args:
        columns: those whose user turns are compared (`texts.text_columns`).
        index_folder: what `EvalIndex.save` wrote; every process maps it.
        advance: called with the number of rows that were done, again and again.
    """
    parts = [(start, min(start + PART_ROWS, len(rows))) for start in range(0, len(rows), PART_ROWS)]
    found = []
    for (start, end), matches in zip(
        parts, _run(_Scanner(rows, tuple(columns), index_folder), parts, workers), strict=True
    ):
        found.append(matches.set_column(0, "row", pa.array(matches["row"].to_numpy() + start)))
        advance(end - start)
    return pa.concat_tables([MATCH_SCHEMA.empty_table(), *found]).combine_chunks()


def by_source(matches: pa.Table, groups: dict[str, np.ndarray]) -> dict[str, pa.Table]:
    """Split matches by the rows of each group (sorted numbers), each counting its own rows from 0."""
    row = matches["row"].to_numpy()
    split = {}
    for key, members in groups.items():
        chosen = matches.filter(pa.array(np.isin(row, members)))
        local = np.searchsorted(members, chosen["row"].to_numpy())
        split[key] = chosen.set_column(0, "row", pa.array(local, pa.int64()))
    return split


@dataclass
class _Scanner:
    """What a process needs; the dataset travels as the names of its files where it has some."""

    rows: Dataset
    columns: tuple[str, ...]
    index_folder: Path
    index: EvalIndex | None = None

    def scan(self, start: int, end: int) -> pa.Table:
        if self.index is None:
            self.index = EvalIndex.load(self.index_folder)
        table = self.rows.select_columns(list(self.columns)).with_format("arrow")[start:end]
        return find_matches(self.index, user_texts(table, self.columns))


def _run(scanner: _Scanner, parts: list[tuple[int, int]], workers: int) -> Iterator[pa.Table]:
    if workers == 1 or len(parts) < 2:
        yield from (scanner.scan(*part) for part in parts)
        return
    with ProcessPoolExecutor(min(workers, len(parts)), get_context("spawn"), _receive, (scanner,)) as pool:
        yield from pool.map(_scan_part, parts)


_scanner: _Scanner


def _receive(scanner: _Scanner) -> None:
    global _scanner
    _scanner = scanner


def _scan_part(part: tuple[int, int]) -> pa.Table:
    return _scanner.scan(*part)
