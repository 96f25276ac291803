"""Words of a text, for filters that compare n-grams: what stands between white space, as it stands.

Chinese and Japanese are written without spaces, so there every character is a word; one "word" a sentence would hide
every repetition.
"""

import re

UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han and its extensions
_WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


def words_of(text: str) -> list[str]:
    return text.split() if text.isascii() else _WORD.findall(text)
