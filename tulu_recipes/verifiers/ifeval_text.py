"""What constraints ask of a text: counts and shapes, in time linear in the text."""

import ast
import json
import re
import unicodedata
from fractions import Fraction

# Thai to Khmer, kana, Chinese characters: written without spaces, so that a word there has no edges.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_DIVIDER = re.compile(r"^[ \t]*\*(?:[ \t]*\*){2,}[ \t]*$|\* \* \*", re.MULTILINE)
_BULLET = re.compile(r"[ \t]*[*-][ \t]")
_HIGHLIGHT = re.compile(r"(?<!\*)(\*{1,3})(?=[^\s*])[^*\n]*(?<=[^\s*])\1(?!\*)")
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_OPENING_QUOTES = "'\"“”‘’"


def folded(text: str) -> str:
    """For comparison without case; é is é however it is spelt."""
    return unicodedata.normalize("NFC", text).casefold()


def occurrences(text: str, word: str) -> int:
    """How often a word or phrase stands there, in any case, with no letter, digit or _ going on at its edges."""
    text, word = folded(text), folded(word.strip())
    count, place = 0, text.find(word)
    while place >= 0:
        end = place + len(word)
        whole = not (place and _joined(text[place - 1], word[0])) and not (
            end < len(text) and _joined(word[-1], text[end])
        )
        count += whole
        place = text.find(word, end if whole else place + 1)
    return count


def _joined(left: str, right: str) -> bool:
    """Whether two neighbours belong to one word."""
    return all(
        (letter.isalnum() or letter == "_" or unicodedata.category(letter)[0] == "M") and not _UNSPACED.match(letter)
        for letter in (left, right)
    )


def tenth(number: int) -> int:
    """±10 %, rounded, and at least 1."""
    return max(round(Fraction(number, 10)), 1)


def count_placeholders(text: str) -> int:
    """[…] within a line. A search, since a pattern would read on from every bracket that is never closed."""
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
            start = line.find("[", end)
    return count


def has_title(text: str) -> bool:
    """<<…>> within a line, with something in it."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end >= start + 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def starts_with_word(paragraph: str, first_word: str) -> bool:
    """The first word, in any case, without the quotation marks before and the punctuation after it."""
    word = paragraph.split(maxsplit=1)[0].lstrip(_OPENING_QUOTES)
    shown = {re.split(r"[.,?!'\"]", word, maxsplit=1)[0], word.strip(".,;:?!'\"“”‘’*_")}
    return folded(first_word.strip()) in {folded(candidate) for candidate in shown}


def paragraphs_of(text: str) -> list[str]:
    """Between empty lines, those with text."""
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def options_of(options: list[str] | str) -> list[str]:
    """The options of a choice; one text may hold a Python list of them, or name them with or, / , ; | between."""
    if isinstance(options, list):
        return options
    if options.lstrip().startswith(("[", "(")):
        try:
            listed = ast.literal_eval(options.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            listed = None
        if isinstance(listed, list | tuple) and listed and all(isinstance(item, str) for item in listed):
            return [item for item in listed if item.strip()]
    parts = re.split(r"\s+or\s+|[/,;|\n]", options)
    return [shown for part in parts if (shown := part.strip().removeprefix("or ").strip(" \"'()[]"))]


def count_chosen(text: str, options: list[str]) -> int:
    """How many of the options stand in the text; one that only stands inside a longer one is not meant."""
    counts = {option: occurrences(text, option) for option in (folded(option.strip()) for option in options)}

    def inside_longer(option: str) -> int:
        return sum(count for other, count in counts.items() if other != option and occurrences(other, option))

    return sum(count > inside_longer(option) for option, count in counts.items())


def count_dividers_apart(text: str) -> int | None:
    """Paragraphs between dividers: * * *, or a line of *** alone. One may stand first and last; None when two meet."""
    parts = [part.strip() for part in _DIVIDER.split(text)]
    return sum(map(bool, parts)) if all(parts[1:-1]) else None


def count_highlights(text: str) -> int:
    """*…*, **…** and ***…*** within a line, as Markdown reads them: no space inside the asterisks."""
    return len(_HIGHLIGHT.findall(text))


def count_bullets(text: str) -> int:
    """Lines that start with - or * and a space; a rule (---, * * *) is none."""
    return sum(bool(_BULLET.match(line)) and bool(line.strip("*- \t")) for line in text.split("\n"))


def count_words(text: str) -> int:
    """Between white space, with a letter or digit: well-known is one, a dash alone is none."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


def count_capital_words(text: str) -> int:
    """A word with hyphens is one; I is one too."""
    return sum(word.isupper() for word in _WORD.findall(text))


def count_sections(text: str, splitter: str) -> int:
    """Splitter and a number, as in Section 1, or a letter or Roman number: Section X."""
    return len(re.findall(rf"(?<!\w){re.escape(splitter.strip())}\s?(?:[0-9]+|(?:[A-Z]|[IVXL]{{2,6}})(?!\w))", text))


def has_postscript(text: str, marker: str) -> bool:
    """The marker in any case, with or without spaces after its dots, not inside P.P.S., and text after it."""
    spaced = re.escape(marker.strip()).replace(r"\.", r"\.\s?").replace(r"\ ", r"\s?")
    found = re.search(rf"(?<![\w.]){spaced}", text, re.IGNORECASE)
    return found is not None and any(map(str.isalnum, text[found.end() :]))


def is_json(text: str) -> bool:
    """A code fence around it is allowed, as in IFEval."""
    inner = re.sub(r"\A```(?:json)?|```\Z", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(inner, parse_int=str)  # Python refuses to read thousands of digits
    except (ValueError, RecursionError):
        return False
    return True


def repeats(text: str, prompt: str) -> bool:
    return text.strip().lower().startswith(prompt.strip().lower())


def ends_with(text: str, phrase: str) -> bool:
    """A quotation mark may follow."""
    return text.strip().strip('"').lower().endswith(phrase.strip().lower())


def two_responses(text: str) -> bool:
    """Two different texts with ****** between; one may also stand first and last."""
    parts = [part.strip() for part in text.split("******")]
    shown = [part for part in parts if part]
    return all(parts[1:-1]) and len(shown) == 2 and shown[0] != shown[1]


def is_quoted(text: str) -> bool:
    shown = text.strip()
    return len(shown) > 1 and shown[0] == shown[-1] == '"'
