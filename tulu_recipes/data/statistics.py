"""Numbers of a finished mix, from one value a row: rows, lengths, turns and languages, per label and in all.

Everything is counted, nothing sampled, and no number depends on the order of the rows: shares and means are rounded
to `DIGITS`, the rest are whole numbers. The 95th percentile is the smallest length that at least 95 % of the rows
do not exceed; the median of an even number of rows is the mean of the two in the middle.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

CHARACTERS_PER_TOKEN = 4  # of English text under current tokenizers, where none is named
DIGITS = 4  # decimals of shares and means
MOST_LABELS = 200  # the largest stand alone, the others are counted together: labels may come from the rows themselves
FIRST_EDGE = 8  # lengths below fall into one bin

Integers = npt.NDArray[np.integer[Any]]


def mix_statistics(
    source: Integers,
    labels: list[str],
    tokens: Integers | None,
    characters: Integers,
    turns: Integers,
    languages: npt.NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Statistics of a mix, ready for JSON.

    Args:
        source: (rows,) which of `labels` a row carries.
        tokens: (rows,) tokens a row; None without a tokenizer. Lengths and shares are then of characters.
        characters: (rows,) characters a row.
        turns: (rows,) messages a row.
        languages: (rows,) language codes; None where unknown.
    Returns:
        `unit` ("tokens" or "characters"); `total` and, largest first, `labels`, each with rows, row_share,
        tokens, characters (sum, mean, median, p95, max; None for no rows), length_share (of the unit), turns (mean,
        counts) and languages (counts); `other_labels`: how many labels beyond MOST_LABELS are counted together as
        `label` (None when none); `length_histogram` with edges (n + 1, bin i holds edges[i] <= length < edges[i + 1]),
        total and labels (n counts each).
    """
    unit = "characters" if tokens is None else "tokens"
    lengths = characters if tokens is None else tokens
    source, labels, others = _fold_labels(source, labels)
    edges = histogram_edges(int(lengths.max()) if len(lengths) else 0)
    columns = {"tokens": tokens, "characters": characters, "turns": turns, "languages": languages}
    whole = (len(source), int(lengths.sum(dtype=np.int64)))

    def describe(rows: Integers) -> dict[str, Any]:
        part = {name: None if values is None else values[rows] for name, values in columns.items()}
        return _describe(part, unit, whole)

    groups = _rows_of_labels(source, len(labels))
    order = sorted(range(len(labels)), key=lambda i: (-len(groups[i]), labels[i]))
    return {
        "unit": unit,
        "digits": DIGITS,
        "total": describe(np.arange(len(source))),
        "labels": {labels[i]: describe(groups[i]) for i in order},
        "other_labels": others,
        "length_histogram": {
            "unit": unit,
            "edges": edges,
            "total": _histogram(lengths, edges),
            "labels": {labels[i]: _histogram(lengths[groups[i]], edges) for i in order},
        },
    }


def histogram_edges(longest: int) -> list[int]:
    """Bin edges 0, 8, 11, 16, 23, 32 …, half an octave apart, until the last is beyond `longest`."""
    edges = [0, FIRST_EDGE]
    power = 2 * FIRST_EDGE.bit_length() - 2
    while edges[-1] <= longest:
        power += 1
        edges.append(round(2 ** (power / 2)))
    return edges


def _fold_labels(source: Integers, labels: list[str]) -> tuple[Integers, list[str], dict[str, Any] | None]:
    if len(labels) <= MOST_LABELS:
        return source, labels, None
    sizes = np.bincount(source, minlength=len(labels))
    kept = sorted(range(len(labels)), key=lambda i: (-sizes[i], labels[i]))[:MOST_LABELS]
    number = np.full(len(labels), MOST_LABELS)
    number[kept] = np.arange(MOST_LABELS)
    others = {"label": f"({len(labels) - MOST_LABELS:,} others)", "number": len(labels) - MOST_LABELS}
    return number[source], [*(labels[i] for i in kept), str(others["label"])], others


def _rows_of_labels(source: Integers, number: int) -> list[Integers]:
    order = np.argsort(source, kind="stable")
    starts = np.searchsorted(source[order], np.arange(1, number))
    return list(np.split(order, starts)) if number else []


def _describe(part: dict[str, Any], unit: str, whole: tuple[int, int]) -> dict[str, Any]:
    rows = len(part["characters"])
    length = int(part[unit].sum(dtype=np.int64))
    return {
        "rows": rows,
        "row_share": _share(rows, whole[0]),
        "tokens": None if part["tokens"] is None else _lengths(part["tokens"]),
        "characters": _lengths(part["characters"]),
        "length_share": _share(length, whole[1]),
        "turns": {"mean": _mean(part["turns"]), "counts": _counts(part["turns"])},
        "languages": None if part["languages"] is None else _counts(_codes(part["languages"])),
    }


def _lengths(values: Integers) -> dict[str, Any]:
    if not len(values):
        return {"sum": 0, "mean": None, "median": None, "p95": None, "max": None}
    return {
        "sum": int(values.sum(dtype=np.int64)),
        "mean": _mean(values),
        "median": round(float(np.median(values)), 1),
        "p95": int(np.percentile(values, 95, method="inverted_cdf")),
        "max": int(values.max()),
    }


def _mean(values: Integers) -> float | None:
    # Whole numbers are summed exactly, so the order of the rows leaves no trace.
    return round(int(values.sum(dtype=np.int64)) / len(values), DIGITS) if len(values) else None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, DIGITS) if whole else None


def _codes(languages: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array([str(code) if code else "unknown" for code in languages.tolist()], dtype=np.str_)


def _counts(values: npt.NDArray[Any]) -> dict[str, int]:
    """How often each value occurs: numbers ascending, codes by frequency."""
    found, counts = np.unique(values, return_counts=True)
    pairs = list(zip(found.tolist(), counts.tolist(), strict=True))
    if found.dtype.kind == "U":
        pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    return {str(value): count for value, count in pairs}


def _histogram(lengths: Integers, edges: list[int]) -> list[int]:
    bins = np.searchsorted(edges, lengths, side="right") - 1
    return [int(count) for count in np.bincount(bins, minlength=len(edges) - 1)]
