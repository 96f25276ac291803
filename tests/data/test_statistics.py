"""Statistics of a mix: numbers computed by hand, and their independence of the order of the rows."""

import json

import numpy as np
import pytest

from tulu_recipes.data.statistics import MOST_LABELS, histogram_edges, mix_statistics

SOURCE = np.array([0, 1, 0, 0, 1])
LABELS = ["math", "chat"]
TOKENS = np.array([10, 40, 20, 7, 23])
CHARACTERS = np.array([100, 400, 200, 70, 230])
TURNS = np.array([2, 4, 2, 3, 2])
LANGUAGES = np.array(["en", "de", "en", None, "en"], dtype=object)


def test_the_numbers_are_those_computed_by_hand() -> None:
    statistics = mix_statistics(SOURCE, LABELS, TOKENS, CHARACTERS, TURNS, LANGUAGES)
    assert statistics["unit"] == "tokens"
    assert statistics["total"] == {
        "rows": 5,
        "row_share": 1.0,
        "tokens": {"sum": 100, "mean": 20.0, "median": 20.0, "p95": 40, "max": 40},
        "characters": {"sum": 1000, "mean": 200.0, "median": 200.0, "p95": 400, "max": 400},
        "length_share": 1.0,
        "turns": {"mean": 2.6, "counts": {"2": 3, "3": 1, "4": 1}},
        "languages": {"en": 3, "de": 1, "unknown": 1},
    }
    assert list(statistics["labels"]) == ["math", "chat"]  # 3 rows before 2
    assert statistics["labels"]["math"] == {
        "rows": 3,
        "row_share": 0.6,
        "tokens": {"sum": 37, "mean": 12.3333, "median": 10.0, "p95": 20, "max": 20},
        "characters": {"sum": 370, "mean": 123.3333, "median": 100.0, "p95": 200, "max": 200},
        "length_share": 0.37,
        "turns": {"mean": 2.3333, "counts": {"2": 2, "3": 1}},
        "languages": {"en": 2, "unknown": 1},
    }
    assert statistics["labels"]["chat"]["tokens"]["median"] == 31.5
    assert statistics["length_histogram"] == {
        "unit": "tokens",
        "edges": [0, 8, 11, 16, 23, 32, 45],
        "total": [1, 1, 0, 1, 1, 1],  # 7 | 10 | – | 20 | 23 | 40
        "labels": {"math": [1, 1, 0, 1, 0, 0], "chat": [0, 0, 0, 0, 1, 1]},
    }
    assert statistics["other_labels"] is None
    assert json.loads(json.dumps(statistics)) == statistics


def test_the_95th_percentile_is_a_length_that_occurs() -> None:
    lengths = np.arange(1, 101)
    total = mix_statistics(np.zeros(100, dtype=int), ["a"], lengths, lengths, np.ones(100, dtype=int))["total"]
    assert (total["tokens"]["p95"], total["tokens"]["median"]) == (95, 50.5)


def test_without_a_tokenizer_characters_are_the_unit() -> None:
    statistics = mix_statistics(SOURCE, LABELS, None, CHARACTERS, TURNS)
    assert statistics["unit"] == statistics["length_histogram"]["unit"] == "characters"
    assert statistics["total"]["tokens"] is None
    assert statistics["total"]["languages"] is None
    assert statistics["labels"]["chat"]["length_share"] == 0.63
    assert sum(statistics["length_histogram"]["total"]) == 5


def test_the_order_of_rows_leaves_no_trace() -> None:
    random = np.random.default_rng(0)
    source, lengths, turns = random.integers(0, 7, 5000), random.integers(0, 2**40, 5000), random.integers(1, 9, 5000)
    labels = [f"s{i}" for i in range(7)]
    order = random.permutation(5000)
    first = mix_statistics(source, labels, lengths, lengths * 3, turns)
    second = mix_statistics(source[order], labels, lengths[order], lengths[order] * 3, turns[order])
    assert json.dumps(first) == json.dumps(second)
    assert first["total"]["characters"]["sum"] == sum(int(n) * 3 for n in lengths)  # int32 would have wrapped
    assert first["total"]["tokens"]["mean"] == round(sum(map(int, lengths)) / 5000, 4)


def test_a_label_without_rows_and_a_mix_without_rows_have_no_means() -> None:
    none = {"sum": 0, "mean": None, "median": None, "p95": None, "max": None}
    statistics = mix_statistics(SOURCE * 0, LABELS, TOKENS, CHARACTERS, TURNS)
    assert statistics["labels"]["chat"]["tokens"] == none
    assert statistics["labels"]["chat"]["rows"] == 0
    nothing = np.array([], dtype=int)
    empty = mix_statistics(nothing, [], nothing, nothing, nothing)
    assert empty["total"]["tokens"] == none
    assert empty["total"]["row_share"] is None
    assert empty["labels"] == {}


def test_labels_from_the_rows_cannot_flood_the_lock() -> None:
    number = MOST_LABELS + 50
    source = np.concatenate([np.arange(number), [number - 1]])  # the last label is the largest
    ones = np.ones(number + 1, dtype=int)
    statistics = mix_statistics(source, [f"s{i:04}" for i in range(number)], ones, ones, ones)
    assert len(statistics["labels"]) == MOST_LABELS + 1
    assert statistics["other_labels"] == {"label": "(50 others)", "number": 50}
    assert statistics["labels"]["(50 others)"]["rows"] == 50
    assert statistics["labels"][f"s{number - 1:04}"]["rows"] == 2
    assert sum(part["rows"] for part in statistics["labels"].values()) == number + 1


@pytest.mark.parametrize("longest", [0, 7, 8, 1000, 2**20])
def test_every_length_has_a_bin(longest: int) -> None:
    edges = histogram_edges(longest)
    assert edges == sorted(set(edges))
    assert edges[-1] > longest
    assert len(edges) == 2 or edges[-2] <= longest
