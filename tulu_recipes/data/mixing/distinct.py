"""Duplicate filters as the passes need them: keys of a part's rows, and which of all rows stay."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.filters.duplicates import (
    bands_for,
    exact_key,
    keep_first,
    keep_one_per_cluster,
    minhash_bands,
    text_for_duplicates,
)
from tulu_recipes.data.mixing.keys import digest_halves

Numbers = npt.NDArray[Any]


def duplicate_keys(
    name: str, params: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], target: str, seed: int
) -> Numbers:
    """What a filter compares: (N, 2) halves of the exact key, or (N, bands) hashes of MinHash bands."""
    on = params.get("on", "row")
    if name == "exact_duplicates":
        return digest_halves([exact_key(row, target, on) for row in rows])
    bands, rows_per_band = bands_for(params.get("threshold", 0.8), params.get("num_perm", 128))
    texts = [text_for_duplicates(row, target, on) for row in rows]
    return minhash_bands(texts, ngram=params.get("ngram", 5), bands=bands, rows_per_band=rows_per_band, seed=seed)


def keep_distinct(name: str, keys: Numbers, rank: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Of rows that are the same (name: of the filter), the one of smallest rank; arrays of N."""
    return keep_first(keys, rank) if name == "exact_duplicates" else keep_one_per_cluster(keys, rank)
