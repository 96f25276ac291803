"""The 25 instructions of google/IFEval by their ids: (completion, **kwargs) → followed, as published.

The published checkers leave some things to chance or accident. Here: a missing argument is a fault of the label
(there, a random one is drawn); keywords, markers and splitters are text (there, regular expressions); sentences are
counted without NLTK's data; capital words are runs of letters, digits and hyphens; the n-th paragraph is the n-th that
has text; a bullet does not run on into the next line; first words may be followed by any punctuation.
Keywords count inside other words, as published; forbidden words do not.
"""

import operator
import re
from collections.abc import Callable

from tulu_recipes.verifiers import ifeval_text as shape
from tulu_recipes.verifiers.ifeval_language import language_of, same_language
from tulu_recipes.verifiers.sentences import count_sentences

_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_SINGLE = re.compile(r"\*([^*\n]*)\*")
_DOUBLE = re.compile(r"\*\*([^*\n]*)\*\*")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
_COMPARE: dict[str, Callable[[int, int], bool]] = {"at least": operator.ge, "less than": operator.lt}


def _keywords(text: str, keywords: list[str]) -> bool:
    return all(shape.folded(keyword.strip()) in shape.folded(text) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _COMPARE[relation](shape.folded(text).count(shape.folded(keyword.strip())), frequency)


def _forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    return not any(shape.occurrences(text, word) for word in forbidden_words)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _COMPARE[let_relation](text.lower().count(letter.lower()), let_frequency)


def _language(text: str, language: str) -> bool:
    """A text without letters follows, as published."""
    found = language_of(text)
    return found is None or same_language(found, language)


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _COMPARE[relation](count_sentences(text), num_sentences)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """*** between, wherever it stands."""
    parts = [part.strip() for part in text.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def _words(text: str, num_words: int, relation: str) -> bool:
    return _COMPARE[relation](len(re.findall(r"\w+", text)), num_words)


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = shape.paragraphs_of(text)
    return len(paragraphs) == num_paragraphs and shape.starts_with_word(paragraphs[nth_paragraph - 1], first_word)


def _postscript(text: str, postscript_marker: str) -> bool:
    pattern = _POSTSCRIPTS.get(postscript_marker.strip(), re.escape(postscript_marker.strip()))
    return re.search(pattern, text, re.IGNORECASE) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    """Lines that start with - , or with one asterisk and something after it."""
    lines = [line.strip() for line in text.split("\n")]
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] not in ("", "*")) for line in lines) == num_bullets


def _highlights(text: str, num_highlights: int) -> bool:
    """*…* and **…** are counted apart, as published, so that ***…*** counts twice."""
    found = _SINGLE.findall(text) + _DOUBLE.findall(text)
    return sum(bool(inside.strip()) for inside in found) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return _COMPARE[capital_relation](shape.count_capital_words(text), capital_frequency)


def _english(text: str) -> bool:
    return language_of(text) in (None, "en")


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, num_placeholders: (
        shape.count_placeholders(text) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text: any(choice in text for choice in _CHOICES),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": shape.is_json,
    "detectable_format:title": shape.has_title,
    "combination:two_responses": shape.two_responses,
    "combination:repeat_prompt": lambda text, prompt_to_repeat: shape.repeats(text, prompt_to_repeat),
    "startend:end_checker": lambda text, end_phrase: shape.ends_with(text, end_phrase),
    "startend:quotation": shape.is_quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text: text.isupper() and _english(text),
    "change_case:english_lowercase": lambda text: text.islower() and _english(text),
    "punctuation:no_comma": lambda text: "," not in text,
}
