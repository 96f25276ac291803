"""Keywords and regular expressions. Text is compared in Unicode form NFC, so that é is é however it is spelt."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer, picked, side


def alternatives(words: Iterable[str], *, whole_words: bool) -> str:
    """A pattern for any of these words, longest first; whole words are bounded by anything but letters, digits, _."""
    spelt = sorted({unicodedata.normalize("NFC", word) for word in words}, key=lambda word: (-len(word), word))
    either = "|".join(map(re.escape, spelt))
    return rf"(?<!\w)(?:{either})(?!\w)" if whole_words else f"(?:{either})"


def without(pattern: re.Pattern[str], reason: str, target: str, of: str) -> RowFilter:
    """Drops a row when the pattern is found in any of the texts."""

    def clean(row: dict[str, Any]) -> str | None:
        for texts in picked(row, target, of):
            for text in texts:
                if pattern.search(unicodedata.normalize("NFC", text)):
                    return reason
        return None

    return clean


def _keywords(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    flags = re.IGNORECASE if params["ignore_case"] else re.NOFLAG
    pattern = re.compile(alternatives(params["words"], whole_words=params["whole_words"]), flags)
    return without(pattern, "keyword", target, params["of"])


def _regex(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    pattern = re.compile(unicodedata.normalize("NFC", params["pattern"]))
    return without(pattern, "pattern", target, params["of"])


def _some_words(params: dict[str, Any], _target: str) -> list[str]:
    return [] if params["words"] else ["words is empty, so no row would go. Write at least one word."]


KINDS = (
    FilterKind(
        "keywords",
        "rows that hold one of the words go",
        {
            "words": Parameter("texts", "words or phrases", needed=True),
            "of": side("all"),
            "ignore_case": Parameter("switch", "whether case does not count", True),
            "whole_words": Parameter("switch", "whether a word inside another does not count", True),
        },
        _keywords,
        check=_some_words,
    ),
    FilterKind(
        "regex",
        "rows in which the pattern is found go",
        {
            "pattern": Parameter(
                "pattern", "Python regular expression, searched for in each turn; (?i) ignores case", needed=True
            ),
            "of": side("all"),
        },
        _regex,
    ),
)
