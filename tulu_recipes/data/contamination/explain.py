"""One match as a person checks it: the item and the row, with what they share marked in both."""

from collections.abc import Sequence
from dataclasses import dataclass

from tulu_recipes.data.contamination.tokens import token_spans


@dataclass(frozen=True)
class Marked:
    """A text and the parts of it that are shared, as (start, end) in characters, in order and apart."""

    text: str
    spans: tuple[tuple[int, int], ...]

    def render(self, before: str = "⟦", after: str = "⟧") -> str:
        """The text with marks around each shared part."""
        pieces, done = [], 0
        for start, end in self.spans:
            pieces += [self.text[done:start], before, self.text[start:end], after]
            done = end
        return "".join([*pieces, self.text[done:]])


@dataclass(frozen=True)
class Explanation:
    """fields: of the item; turns: of the row."""

    fields: tuple[Marked, ...]
    turns: tuple[Marked, ...]


def explain(
    item: Sequence[str], turns: Sequence[str], *, n: int = 8, tokenization: str = "as_released"
) -> Explanation:
    """Mark what the item's fields and the row's turns share under the rule of `find_matches`.

    Texts are shown as they were compared, so a composed é stands where a decomposed one was written.
    """
    fields = [_Text(field, tokenization) for field in item]
    rows = [_Text(turn, tokenization) for turn in turns]
    if all(len(field.tokens) < n for field in fields):
        whole = [token for field in fields for token in field.tokens]
        for row in rows:
            if row.tokens == whole and whole:
                for text in (row, *fields):
                    text.mark(0, len(text.tokens))
    else:
        for field in fields:
            _mark_shared(field, rows, min(n, len(field.tokens)))
    return Explanation(tuple(field.marked() for field in fields), tuple(row.marked() for row in rows))


def _mark_shared(field: "_Text", rows: list["_Text"], length: int) -> None:
    places: dict[tuple[str, ...], list[int]] = {}
    for start in range(len(field.tokens) - length + 1 if length else 0):
        places.setdefault(tuple(field.tokens[start : start + length]), []).append(start)
    for row in rows:
        for start in range(len(row.tokens) - length + 1):
            for at in places.get(tuple(row.tokens[start : start + length]), ()):
                field.mark(at, length)
                row.mark(start, length)


class _Text:
    def __init__(self, text: str, tokenization: str) -> None:
        self.shown, self.spans = token_spans(text, tokenization)
        self.tokens = [token for token, _, _ in self.spans]
        self.covered = [False] * len(self.tokens)

    def mark(self, start: int, length: int) -> None:
        self.covered[start : start + length] = [True] * length

    def marked(self) -> Marked:
        merged: list[tuple[int, int]] = []
        for number, (_, start, end) in enumerate(self.spans):
            if not self.covered[number]:
                continue
            if merged and number and self.covered[number - 1]:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        return Marked(self.shown, tuple(merged))
