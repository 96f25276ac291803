"""Which items overlap which rows: every pair above the threshold, with its score; no cap, no chance.

Rows are worked on in chunks whose arrays fit the processor's cache. In each, the hash of every run of n tokens is
asked for in a bit table, then in the sorted hashes; what is found is compared byte by byte, so a hash that two runs
share finds nothing that is not there. Only rows with a probe of an item (`index`) are scored against it, and rows in
which the same features stand, as after the same instruction, are scored once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tulu_recipes.data.contamination.coverage import Floats, exceeds, expand, item_scores
from tulu_recipes.data.contamination.index import EvalIndex, IndexPart, same_spans
from tulu_recipes.data.contamination.tokens import (
    GRAM,
    TURN,
    Hashes,
    Ints,
    SpanHasher,
    TokenBatch,
    hash_tokens,
    tokenize,
)

CHUNK_CHARACTERS = 1 << 18
MAX_PAIRS = 1 << 21  # of rows and postings, in memory at once
MAX_SCORED = 10_000  # sets of features whose answers are remembered

_Scored = dict[bytes, tuple[Ints, Floats]]  # features of a row → items and their scores

MATCH_SCHEMA = pa.schema(
    [("row", pa.int64()), ("evaluation", pa.int32()), ("item", pa.int32()), ("score", pa.float64())]
)


def find_matches(index: EvalIndex, rows: Sequence[list[str]] | pa.ListArray) -> pa.Table:
    """Every item and row that overlap.

    Args:
        rows: for each row the texts of its user turns.
    Returns: a table with `MATCH_SCHEMA`, by row, evaluation and item. row: its number in `rows`; evaluation: its
        number in the index; item: its number in the evaluation; score: above the index's match_threshold, up to 1.
    """
    found = [_Matches.none()]
    scored: dict[str, _Scored] = {tokenization: {} for tokenization in index.parts}
    for first, turns in _chunks(rows):
        chunk = [_match_chunk(index, name, turns, scored[name]) for name in index.parts]
        found.append(_Matches.joined(chunk).in_order(first))
    everything = _Matches.joined(found)
    columns = (everything.row, everything.evaluation, everything.item, everything.score)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, MATCH_SCHEMA, strict=True)],
        schema=MATCH_SCHEMA,
    )


@dataclass(frozen=True)
class _Matches:
    row: Ints
    evaluation: Ints
    item: Ints
    score: Floats

    @classmethod
    def none(cls) -> "_Matches":
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, empty, np.zeros(0))

    @classmethod
    def joined(cls, several: Sequence["_Matches"]) -> "_Matches":
        return cls(*(np.concatenate([getattr(one, f.name) for one in several]) for f in fields(cls)))

    def in_order(self, first_row: int) -> "_Matches":
        order = np.lexsort((self.item, self.evaluation, self.row))
        return _Matches(self.row[order] + first_row, self.evaluation[order], self.item[order], self.score[order])


def _chunks(rows: Sequence[list[str]] | pa.ListArray) -> Iterator[tuple[int, list[list[str]]]]:
    """(number of the first row, turns of each row) with about CHUNK_CHARACTERS; a longer row is its own chunk."""
    step = 4096  # Arrow's values become Python's in pieces
    first, chunk, size = 0, [], 0
    for start in range(0, len(rows), step):
        piece = rows[start : start + step]
        for turns in piece.to_pylist() if isinstance(piece, (pa.Array, pa.ChunkedArray)) else piece:
            chunk.append([turn for turn in turns or [] if turn])
            size += sum(map(len, chunk[-1]))
            if size >= CHUNK_CHARACTERS:
                yield first, chunk
                first, chunk, size = first + len(chunk), [], 0
    if chunk:
        yield first, chunk


def _match_chunk(index: EvalIndex, tokenization: str, rows: list[list[str]], scored: _Scored) -> _Matches:
    part = index.parts[tokenization]
    chunk = _Chunk.of(rows, tokenization)
    hits = _Hits(part, chunk)
    hits.look_up(*chunk.grams(index.n), GRAM)
    hits.look_up(*chunk.turns(_turn_lengths(part)), TURN)
    for length in part.probe_phrase_lengths.tolist():
        hits.look_up(*chunk.grams(length), GRAM)
    among = hits.rows_with_probes()
    for length in np.setdiff1d(part.phrase_lengths, part.probe_phrase_lengths).tolist() if len(among) else ():
        hits.look_up(*chunk.grams(length, among), GRAM)
    row, item, score = hits.matches(among, index.match_threshold, scored)
    if len(scored) > MAX_SCORED:
        scored.clear()
    return _Matches(row, part.item_evaluation[item], part.item_number[item], score)


def _turn_lengths(part: IndexPart) -> Ints:
    lengths: Ints = np.unique(part.feature_length[part.feature_kind == TURN])
    return lengths


@dataclass(frozen=True)
class _Chunk:
    """batch: tokens of all turns. row_of_turn: (turns,). token_row, token_end: row of each token, end of its turn."""

    batch: TokenBatch
    hasher: SpanHasher
    row_of_turn: Ints
    token_row: Ints
    token_end: Ints

    @classmethod
    def of(cls, rows: list[list[str]], tokenization: str) -> "_Chunk":
        batch = tokenize([turn for turns in rows for turn in turns], tokenization)
        row_of_turn = np.repeat(np.arange(len(rows)), np.fromiter(map(len, rows), np.int64, len(rows)))
        lengths = np.diff(batch.first)
        hasher = SpanHasher(hash_tokens(batch))
        return cls(batch, hasher, row_of_turn, np.repeat(row_of_turn, lengths), np.repeat(batch.first[1:], lengths))

    def grams(self, length: int, among: Ints | None = None) -> tuple[Ints, Ints, Hashes]:
        """(starts, lengths, hashes) of every run of `length` tokens within a turn, in the given rows only."""
        hashes = self.hasher.grams(length)
        within = np.arange(length, length + len(hashes)) <= self.token_end[: len(hashes)]
        if among is not None:
            within &= np.isin(self.token_row[: len(hashes)], among)
        starts = np.flatnonzero(within)
        return starts, np.full(len(starts), length), hashes[starts]

    def turns(self, lengths: Ints) -> tuple[Ints, Ints, Hashes]:
        """(starts, lengths, hashes) of the turns that have one of these lengths."""
        sizes = np.diff(self.batch.first)
        chosen = np.isin(sizes, lengths)
        starts, sizes = self.batch.first[:-1][chosen], sizes[chosen]
        return starts, sizes, self.hasher.spans(starts, sizes, TURN)


class _Hits:
    """What of the index stands in a chunk: (row, feature), each pair once."""

    def __init__(self, part: IndexPart, chunk: _Chunk) -> None:
        self.part, self.chunk = part, chunk
        self.pairs = np.zeros(0, np.int64)  # row * features + feature, sorted

    def look_up(self, starts: Ints, lengths: Ints, hashes: Hashes, kind: int) -> None:
        """Add the features among these runs of tokens."""
        maybe = np.flatnonzero(_in_table(self.part.table, hashes))
        left = np.searchsorted(self.part.hashes, hashes[maybe])
        there = left < len(self.part.hashes)
        maybe, left = maybe[there], left[there]
        there = self.part.hashes[left] == hashes[maybe]
        maybe, left = maybe[there], left[there]
        if not len(maybe):
            return
        twins = np.searchsorted(self.part.hashes, hashes[maybe], side="right") - left  # nearly always 1
        span, place = expand(twins)
        maybe, feature = maybe[span], left[span] + place
        real = self._same(starts[maybe], lengths[maybe], feature, kind)
        row = self.chunk.token_row[starts[maybe[real]]]
        found = row * len(self.part.hashes) + feature[real]
        self.pairs = np.unique(np.concatenate([self.pairs, found]))

    def _same(self, starts: Ints, lengths: Ints, feature: Ints, kind: int) -> npt.NDArray[np.bool_]:
        part = self.part
        alike: npt.NDArray[np.bool_] = part.feature_length[feature] == lengths
        alike &= part.feature_kind[feature] == kind
        return alike & same_spans(self.chunk.batch, starts, part, part.feature_start[feature], lengths)

    def rows_with_probes(self) -> Ints:
        """Sorted: all others cannot match anything."""
        row, feature = np.divmod(self.pairs, max(len(self.part.hashes), 1))
        return np.unique(row[self.part.probe_offsets[feature + 1] > self.part.probe_offsets[feature]])

    def matches(self, among: Ints, threshold: float, scored: _Scored) -> tuple[Ints, Ints, Floats]:
        """(rows, items, scores) above the threshold; `scored` holds the answer for sets of features, and learns."""
        row, feature = np.divmod(self.pairs, max(len(self.part.hashes), 1))
        begins, ends = np.searchsorted(row, among), np.searchsorted(row, among, side="right")
        keys = [feature[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True)]
        new = {key: int(row) for key, row in zip(keys, among, strict=True) if key not in scored}  # one row for each
        its_row, item = self.candidates(np.isin(row, list(new.values())))
        score = self.scores(its_row, item)
        above = exceeds(score, threshold)
        its_row, item, score = its_row[above], item[above], score[above]
        for key, row_number in new.items():
            begin, end = np.searchsorted(its_row, (row_number, row_number + 1))
            scored[key] = (item[begin:end], score[begin:end])
        answers = [scored[key] for key in keys]
        sizes = np.fromiter((len(items) for items, _ in answers), np.int64, len(answers))
        items = np.concatenate([np.zeros(0, np.int64), *(items for items, _ in answers)])
        return np.repeat(among, sizes), items, np.concatenate([np.zeros(0), *(scores for _, scores in answers)])

    def candidates(self, chosen: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """(rows, items) that share a probe among the chosen hits, each pair once, by row and item."""
        row, feature = np.divmod(self.pairs[chosen], max(len(self.part.hashes), 1))
        counts = self.part.probe_offsets[feature + 1] - self.part.probe_offsets[feature]
        num_items = len(self.part.item_evaluation)
        found = [np.zeros(0, np.int64)]
        for begin, end in _blocks(counts):
            hit, place = expand(counts[begin:end])
            item = self.part.probe_items[self.part.probe_offsets[feature[begin:end]][hit] + place]
            found.append(np.unique(row[begin:end][hit] * num_items + item))
        return np.divmod(np.unique(np.concatenate(found)), max(num_items, 1))

    def scores(self, row: Ints, item: Ints) -> Floats:
        """(pairs,) score of each item on each row, from all its features."""
        counts = self.part.item_postings[item + 1] - self.part.item_postings[item]
        parts = [self._scores(row[begin:end], item[begin:end]) for begin, end in _blocks(counts)]
        return np.concatenate([np.zeros(0), *parts])

    def _scores(self, row: Ints, item: Ints) -> Floats:
        part = self.part
        pair, place = expand(part.item_postings[item + 1] - part.item_postings[item])
        posting = part.item_postings[item][pair] + place
        feature = part.posting_feature[posting]
        key = row[pair] * len(part.hashes) + feature
        at = np.minimum(np.searchsorted(self.pairs, key), max(len(self.pairs) - 1, 0))
        there = self.pairs[at] == key
        pair, posting, feature = pair[there], posting[there], feature[there]
        units = part.item_units[item + 1] - part.item_units[item]
        unit_pair, unit_place = expand(units)
        before = np.cumsum(units) - units
        unit = before[pair] + part.posting_unit[posting] - part.item_units[item[pair]]
        return item_scores(
            unit,
            part.posting_start[posting],
            part.feature_length[feature],
            part.unit_length[part.item_units[item][unit_pair] + unit_place],
            unit_pair,
            len(row),
        )


def _in_table(table: npt.NDArray[np.uint8], hashes: Hashes) -> npt.NDArray[np.bool_]:
    address = (hashes & np.uint64(len(table) * 8 - 1)).view(np.int64)
    found: npt.NDArray[np.bool_] = (table[address >> 3] >> (address & 7).astype(np.uint8)) & 1 != 0
    return found


def _blocks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Ranges whose counts add up to at most MAX_PAIRS, or that hold one entry."""
    total = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, done + MAX_PAIRS, side="right")), begin + 1)
        yield begin, end
        begin = end
