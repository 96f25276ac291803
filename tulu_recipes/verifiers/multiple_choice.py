"""multiple_choice: the letter that the completion settles on is the label's.

The forms below are tried in this order; the last place of the first form that is there at all names the answer:

1. a statement: answer is (B), Answer: B, the correct choice is **B**, B is the best;
2. \\boxed{B};  3. **B** or **B. text**;  4. (B);  5. a line with the letter alone;  6. the letter first: B) text;
7. the letter last: I choose B, so it's B, #### B.

A statement of two letters (A or B) is no answer. Full-width letters and small ones count. In running text a small
letter, A and I count only where the sentence ends or goes on with and, or, because …: "the answer is a dog" has none.
"""

import re
import unicodedata
from collections.abc import Iterable

from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong

_LABEL = re.compile(r"\s*\(?\s*([A-Z])\s*[).:]{0,2}\s*", re.IGNORECASE)
_STOP = r"(?=\s{0,3}(?:\Z|\n|[.,:;!?)\]}\"'”’/&–—-]|(?:and|or|because|since|as|which|but|is|was)\b))"
_LETTER = rf"[(\[\"'“‘]{{0,2}}\s?([B-HJ-Z](?![\w'’])|[A-Za-z](?![\w'’]){_STOP})\s?[)\]\"'”’.:]{{0,3}}"
_NAMED = re.compile(rf"{_LETTER}(?:\s{{0,3}}(?:,\s?(?:and|or)\b|[,/&]|(?:and|or)\b)\s{{0,3}}{_LETTER})?")
_BOX = re.compile(r"\\boxed\s?\{\s?(?:\\(?:text|textbf|mathrm|mathbf)\s?\{)?([^{}\n]{1,80})\}{1,2}")
_MARKUP = str.maketrans("", "", "*_$`")
_STATED = re.compile(
    r"(?<!\w)(?=\(?[A-Z]\)?\s(?:is|was)\s(?:the\s)?(?:correct|right|best|answer)\b)"
    r"|\b(?:answer|choice|option)(?:\s{1,3}(?:is|was|should be|would be|must be)\s{0,3}:?|\s{0,3}[:=])"
    r"\s{0,3}(?:(?:the\s)?(?:option|choice|letter)\s)?",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_BRACKETED = re.compile(r"(?<!\w)(?=\(\s?[A-Za-z]\s?\))")
_LAST = re.compile(
    r"(?<!or )(?<!and )(?<!not )(?:\b(?:choose|pick|select|with|say|it'?s|is|option|choice|therefore|thus|hence|so)\b"
    r"|#{4}|[:–—-]|[是为]),?\s{0,3}(?=\(?(?-i:[A-Z])\)?[.!。]?\Z)",
    re.IGNORECASE,
)
_FONT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}\n]{1,80})\}")
_TAGS = re.compile(r"</?answer>", re.IGNORECASE)
_ALONE = re.compile(r"^[ \t]*\(?([A-Za-z])[).:]{0,2}[ \t]*$", re.MULTILINE)


def grade(completion: str, ground_truth: str) -> Verdict:
    label = _LABEL.fullmatch(unicodedata.normalize("NFKC", ground_truth))
    if label is None:
        return error("label is no letter")
    named = choices_named(completion)
    if len(named) != 1:
        return wrong("more than one choice" if named else "no choice in the answer")
    return CORRECT if label[1].upper() in named else wrong("another choice")


def label_fault(ground_truth: str) -> str | None:
    fits = _LABEL.fullmatch(unicodedata.normalize("NFKC", ground_truth))
    return None if fits else "label is no letter"


def choices_named(completion: str) -> frozenset[str]:
    """Capital letters: one when the completion names its choice, none, or two when its last statement names both."""
    text = unicodedata.normalize("NFKC", completion).strip()
    plain = _TAGS.sub("\n", _FONT.sub(r"\1", _BOX.sub(r"(\1)", text))).translate(_MARKUP).strip()
    return (
        _last(plain, (place.end() for place in _STATED.finditer(plain)))
        or _last_piece(_BOX.findall(text))
        or _last_piece(_BOLD.findall(text))
        or _last(plain, (place.start() for place in _BRACKETED.finditer(plain)))
        or frozenset(letter.upper() for letter in _ALONE.findall(plain)[-1:])
        or _last(plain, [0])
        or _last(plain, (place.end() for place in _LAST.finditer(plain)))
    )


def _last(text: str, places: Iterable[int]) -> frozenset[str]:
    """The letters named at the last of the places at which there are any; those inside a statement are part of it."""
    named: frozenset[str] = frozenset()
    end = 0
    for place in places:
        if place >= end and (found := _NAMED.match(text, place)):
            named, end = frozenset(letter.upper() for letter in found.groups() if letter), found.end()
    return named


def _last_piece(pieces: list[str]) -> frozenset[str]:
    return next((named for piece in reversed(pieces) if (named := _last(piece, [0]))), frozenset())
