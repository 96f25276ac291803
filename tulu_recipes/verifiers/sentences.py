"""How many sentences a text has, without language data to download.

A word ends a sentence when it ends in . ! ? or … (quotation marks, brackets and emphasis may follow), except:

- a number or letter at the start of a line (1. or b.), and an initial (J. Smith);
- a title and its like (Dr., e.g.); No. before a number; another abbreviation (p.m., etc.) unless a capital follows;
- three dots, or a closing quotation mark after ! or ?, when a small letter follows (“Really?” he asked).

。！？ end a sentence anywhere. Line breaks end none, as with NLTK's Punkt, which IFEval uses. What stands after the
last end is a sentence too, and a sentence has a letter or digit.
"""

import re

_CLOSERS = "\"'”’»)]}*_`"
_OPENERS = "\"'“‘«([{*_`"
_ENDS = ".!?…"
_NEVER = set("dr mr mrs ms prof rev hon gen col sgt capt lt messrs mme sen gov pres vs cf e.g i.e".split())
_BEFORE_NUMBERS = set("no nos fig vol pp p ch eq sec".split())
_ABBREVIATIONS = set(
    "etc al st jr sr inc ltd co corp dept approx est p.m a.m ph.d jan feb apr jun jul aug sep sept oct nov dec ave "
    "blvd rd ed eds".split()
)
_ACRONYM = re.compile(r"\w(?:\.\w)+")
_ASIAN_END = re.compile("[。！？]+")
_WORD = re.compile(r"\w")


def count_sentences(text: str) -> int:
    count, open_words = 0, False
    words = [(word, place == 0) for line in text.split("\n") for place, word in enumerate(line.split())]
    for place, (word, first_of_line) in enumerate(words):
        following = words[place + 1][0].lstrip(_OPENERS)[:1] if place + 1 < len(words) else ""
        *inner, last = _ASIAN_END.split(word)
        for piece in inner:
            count += open_words or bool(_WORD.search(piece))
            open_words = False
        open_words = open_words or bool(_WORD.search(last))
        if open_words and _ends(last, following, first_of_line):
            count, open_words = count + 1, False
    return count + open_words


def _ends(word: str, following: str, first_of_line: bool) -> bool:
    """following: the first character of the next word, empty at the end of the text."""
    core = word.rstrip(_CLOSERS)
    stem = core.rstrip(_ENDS)
    end = core[len(stem) :]
    if not end or not following:
        return bool(end)
    if "!" in end or "?" in end:
        return core == word or not following.islower()
    if len(end) > 1 or end == "…":
        return not following.islower()
    name = stem.lstrip(_OPENERS)
    if first_of_line and (name.isdigit() or len(name) == 1):
        return False
    if name.lower() in _NEVER or (name.lower() in _BEFORE_NUMBERS and following.isdigit()):
        return False
    if name.lower() in _ABBREVIATIONS or _ACRONYM.fullmatch(name):
        return following.isupper()
    return not (len(name) == 1 and name.isupper() and name != "I")
