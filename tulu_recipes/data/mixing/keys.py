"""Where chance comes from in a mix: a row's content and the seed, nothing else.

Each row has a 128-bit digest of its content. Its sampling key and its order key are hashes of the digest and of
`seed`; a source's sampling key also of the source's name. So which rows are taken, and the order they are in, do not
depend on the order of rows within files, on how files are cut, or on the number of processes.

    amount      keeps the rows with the smallest sampling keys
    repeat 3.5  every row three times, and the half with the smallest sampling keys a fourth time
    order       ascending order keys; copy c of a row stands c golden-ratio steps further round the circle of keys
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

# 2^64 divided by the golden ratio, odd: successive copies of a row spread evenly over the mix
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def content_digest(row: Mapping[str, Any]) -> bytes:
    """16 bytes that are equal for rows of equal content."""
    text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digest_halves(digests: list[bytes]) -> Keys:
    """(N, 2) numbers of N digests; the same on machines of either byte order."""
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)


def keyed(halves: Keys, *words: object) -> Keys:
    """One 64-bit key a row, (N,), from its digest (N, 2) and the words that name what the key is for."""
    salt = hashlib.blake2b(json.dumps(words).encode(), digest_size=16).digest()
    low, high = np.frombuffer(salt, dtype="<u8").astype(np.uint64)
    return _scramble(_scramble(halves[:, 0] ^ low) ^ halves[:, 1] ^ high)


def copies_for(keys: Keys, amount: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """How often each row is taken, (N,).

    Args:
        amount: one of {"rows": n}, {"fraction_of_source": f}, {"repeat": r}; {} takes each once. A fraction and a
            repeat are rounded to whole rows, halves up.
    Raises:
        ValueError: more rows are asked for than there are.
    """
    count = len(keys)
    if not amount:
        return np.ones(count, dtype=np.int64)
    (kind, value), *_ = amount.items()
    wanted = int(value) if kind == "rows" else int(np.floor(value * count + 0.5))
    if kind == "rows" and wanted > count:
        raise ValueError(f"{wanted:,} rows of {count:,}")
    whole, rest = divmod(wanted, count) if count else (0, 0)
    copies = np.full(count, whole, dtype=np.int64)
    copies[np.argsort(keys, kind="stable")[:rest]] += 1
    return copies


def order_of_copies(order_keys: Keys, copy: npt.NDArray[np.int64]) -> Keys:
    """Order keys of the given copies of rows, both (N,); copy 0 keeps its key."""
    with np.errstate(over="ignore"):
        return order_keys + copy.astype(np.uint64) * _GOLDEN


def _scramble(values: Keys) -> Keys:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the result."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
