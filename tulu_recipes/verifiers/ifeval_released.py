"""What the constraint functions did at the Tülu 3 release (open-instruct, November 2024), bugs included.

Each takes the completion after the last `<|assistant|>` line, stripped, and the label's arguments, and says what the
reward said. The comments name the bugs; ifeval_functions.py has the rules as meant.
"""

import json
import re
from collections.abc import Callable

from tulu_recipes.verifiers.ifeval_language import language_of

# A space after . or ?, unless an acronym (U.S.) or a short title (Dr.) stands before it. Bug: ! ends no sentence.
_SENTENCE_GAP = re.compile(r"(?<=[.?])(?<!\w\.\w.)(?<![A-Z][a-z]\.)\s")


def _compare(count: int, wanted: int, quantifier: str, tolerance: int) -> bool:
    return {
        "at least": count >= wanted,
        "at most": count <= wanted,
        "around": abs(count - wanted) <= tolerance,
    }[quantifier]


def _keywords(text: str, keyword_list: list[str]) -> bool:
    """Bug: found inside other words."""
    return all(keyword.lower() in text.lower() for keyword in keyword_list)


def _keyword_frequency(text: str, word: str, N: int) -> bool:  # noqa: N803
    """Bug: a keyword with a space or hyphen is no token, so that it is never found."""
    return re.findall(r"\w+", text.lower()).count(word.lower()) == N


def _forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    """Bug: found inside other words."""
    return not any(word.lower() in text.lower() for word in forbidden_words)


def _letters(text: str, letter: str, N: int) -> bool:  # noqa: N803
    """Bug: case matters."""
    return text.count(letter) == N


def _language(text: str, language: str) -> bool:
    """Bug: a text without letters raised, and zh is never detected. The seed, there left to chance, is 0."""
    found = language_of(text)
    if found is None:
        raise ValueError("no language")
    return found == language


def _paragraph_count(text: str, N: int) -> bool:  # noqa: N803
    """Bug: only * * * divides, and one at the start or end makes the answer wrong."""
    parts = "\n".join(line.strip() for line in text.splitlines()).split("* * *")
    return len(parts) == N and all(part.strip() for part in parts)


def _words(text: str, N: int, quantifier: str) -> bool:  # noqa: N803
    """Bug: punctuation that stands alone is a word."""
    return _compare(len(text.split()), N, quantifier, max(round(N * 0.1), 1))


def _sentences(text: str, N: int, quantifier: str) -> bool:  # noqa: N803
    return _compare(len(_SENTENCE_GAP.split(text)), N, quantifier, 1)


def _paragraphs(text: str, N: int, first_word: str, i: int) -> bool:  # noqa: N803
    """Bug: empty paragraphs count, case matters, and a longer word that starts alike will do."""
    parts = text.split("\n\n")
    return len(parts) == N and parts[i - 1].strip().startswith(first_word)


def _postscript(text: str, postscript_marker: str) -> bool:
    """Bug: the marker counts in its own case alone, and P.S. also inside P.P.S."""
    _, found, rest = text.partition(postscript_marker)
    return bool(found) and len((postscript_marker + rest).strip()) > len(postscript_marker)


def _placeholders(text: str, N: int) -> bool:  # noqa: N803
    """Bug: the function returned a pair (enough, found), and a pair is true: always rewarded."""
    return True


def _bullets(text: str, N: int) -> bool:  # noqa: N803
    """Bug: rules (---), negative numbers and lines that start **bold** are bullets."""
    return sum(line.strip().startswith(("*", "-")) for line in text.split("\n")) == N


def _title(text: str) -> bool:
    """Bug: a title may be empty."""
    return any("<<" in line and ">>" in line[line.index("<<") + 2 :] for line in text.split("\n"))


def _choice(text: str, options: list[str] | str) -> bool:
    """Bug: the answer is looked for in the options, not they in it; one text of options is read letter by letter."""
    return any(text in option for option in options)


def _highlights(text: str, N: int) -> bool:  # noqa: N803
    """Bug: ** is an (empty) highlight, so **bold** counts twice."""
    return sum(line.count("*") // 2 for line in text.split("\n")) >= N


def _sections(text: str, N: int, section_splitter: str) -> bool:  # noqa: N803
    """Bug: what stands before the first section is a section."""
    parts = text.split(section_splitter)
    return len(parts) - (parts[0] == "") == N


def _json(text: str) -> bool:
    """Bug: a code fence makes it wrong."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _two_responses(text: str) -> bool:
    """Bug: one of the two may be empty, and ****** may not stand at the end."""
    first, divider, second = text.partition("******")
    return bool(divider) and "******" not in second and first.strip() != second.strip()


def _capital_words(text: str, N: int, quantifier: str) -> bool:  # noqa: N803
    """Bug: "around" is exactly N; a hyphen divides words, and letters beyond A-Z are none."""
    return _compare(len(re.findall(r"\b[A-Z]+\b", text)), N, quantifier, 0)


RELEASED: dict[str, Callable[..., bool]] = {
    "verify_keywords": _keywords,
    "verify_keyword_frequency": _keyword_frequency,
    "validate_forbidden_words": _forbidden_words,
    "verify_letter_frequency": _letters,
    "validate_response_language": _language,
    "verify_paragraph_count": _paragraph_count,
    "validate_word_constraint": _words,
    "verify_sentence_constraint": _sentences,
    "validate_paragraphs": _paragraphs,
    "verify_postscript": _postscript,
    "validate_placeholders": _placeholders,
    "verify_bullet_points": _bullets,
    "validate_title": _title,
    "validate_choice": _choice,
    "validate_highlighted_sections": _highlights,
    "validate_sections": _sections,
    "validate_json_format": _json,
    "validate_repeat_prompt": lambda text, original_prompt: text.startswith(original_prompt),  # bug: case, spaces
    "validate_two_responses": _two_responses,
    "validate_uppercase": lambda text: text == text.upper(),  # bug: any language, and a text without letters
    "validate_lowercase": lambda text: text == text.lower(),  # bug: the same
    "validate_frequency_capital_words": _capital_words,
    "validate_end": lambda text, end_phrase: text.endswith(end_phrase),  # bug: case matters, and a quotation mark
    "validate_quotation": lambda text: text.startswith('"') and text.endswith('"'),  # bug: one mark alone will do
    "validate_no_commas": lambda text: "," not in text,
}
