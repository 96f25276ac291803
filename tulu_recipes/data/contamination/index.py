"""The evaluations as arrays: what stands where in which item, found by the hash of a run of tokens.

A *unit* is what is compared as one: a field of at least n tokens, a shorter field beside a longer one (a phrase), or
an item of short fields alone (a whole turn). A *feature* is a run of tokens that is looked for in training rows: each
n-gram of a field, a phrase, or a turn. A *posting* says that a feature stands in a unit at a token.

Most rows share nothing with an item but what all items share ("Answer the following question …"). So each item
names *probes*: its rarer features, such that all the others together could not lift it above the threshold. A row
without a probe of an item cannot match it, and is never compared; that is exact, and keeps boilerplate cheap.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.contamination.coverage import exceeds, expand, item_scores
from tulu_recipes.data.contamination.tokens import (
    GRAM,
    TOKENIZATIONS,
    TURN,
    Bytes,
    Hashes,
    Ints,
    SpanHasher,
    TokenBatch,
    hash_tokens,
    tokenize,
)

NEVER_PROBE = 1 << 62
BLOCK = 1 << 14  # spans compared at once, so that their bytes stay in the cache
BITS_PER_FEATURE = 32  # of the table that is asked before the sorted hashes: about 3 % of what is not there passes


@dataclass(frozen=True)
class EvaluationItems:
    """The items of one evaluation: each a tuple of field texts."""

    name: str
    items: Sequence[tuple[str, ...]]
    tokenization: str = "as_released"


@dataclass(frozen=True)
class IndexPart:
    """All evaluations of one tokenisation. U features, P postings, V units, I items (with a token)."""

    data: Bytes  # tokens of all items, back to back
    offsets: Ints  # (tokens + 1,) into data
    hashes: Hashes  # (U,) sorted
    feature_start: Ints  # (U,) token at which the feature can be read
    feature_length: Ints  # (U,) in tokens
    feature_kind: Ints  # (U,) GRAM or TURN
    table: Bytes  # bit set: some hash ends on these bits
    probe_offsets: Ints  # (U + 1,) into probe_items
    probe_items: Ints
    posting_feature: Ints  # (P,) by unit, then by place
    posting_start: Ints  # (P,) token
    posting_unit: Ints  # (P,)
    item_postings: Ints  # (I + 1,) into postings
    unit_length: Ints  # (V,) in tokens
    item_units: Ints  # (I + 1,) into units
    item_evaluation: Ints  # (I,)
    item_number: Ints  # (I,) number of the item in its evaluation
    phrase_lengths: Ints  # lengths of phrases
    probe_phrase_lengths: Ints  # those of phrases that are probes


@dataclass(frozen=True)
class EvalIndex:
    """n: tokens of an n-gram. parts: by tokenisation. empty: for each evaluation, items without a token.

    Picklable and read-only; `load` maps the arrays, so that processes on one machine share them.
    """

    n: int
    match_threshold: float
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    empty: tuple[int, ...]
    parts: dict[str, IndexPart]

    @classmethod
    def build(cls, evaluations: Sequence[EvaluationItems], n: int = 8, match_threshold: float = 0.5) -> "EvalIndex":
        """Index the items of all evaluations."""
        parts, empty = {}, [0] * len(evaluations)
        for tokenization in TOKENIZATIONS:
            chosen = [(i, e) for i, e in enumerate(evaluations) if e.tokenization == tokenization]
            if chosen:
                parts[tokenization] = _Builder(chosen, tokenization, n, match_threshold).build(empty)
        sizes = tuple(len(evaluation.items) for evaluation in evaluations)
        return cls(n, match_threshold, tuple(e.name for e in evaluations), sizes, tuple(empty), parts)

    @property
    def compared(self) -> dict[str, int]:
        """Items that have a token, for each evaluation: what shares are shares of."""
        return {name: size - empty for name, size, empty in zip(self.names, self.sizes, self.empty, strict=True)}

    def save(self, folder: Path) -> None:
        """Write the index into a folder: index.json and an .npy file for each array."""
        folder.mkdir(parents=True, exist_ok=True)
        for tokenization, part in self.parts.items():
            for field in fields(IndexPart):
                np.save(folder / f"{tokenization}.{field.name}.npy", getattr(part, field.name))
        about = {"n": self.n, "match_threshold": self.match_threshold, "parts": list(self.parts)}
        about |= {"names": self.names, "sizes": self.sizes, "empty": self.empty}
        (folder / "index.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "EvalIndex":
        """Read what `save` wrote; arrays are mapped, not copied."""
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        parts = {
            name: IndexPart(**{f.name: _mapped(folder, name, f.name) for f in fields(IndexPart)})
            for name in about["parts"]
        }
        names, sizes, empty = (tuple(about[key]) for key in ("names", "sizes", "empty"))
        return cls(about["n"], about["match_threshold"], names, sizes, empty, parts)


def _mapped(folder: Path, part: str, name: str) -> Any:
    path = folder / f"{part}.{name}.npy"
    array = np.load(path, mmap_mode="r")
    return np.asarray(array) if array.size else array  # a plain view of the mapped file: less work at each indexing


class _Builder:
    """Builds one part."""

    def __init__(
        self, evaluations: Sequence[tuple[int, EvaluationItems]], tokenization: str, n: int, threshold: float
    ) -> None:
        self.evaluations, self.n, self.threshold = evaluations, n, threshold
        texts = [field for _, evaluation in evaluations for item in evaluation.items for field in item]
        self.batch = tokenize(texts, tokenization)
        self.hasher = SpanHasher(hash_tokens(self.batch))

    def build(self, empty: list[int]) -> IndexPart:
        """`empty` is filled in for the evaluations of this part."""
        self._units(empty)
        self._postings()
        first_of_feature = self._features()
        probe = self._probes()
        num_items = max(len(self.item_evaluation), 1)
        pairs = np.unique(self.posting_feature[probe] * num_items + self.unit_item[self.posting_unit[probe]])
        probe_feature, probe_items = np.divmod(pairs, num_items)
        phrases = (self.posting_length < self.n) & (self.posting_kind == GRAM)
        return IndexPart(
            data=self.batch.data,
            offsets=self.batch.offsets,
            hashes=self.hashes,
            feature_start=self.posting_start[first_of_feature],
            feature_length=self.posting_length[first_of_feature],
            feature_kind=self.posting_kind[first_of_feature],
            table=_bit_table(self.hashes),
            probe_offsets=np.searchsorted(probe_feature, np.arange(len(self.hashes) + 1)),
            probe_items=probe_items,
            posting_feature=self.posting_feature,
            posting_start=self.posting_start,
            posting_unit=self.posting_unit,
            item_postings=self.item_postings,
            unit_length=self.unit_length,
            item_units=self.item_units,
            item_evaluation=self.item_evaluation,
            item_number=self.item_number,
            phrase_lengths=np.unique(self.posting_length[phrases]),
            probe_phrase_lengths=np.unique(self.posting_length[phrases & probe]),
        )

    def _units(self, empty: list[int]) -> None:
        """Fields with tokens; the fields of an item become one unit where all are shorter than n."""
        counts = np.array([len(item) for _, e in self.evaluations for item in e.items], np.int64)
        item_of_field = np.repeat(np.arange(len(counts)), counts)
        lengths = np.diff(self.batch.first)
        longest = np.zeros(len(counts), np.int64)
        np.maximum.at(longest, item_of_field, lengths)
        short = (longest < self.n)[item_of_field]
        start, item = self.batch.first[:-1], item_of_field
        leads = np.ones(len(item), bool)
        leads[1:] = item[1:] != item[:-1]
        total = np.bincount(item, weights=lengths, minlength=len(counts)).astype(np.int64)
        length = np.where(short, total[item], lengths)  # fields follow one another, so the whole item is one run
        kept = (length > 0) & (~short | leads)
        self.unit_start, self.unit_length = start[kept], length[kept]
        self.unit_kind = np.where(short[kept], TURN, GRAM)
        present, self.unit_item = np.unique(item[kept], return_inverse=True)
        evaluation = np.repeat([i for i, _ in self.evaluations], [len(e.items) for _, e in self.evaluations])
        number = np.concatenate([np.arange(len(e.items)) for _, e in self.evaluations])
        for i, _ in self.evaluations:
            empty[i] = int((evaluation == i).sum() - (evaluation[present] == i).sum())
        self.item_evaluation = evaluation[present].astype(np.int64)
        self.item_number = number[present].astype(np.int64)
        self.item_units = np.searchsorted(self.unit_item, np.arange(len(present) + 1))

    def _postings(self) -> None:
        grams = (self.unit_kind == GRAM) & (self.unit_length >= self.n)
        per_unit = np.where(grams, self.unit_length - self.n + 1, 1)
        self.posting_unit, place = expand(per_unit)
        self.posting_start = self.unit_start[self.posting_unit] + place
        self.posting_length = np.where(grams, self.n, self.unit_length)[self.posting_unit]
        self.posting_kind = self.unit_kind[self.posting_unit]
        ends = np.concatenate([[0], np.cumsum(per_unit)])
        self.item_postings = ends[self.item_units]

    def _features(self) -> Ints:
        """Number equal runs of tokens alike, by hash; returns for each feature a posting that shows it."""
        hashes = np.empty(len(self.posting_start), np.uint64)
        for kind in (GRAM, TURN):
            chosen = self.posting_kind == kind
            hashes[chosen] = self.hasher.spans(self.posting_start[chosen], self.posting_length[chosen], kind)
        order = np.argsort(hashes, kind="stable")
        in_order = hashes[order]
        new = np.ones(len(order), bool)
        new[1:] = in_order[1:] != in_order[:-1]
        shown = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
        again = np.flatnonzero(~new)
        same = self._same_tokens(order[again], order[shown[again]])
        for place in np.unique(shown[again[~same]]):  # different runs with one hash: told apart one by one
            end = place + np.argmax(np.append(new[place + 1 :], True)) + 1
            order[place:end], new[place:end] = self._tell_apart(order[place:end])
        self.posting_feature = np.empty(len(order), np.int64)
        self.posting_feature[order] = np.cumsum(new) - 1
        self.hashes = in_order[new]
        shown_by: Ints = order[new]
        return shown_by

    def _same_tokens(self, postings: Ints, others: Ints) -> npt.NDArray[np.bool_]:
        starts, lengths = self.posting_start, self.posting_length[postings]
        same: npt.NDArray[np.bool_] = self._shape(postings) == self._shape(others)
        return same & same_spans(self.batch, starts[postings], self.batch, starts[others], lengths)

    def _shape(self, postings: Ints) -> Ints:
        shape: Ints = self.posting_length[postings] * 2 + self.posting_kind[postings]
        return shape

    def _tell_apart(self, postings: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        def text(posting: int) -> tuple[int, tuple[bytes, ...]]:
            start = self.posting_start[posting]
            bounds = self.batch.offsets[start : start + self.posting_length[posting] + 1]
            data = self.batch.data
            pieces = tuple(data[a:b].tobytes() for a, b in pairwise(bounds.tolist()))
            return int(self.posting_kind[posting]), pieces

        ordered = sorted(postings.tolist(), key=text)
        new = [i == 0 or text(posting) != text(ordered[i - 1]) for i, posting in enumerate(ordered)]
        return np.array(ordered), np.array(new)

    def _probes(self) -> npt.NDArray[np.bool_]:
        """(P,) the postings whose features an item is looked for by.

        For each item the commonest features are left out, down to a frequency at which they would cover too much.
        """
        frequency = np.bincount(self.posting_feature, minlength=len(self.hashes))[self.posting_feature]
        units = np.diff(self.item_units)
        phrase = (self.posting_length < self.n) & (self.posting_kind == GRAM)
        phrase_units = np.bincount(self.unit_item[self.posting_unit[phrase]], minlength=len(units))
        item = self.unit_item[self.posting_unit]
        # phrases are short and common: they are probes only where they could carry an item alone
        frequency[phrase & ~exceeds(phrase_units / units, self.threshold)[item]] = NEVER_PROBE
        cut = np.full(len(units), NEVER_PROBE)  # features at least as frequent are no probes
        bound = 1 << int(frequency[frequency < NEVER_PROBE].max(initial=1)).bit_length()
        while bound >= 1:
            left_out = frequency >= np.minimum(cut, bound)[item]
            score = self._bound(left_out)
            cut = np.where(exceeds(score, self.threshold), cut, np.minimum(cut, bound))
            bound //= 2
        return frequency < cut[item]

    def _bound(self, found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return item_scores(
            self.posting_unit[found],
            self.posting_start[found],
            self.posting_length[found],
            self.unit_length,
            self.unit_item,
            len(self.item_evaluation),
        )


def same_spans(
    one: TokenBatch | IndexPart, starts: Ints, other: TokenBatch | IndexPart, other_starts: Ints, lengths: Ints
) -> npt.NDArray[np.bool_]:
    """Whether tokens[start : start + length] of one batch are, token for token, those of the other."""
    blocks = [
        _same_spans(one, starts[i : i + BLOCK], other, other_starts[i : i + BLOCK], lengths[i : i + BLOCK])
        for i in range(0, len(starts), BLOCK)
    ]
    return np.concatenate([np.zeros(0, bool), *blocks])


def _same_spans(
    one: TokenBatch | IndexPart, starts: Ints, other: TokenBatch | IndexPart, other_starts: Ints, lengths: Ints
) -> npt.NDArray[np.bool_]:
    # a shape that differs (another hash twin) may reach over the end of the other batch
    fits = other_starts + lengths < len(other.offsets)
    other_starts = np.where(fits, other_starts, 0)
    lengths = np.where(fits, lengths, 0)
    span, place = expand(lengths)
    a, b = starts[span] + place, other_starts[span] + place
    sizes = one.offsets[a + 1] - one.offsets[a]
    differs = sizes != other.offsets[b + 1] - other.offsets[b]
    same = fits & (np.bincount(span[differs], minlength=len(starts)) == 0)
    chosen = np.flatnonzero(same)
    first, other_first = one.offsets[starts[chosen]], other.offsets[other_starts[chosen]]
    span, place = expand(one.offsets[starts[chosen] + lengths[chosen]] - first)
    wrong = one.data[first[span] + place] != other.data[other_first[span] + place]
    same[chosen[span[wrong]]] = False
    result: npt.NDArray[np.bool_] = same
    return result


def _bit_table(hashes: Hashes) -> Bytes:
    bits = 1 << max(int(len(hashes) * BITS_PER_FEATURE).bit_length(), 6)
    address = hashes & np.uint64(bits - 1)
    table = np.zeros(bits // 8, np.uint8)
    np.bitwise_or.at(table, address >> np.uint64(3), np.left_shift(1, address & np.uint64(7)).astype(np.uint8))
    return table
