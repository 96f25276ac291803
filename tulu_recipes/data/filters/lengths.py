"""Length limits: characters, tokens and turns of a conversation."""

from collections.abc import Callable
from typing import Any

from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer, picked, range_problems, side

LIMITS = {
    "min": Parameter("count", "the fewest that stay"),
    "max": Parameter("count", "the most that stay"),
    "of": side("all"),
}


def _within(measure: Callable[[dict[str, Any]], list[int]], params: dict[str, Any], unit: str) -> RowFilter:
    """Both conversations of a preference row must be within the limits."""
    low, high = params["min"] or 0, params["max"]
    below, above = f"fewer than {low} {unit}", f"more than {high} {unit}"

    def within(row: dict[str, Any]) -> str | None:
        lengths = measure(row)
        if high is not None and max(lengths) > high:
            return above
        return below if min(lengths) < low else None

    return within


def _characters(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    def measure(row: dict[str, Any]) -> list[int]:
        return [sum(map(len, texts)) for texts in picked(row, target, params["of"])]

    return _within(measure, params, "characters")


def _tokens(params: dict[str, Any], target: str, tokenizer: Tokenizer | None) -> RowFilter:
    if tokenizer is None:
        raise ValueError("tokens are counted with a tokenizer. Write `tokenizer: org/name` in the mix.")

    def measure(row: dict[str, Any]) -> list[int]:
        found = picked(row, target, params["of"])
        return [_count(tokenizer, texts) for texts in found]

    return _within(measure, params, "tokens")


def _count(tokenizer: Tokenizer, texts: list[str]) -> int:
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def _turns(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    everything = params["of"] == "all"

    def measure(row: dict[str, Any]) -> list[int]:
        counts = [len(texts) for texts in picked(row, target, params["of"])]
        if everything:  # a system prompt is no turn
            systems = [len(texts) for texts in picked(row, target, "system")]
            return [count - system for count, system in zip(counts, systems, strict=True)]
        return counts

    return _within(measure, params, "turns")


KINDS = (
    FilterKind(
        "characters",
        "length of a conversation in characters (code points), without template or separators",
        LIMITS,
        _characters,
        check=range_problems,
    ),
    FilterKind(
        "tokens",
        "length of a conversation in tokens of the mix's tokenizer, turn by turn, without template or special tokens",
        LIMITS,
        _tokens,
        check=range_problems,
    ),
    FilterKind("turns", "number of turns; with of: all, without system prompts", LIMITS, _turns, check=range_problems),
)
