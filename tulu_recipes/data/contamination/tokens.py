"""What a token is, by definition in Python, and the same for many texts at once as numpy arrays.

`as_released` splits at the pattern of the released analyser [OIh decontamination/index.py] after lower-casing. `words`
is ours: letters, digits and marks make a token, every number is `0`, so that a question keeps its tokens when its
numbers, casing or punctuation change.

Nearly all text is ASCII, where lower-casing and splitting are tables over bytes. Other texts are rewritten by Python
first, so that the tables find the tokens of the definition in them too. Hashes are sums of odd powers modulo 2**64: of
no strength, alike in every process, and never believed without a look at the bytes (`match`).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

RELEASED_PATTERN = r'[ ,.?!:;()"-]|\n|\\'
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
TOKENIZATIONS = ("as_released", "words")

HASH_BITS = 64  # tests make it small to force collisions
BYTE_BASE = 0x9E3779B97F4A7C15
TOKEN_BASE = 0xD6E8FEB86659FD93
GRAM, TURN = 0, 1  # kinds of spans: a run of tokens anywhere in a turn, or the whole turn
CACHED_POWERS = 1 << 20


def token_spans(text: str, tokenization: str) -> tuple[str, list[tuple[str, int, int]]]:
    """The definition: (text as it is shown, [(token, start, end)]) with positions in characters of the shown text."""
    if tokenization == "words":
        return _word_spans(unicodedata.normalize("NFKC", text))
    shown = unicodedata.normalize("NFC", text)
    lowered = shown.lower()
    if len(lowered) != len(shown):  # a capital whose small letter is two characters
        shown = lowered
    spans, start = [], 0
    for separator in [*re.finditer(RELEASED_PATTERN, lowered), None]:
        end = separator.start() if separator else len(lowered)
        if end > start:
            spans.append((lowered[start:end], start, end))
        start = separator.end() if separator else end
    return shown, spans


def tokens_of(text: str, tokenization: str) -> list[str]:
    """The tokens of one text. Slow and plain: what `tokenize` must agree with."""
    return [token for token, _, _ in token_spans(text, tokenization)[1]]


def _word_spans(shown: str) -> tuple[str, list[tuple[str, int, int]]]:
    inside = [unicodedata.category(character)[0] in "LMN" for character in shown]
    for number in NUMBER.finditer(shown):
        inside[number.start() : number.end()] = [True] * (number.end() - number.start())
    spans, start = [], None
    for position, is_word in enumerate([*inside, False]):
        if is_word and start is None:
            start = position
        elif not is_word and start is not None:
            spans.append((NUMBER.sub("0", shown[start:position]).casefold(), start, position))
            start = None
    return shown, spans


class _Spaces(dict[int, int | str]):
    """For str.translate: a space for everything that is no letter, digit or mark. Filled as characters are met."""

    def __missing__(self, code: int) -> int | str:
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if kept else " "
        return self[code]


_SPACES = _Spaces()


def _released_text(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _words_text(text: str) -> str:
    return NUMBER.sub("0", unicodedata.normalize("NFKC", text)).translate(_SPACES).casefold()


@dataclass(frozen=True)
class _Rule:
    """rewrite: for texts that are not ASCII. inside: (256,) whether a byte belongs to a token. numbers: become 0."""

    rewrite: Callable[[str], str]
    inside: npt.NDArray[np.bool_]
    numbers: bool


def _rules() -> dict[str, _Rule]:
    released = np.array([re.match(RELEASED_PATTERN, chr(byte)) is None or byte > 127 for byte in range(256)])
    words = np.array([chr(byte).isalnum() or byte > 127 for byte in range(256)])
    return {"as_released": _Rule(_released_text, released, False), "words": _Rule(_words_text, words, True)}


_RULES = _rules()
_LOWER = np.array([ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256)], np.uint8)
_DIGIT = np.array([chr(byte).isdecimal() and byte < 128 for byte in range(256)])
_POINT = np.array([chr(byte) in ",." for byte in range(256)])


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of many texts. data: their UTF-8 bytes without anything between. offsets: (T + 1,) into data.

    first: (texts + 1,) number of the first token of each text.
    """

    data: Bytes
    offsets: Ints
    first: Ints


def tokenize(texts: Sequence[str], tokenization: str) -> TokenBatch:
    """The tokens of `tokens_of` for each text, in order."""
    rule = _RULES[tokenization]
    parts = [(t if t.isascii() else rule.rewrite(t)).encode("utf-8", "surrogatepass") for t in texts]
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    raw = np.frombuffer(b"".join((b"\n", b"\n".join(parts), b"\n")), np.uint8)  # separators also at both ends
    inside = rule.inside[raw]
    kept = inside
    if rule.numbers:
        inside, kept = _with_numbers(raw, inside)
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1  # start, end, start, end …
    starts, ends = edges[0::2], edges[1::2]
    offsets = np.zeros(len(starts) + 1, np.int64)
    if rule.numbers:
        counted = np.cumsum(kept)
        offsets[1:] = counted[ends - 1]
    else:
        np.cumsum(ends - starts, out=offsets[1:])
    data = _LOWER[raw[kept]]
    if rule.numbers:
        data[_DIGIT[data]] = ord("0")
    text_starts = np.concatenate([[0], np.cumsum(sizes + 1)]) + 1  # one separator after each
    return TokenBatch(data, offsets, np.searchsorted(starts, text_starts))


def _with_numbers(raw: Bytes, inside: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(belongs to a token, is kept): a point between two digits belongs to the number, of which one byte is kept."""
    digit = _DIGIT[raw]
    number = digit.copy()
    number[1:-1] |= _POINT[raw[1:-1]] & digit[:-2] & digit[2:]
    first = number.copy()
    first[1:] &= ~number[:-1]
    return inside | number, (inside & ~number) | first


def hash_tokens(batch: TokenBatch) -> Hashes:
    """(T,) a number for each token, equal for equal tokens."""
    starts = batch.offsets[:-1]
    if not len(starts):
        return np.zeros(0, np.uint64)
    terms = (batch.data.astype(np.uint64) + np.uint64(1)) * powers(BYTE_BASE, len(batch.data))
    return _mix(np.add.reduceat(terms, starts) * inverse_powers(BYTE_BASE, len(batch.data))[starts])


class SpanHasher:
    """Hashes of runs of tokens, from one running sum over a batch."""

    def __init__(self, token_hashes: Hashes) -> None:
        count = len(token_hashes)
        self._sums = np.zeros(count + 1, np.uint64)
        np.cumsum(token_hashes * powers(TOKEN_BASE, count), out=self._sums[1:])
        self._inverse = inverse_powers(TOKEN_BASE, count + 1)

    def spans(self, starts: Ints, lengths: Ints | int, kind: int) -> Hashes:
        """(S,) hash of tokens[start : start + length] for each start; kinds and lengths do not meet."""
        value = (self._sums[starts + lengths] - self._sums[starts]) * self._inverse[starts]
        return self._salted(value, lengths, kind)

    def grams(self, length: int) -> Hashes:
        """The hash of the run of `length` tokens from every token that has as many after it."""
        count = max(len(self._sums) - length, 0)
        value = (self._sums[length:] - self._sums[:count]) * self._inverse[:count]
        return self._salted(value, length, GRAM)

    @staticmethod
    def _salted(value: Hashes, lengths: Ints | int, kind: int) -> Hashes:
        salt = np.asarray(lengths, np.int64).astype(np.uint64) * np.uint64(2) + np.uint64(kind)
        return _mix(value + salt) & np.uint64((1 << HASH_BITS) - 1)


def _mix(value: Hashes) -> Hashes:
    """Spread every bit over all others (the finalizer of splitmix64), in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value ^= value >> np.uint64(shift)
        value *= np.uint64(factor)
    value ^= value >> np.uint64(31)
    return value


def powers(base: int, count: int) -> Hashes:
    """base**0 … base**(count - 1) modulo 2**64."""
    return _cached_powers(base)[:count] if count <= CACHED_POWERS else _powers(base, count)


def inverse_powers(base: int, count: int) -> Hashes:
    return powers(pow(base, -1, 1 << 64), count)


@cache
def _cached_powers(base: int) -> Hashes:
    return _powers(base, CACHED_POWERS)


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    result: Any = np.cumprod(factors, dtype=np.uint64)
    return result  # type: ignore[no-any-return]
