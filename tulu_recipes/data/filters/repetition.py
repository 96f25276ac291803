"""Texts that go round in circles, as sampled answers sometimes do.

The rule is our own. A word is repeated when it lies in an n-gram that stood earlier in the same turn. A turn of at
least `min_words` words in which more than `max_fraction` of the words are repeated drops its row. Case does not count.
A loop of any period is found once it has gone round often enough; a refrain or a table header is not, at the defaults.
"""

from typing import Any

from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer, picked, side
from tulu_recipes.data.filters.words import words_of


def repeated_fraction(words: list[str], ngram: int) -> float:
    """Fraction (0-1) of the words that lie in an n-gram which stood earlier; 0 for texts shorter than an n-gram."""
    if len(words) < ngram:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated, covered_to = 0, 0
    for start, gram in enumerate(zip(*(words[i:] for i in range(ngram)), strict=False)):
        if gram in seen:
            end = start + ngram
            repeated += end - max(start, covered_to)
            covered_to = end
        else:
            seen.add(gram)
    return repeated / len(words)


def _repetition(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    ngram, limit, fewest = params["ngram"], params["max_fraction"], params["min_words"]

    def varied(row: dict[str, Any]) -> str | None:
        for texts in picked(row, target, params["of"]):
            for text in texts:
                words = words_of(text.casefold())
                if len(words) >= fewest and repeated_fraction(words, ngram) > limit:
                    return "repeats itself"
        return None

    return varied


def _some_ngram(params: dict[str, Any], _target: str) -> list[str]:
    return [] if params["ngram"] else ["ngram is 0. Write how many words make an n-gram, such as 8."]


KINDS = (
    FilterKind(
        "repetition",
        "rows with a turn that repeats itself go",
        {
            "ngram": Parameter("count", "words in an n-gram", 8),
            "max_fraction": Parameter("fraction", "largest fraction of repeated words that stays", 0.5),
            "min_words": Parameter("count", "turns with fewer words always stay", 32),
            "of": side("assistant"),
        },
        _repetition,
        check=_some_ngram,
    ),
)
