"""Rows that say the same: exact duplicates by a key of the normalised text, near duplicates by MinHash.

Both need the rows of a whole source or mix, but only a few bytes of each: 16 for an exact key, 8 a band for near
duplicates. A row's rank, an integer that does not depend on where the row stood, decides which of a group stays.
"""

import hashlib
import itertools
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.filters.words import words_of
from tulu_recipes.data.layouts import turns

KEY_BYTES = 16
Keep = npt.NDArray[np.bool_]
SEED = 42
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64, as are the constants of `_mix`
REMEMBERED_WORDS = 500_000  # about 60 MB
AT_ONCE = 1000  # texts; their signatures pass through Python lists


def text_for_duplicates(row: Mapping[str, Any], target: str, on: str = "row") -> str:
    """Roles and contents of what is compared, a blank line between turns."""
    return "\n\n".join(f"{role}: {content}" for role, content in _compared(row, target, on))


def _compared(row: Mapping[str, Any], target: str, on: str) -> list[tuple[str, str]]:
    """on: "row" takes all turns, and the label of an RLVR row; "prompt" the user turns."""
    found = turns(row, target)
    if on == "prompt":
        return [turn for turn in found if turn[0] == "user"]
    return [*found, ("ground_truth", row["ground_truth"])] if target == "rlvr" else found


def normalise(text: str) -> str:
    """NFKC, case folded, every run of white space one blank, none at the ends.

    NFKC is taken again after folding, which can undo it.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def exact_key(row: Mapping[str, Any], target: str, on: str = "row") -> bytes:
    """16 bytes: blake2b of the roles and normalised contents, a line each; normalised text has no line breaks."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for role, content in _compared(row, target, on):
        digest.update(f"{role}\n{normalise(content)}\n".encode("utf-8", "surrogatepass"))
    return digest.digest()


def keep_first(keys: npt.NDArray[Any], rank: npt.NDArray[Any]) -> Keep:
    """Of rows with equal keys, the one of the smallest rank.

    Args:
        keys: (n,) of 16-byte void, or (n, 2) uint64.
        rank: (n,) integers; equal ranks fall to the earlier row.
    Returns:
        (n,) True for the rows that stay.
    """
    halves = keys.reshape(-1).view(np.uint64).reshape(-1, 2) if keys.dtype != np.uint64 else keys.reshape(-1, 2)
    order = np.lexsort((rank, halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    keep = np.empty(len(order), dtype=bool)
    keep[order] = first
    return keep


@lru_cache
def bands_for(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows per band) whose curve is steepest near the threshold.

    Two rows of Jaccard similarity s share a band with probability 1 − (1 − sʳ)ᵇ, an S-curve that passes one half
    near (1/b)^(1/r). Of all b·r ≤ num_perm this takes the pair that loses least: the area of false negatives above
    the threshold plus that of false positives below.
    """
    if not 0 < threshold <= 1 or num_perm < 1:
        raise ValueError(f"threshold {threshold} must be in (0, 1] and num_perm {num_perm} at least 1")
    similarity = np.linspace(0.0005, 0.9995, 1000)
    above = similarity >= threshold
    best = (np.inf, 1, num_perm)
    for rows in range(1, num_perm + 1):
        for bands in range(1, num_perm // rows + 1):
            shared = shared_band_probability(similarity, bands, rows)
            best = min(best, (float(np.where(above, 1 - shared, shared).mean()), bands, rows))
    return best[1], best[2]


def shared_band_probability(similarity: Any, bands: int, rows_per_band: int) -> Any:
    """Probability (0-1) that two rows of this Jaccard similarity share at least one band."""
    return 1 - (1 - np.asarray(similarity) ** rows_per_band) ** bands


class _WordHashes(dict[str, int]):
    """Word → 64 bits of blake2b, remembered for the first words met: a language has few that are frequent."""

    def __missing__(self, word: str) -> int:
        hashed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        if len(self) < REMEMBERED_WORDS:
            self[word] = hashed
        return hashed


_word_hashes = _WordHashes()


def shingle_hashes(texts: list[str], ngram: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Hashes of the word n-grams of normalised texts, all in one array, and where each text starts in it.

    A text with fewer words is one n-gram, filled up with empty words, so that it equals itself alone. An n-gram that
    occurs twice stands there twice: a minimum over hashes does not count.
    """
    words = [words_of(normalise(text)) for text in texts]
    words = [found if len(found) >= ngram else found + [""] * (ngram - len(found)) for found in words]
    counts = np.array([len(found) for found in words], dtype=np.int64)
    each = np.fromiter(map(_word_hashes.__getitem__, itertools.chain(*words)), dtype=np.uint64, count=counts.sum())
    grams = np.zeros(len(each) - ngram + 1, dtype=np.uint64)
    for place in range(ngram):
        grams = _mix(grams * GOLDEN + each[place : place + len(grams)])
    to_end = np.repeat(np.cumsum(counts), counts)[: len(grams)] - np.arange(len(grams))
    offsets = np.concatenate([[0], np.cumsum(counts - ngram + 1)]).astype(np.uint64)
    return grams[to_end >= ngram], offsets


def minhash_bands(
    texts: list[str], *, ngram: int = 5, bands: int, rows_per_band: int, seed: int = SEED
) -> npt.NDArray[np.uint64]:
    """Band hashes of texts: texts that share one in the same column are candidates for near duplicates.

    Returns:
        (len(texts), bands) uint64. The same for a text wherever and beside whatever it is computed.
    """
    from rensa import RMinHash

    num_perm = bands * rows_per_band
    found = np.empty((len(texts), bands), dtype=np.uint64)
    for start in range(0, len(texts), AT_ONCE):
        hashes, offsets = shingle_hashes(texts[start : start + AT_ONCE], ngram)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm, seed)
        signatures = np.array(matrix.to_rows(), dtype=np.uint64)
        found[start : start + AT_ONCE] = _hash_bands(signatures.reshape(-1, bands, rows_per_band))
    return found


def _hash_bands(signatures: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """(n, bands, rows) → (n, bands), by the mixing steps of splitmix64; the band's number keeps columns apart."""
    hashed = np.broadcast_to(np.arange(1, signatures.shape[1] + 1, dtype=np.uint64), signatures.shape[:2]).copy()
    for row in range(signatures.shape[2]):
        hashed = _mix(hashed * GOLDEN + signatures[:, :, row])
    return hashed


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def clusters(bands: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """(n,) number of the group of each row: rows that share a band, and rows joined through others, are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(bands)
    ones, others = [], []
    for column in range(bands.shape[1]):
        order = np.argsort(bands[:, column], kind="stable")
        same = bands[order[1:], column] == bands[order[:-1], column]
        ones.append(order[:-1][same].astype(np.int32))  # a chain through equal hashes joins them all
        others.append(order[1:][same].astype(np.int32))
    if not ones:
        return np.arange(count, dtype=np.int32)
    one, other = np.concatenate(ones), np.concatenate(others)
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def keep_one_per_cluster(bands: npt.NDArray[np.uint64], rank: npt.NDArray[Any]) -> Keep:
    """Of each group of near duplicates, the row of the smallest rank; equal ranks fall to the earlier row.

    Args:
        bands: (n, bands) of `minhash_bands`.
        rank: (n,) integers.
    Returns:
        (n,) True for the rows that stay.
    """
    labels = clusters(bands)
    order = np.lexsort((rank, labels))
    first = np.ones(len(order), dtype=bool)
    first[1:] = labels[order[1:]] != labels[order[:-1]]
    keep = np.empty(len(order), dtype=bool)
    keep[order] = first
    return keep
