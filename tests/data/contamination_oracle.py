"""The decontamination rule a second time: loops over tokens, exact fractions, nothing of the engine."""

import re
import unicodedata
from fractions import Fraction


def split_released(text: str) -> list[str]:
    return [t for t in re.split(r'[ ,.?!:;()"-]|\n|\\', unicodedata.normalize("NFC", text).lower()) if t]


def split_words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"\d+([.,]\d+)*", "0", text)
    text = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return [token for token in text.split(" ") if token]


SPLIT = {"as_released": split_released, "words": split_words}


def occurs(phrase: list[str], turn: list[str]) -> bool:
    return any(turn[i : i + len(phrase)] == phrase for i in range(len(turn) - len(phrase) + 1))


def score(fields: list[list[str]], turns: list[list[str]], n: int) -> Fraction:
    fields = [field for field in fields if field]
    if not fields:
        return Fraction(0)
    if all(len(field) < n for field in fields):
        joined = [token for field in fields for token in field]
        return Fraction(int(joined in turns))
    total = Fraction(0)
    for field in fields:
        if len(field) < n:
            total += int(any(occurs(field, turn) for turn in turns))
            continue
        covered = set()
        for start in range(len(field) - n + 1):
            if any(occurs(field[start : start + n], turn) for turn in turns):
                covered |= set(range(start, start + n))
        total += Fraction(len(covered), len(field))
    return total / len(fields)


def all_matches(
    evaluations: list[tuple[str, list[tuple[str, ...]]]], rows: list[list[str]], n: int, threshold: Fraction
) -> list[tuple[int, int, int, float]]:
    """(row, evaluation, item, score) of every overlap; an evaluation is (tokenisation, items)."""
    found = []
    for number, row in enumerate(rows):
        for which, (tokenization, items) in enumerate(evaluations):
            turns = [SPLIT[tokenization](turn) for turn in row]
            for place, item in enumerate(items):
                value = score([SPLIT[tokenization](field) for field in item], turns, n)
                if value > threshold:
                    found.append((number, which, place, round(float(value), 9)))
    return found
