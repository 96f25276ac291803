"""Matches of a whole dataset: parts of it in turn, in this process or in several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.contamination.match import MATCH_SCHEMA, find_matches
from tulu_recipes.data.contamination.texts import user_texts
from tulu_recipes.data.mixing.workers import results

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
    found = [MATCH_SCHEMA.empty_table()] * len(parts)
    begin = partial(_begin, rows, tuple(columns), index_folder)
    for number, matches in results(_scan_part, parts, workers, begin=begin):
        start, end = parts[number]
        found[number] = matches.set_column(0, "row", pa.array(matches["row"].to_numpy() + start))
        advance(end - start)
    _scanners.clear()  # of this process: the index's files are let go of
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


@dataclass(frozen=True)
class _Scanner:
    """What a process needs; the dataset travels as the names of its files where it has some."""

    rows: Dataset
    columns: tuple[str, ...]
    index: EvalIndex


_scanners: list[_Scanner] = []  # one, in a process that scans


def _begin(rows: Dataset, columns: tuple[str, ...], index_folder: Path) -> None:
    chosen = rows.select_columns(list(columns)).with_format("arrow")
    _scanners[:] = [_Scanner(chosen, columns, EvalIndex.load(index_folder))]


def _scan_part(part: tuple[int, int]) -> pa.Table:
    (scanner,) = _scanners
    return find_matches(scanner.index, user_texts(scanner.rows[slice(*part)], scanner.columns))
