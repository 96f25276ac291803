"""Which languages a finished mix is in, from rows spread evenly over it: to look at every row would take hours."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tulu_recipes.data.filters.language import language_of
from tulu_recipes.data.layouts import turns

SAMPLE_ROWS = 1000


def count_languages(folder: Path, target: str) -> dict[str, int]:
    """Language code (ISO 639, or "unknown") → rows, of SAMPLE_ROWS rows of the parquet files in a folder."""
    shards = sorted(folder.glob("*.parquet"))
    ends = np.cumsum([pq.read_metadata(path).num_rows for path in shards])
    places = np.linspace(0, ends[-1] - 1, num=min(SAMPLE_ROWS, int(ends[-1])), dtype=np.int64)
    counts: Counter[str] = Counter()
    for number, path in enumerate(shards):
        start = int(ends[number - 1]) if number else 0
        here = places[(places >= start) & (places < ends[number])] - start
        if len(here):
            for row in pq.read_table(path).take(here).to_pylist():
                counts[language_of("\n".join(text for _, text in turns(row, target))) or "unknown"] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
