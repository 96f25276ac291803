"""Sampling and order by content: hand-made rules against slow loops, and what they must not depend on."""

from itertools import pairwise

import numpy as np
import pytest

from tulu_recipes.data.mixing.keys import content_digest, copies_for, digest_halves, keyed, order_of_copies

DIGESTS = [content_digest({"text": f"row {number}"}) for number in range(500)]
HALVES = digest_halves(DIGESTS)


def test_a_digest_is_of_the_content_whatever_the_order_of_columns() -> None:
    assert content_digest({"a": 1, "b": "é"}) == content_digest({"b": "é", "a": 1})
    assert content_digest({"a": 1}) != content_digest({"a": 2})
    # blake2b of the canonical JSON, written out: another release must find the same rows
    import hashlib

    assert content_digest({"b": "é", "a": 1}) == hashlib.blake2b('{"a":1,"b":"é"}'.encode(), digest_size=16).digest()


def splitmix(value: int) -> int:
    """The published finaliser, in plain integers."""
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_keys_are_splitmix_of_digest_and_words() -> None:
    import hashlib
    import json

    salt = hashlib.blake2b(json.dumps(["order", 42]).encode(), digest_size=16).digest()
    low, high = int.from_bytes(salt[:8], "little"), int.from_bytes(salt[8:], "little")
    for digest, key in zip(DIGESTS[:20], keyed(HALVES[:20], "order", 42).tolist(), strict=True):
        first, second = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        assert key == splitmix(splitmix(first ^ low) ^ second ^ high)


def test_other_words_give_unrelated_keys_that_are_spread_evenly() -> None:
    one, other = keyed(HALVES, "sample", 42, "a"), keyed(HALVES, "sample", 43, "a")
    assert len(set(one.tolist()) | set(other.tolist())) == 1000
    agree = np.mean((one < 2**63) == (other < 2**63))
    assert 0.4 < agree < 0.6
    assert 0.4 < np.mean(one < 2**63) < 0.6


@pytest.mark.parametrize(
    ("amount", "count", "total"),
    [
        ({}, 10, 10),
        ({"rows": 3}, 10, 3),
        ({"fraction_of_source": 0.25}, 10, 3),  # 2.5, halves up
        ({"fraction_of_source": 1.0}, 7, 7),
        ({"repeat": 3.5}, 10, 35),
        ({"repeat": 10.0}, 24, 240),
        ({"repeat": 0.5}, 3, 2),
        ({"repeat": 2.0}, 0, 0),
    ],
)
def test_an_amount_takes_the_smallest_keys_first(amount: dict[str, float], count: int, total: int) -> None:
    keys = keyed(HALVES[:count], "sample")
    copies = copies_for(keys, amount)
    assert copies.sum() == total
    if count and amount:
        whole, rest = divmod(total, count)
        smallest = sorted(range(count), key=lambda row: keys[row])[:rest]
        assert copies.tolist() == [whole + (row in smallest) for row in range(count)]


def test_more_rows_than_there_are_are_an_error() -> None:
    with pytest.raises(ValueError, match="11 rows of 10"):
        copies_for(keyed(HALVES[:10], "sample"), {"rows": 11})


def test_a_sample_is_the_same_rows_in_whatever_order_they_come() -> None:
    keys = keyed(HALVES, "sample")
    shuffled = np.random.default_rng(0).permutation(len(keys))
    taken = set(np.flatnonzero(copies_for(keys, {"rows": 37})).tolist())
    again = set(shuffled[np.flatnonzero(copies_for(keys[shuffled], {"rows": 37}))].tolist())
    assert taken == again


def test_copies_of_a_row_stand_far_apart() -> None:
    keys = np.repeat(keyed(HALVES[:1], "order"), 5)
    places = np.sort(order_of_copies(keys, np.arange(5))).astype(object)
    gaps = [int(b) - int(a) for a, b in pairwise(places)]
    assert order_of_copies(keys[:1], np.zeros(1, dtype=np.int64)) == keys[0]
    assert min(gaps) > 2**64 / 5 / 3  # golden ratio: no two closer than a third of an even spread
