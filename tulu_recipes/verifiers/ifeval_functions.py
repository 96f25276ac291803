"""The 25 constraint functions of RLVR-IFeval, as their sentences mean them: (completion, **arguments) → followed.

Where the sentence is an instruction of IFEval, its published rule is the reference, but for words, which are whole
words here. What the Tülu 3 release did instead is in ifeval_released.py. ifeval.py refuses an empty completion.
"""

from collections.abc import Callable

from tulu_recipes.verifiers.ifeval_language import is_english, language_of, same_language
from tulu_recipes.verifiers.ifeval_text import (
    count_bullets,
    count_capital_words,
    count_chosen,
    count_dividers_apart,
    count_highlights,
    count_placeholders,
    count_sections,
    count_words,
    ends_with,
    folded,
    has_postscript,
    has_title,
    is_json,
    is_quoted,
    occurrences,
    options_of,
    paragraphs_of,
    repeats,
    starts_with_word,
    tenth,
    two_responses,
)
from tulu_recipes.verifiers.sentences import count_sentences

# The names of the arguments are the label's.
# ruff: noqa: N803


def verify_keywords(text: str, keyword_list: list[str]) -> bool:
    return all(occurrences(text, keyword) for keyword in keyword_list)


def verify_keyword_frequency(text: str, word: str, N: int) -> bool:
    return occurrences(text, word) == N


def validate_forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    return not any(occurrences(text, word) for word in forbidden_words)


def verify_letter_frequency(text: str, letter: str, N: int) -> bool:
    return folded(text).count(folded(letter)) == N


def validate_response_language(text: str, language: str) -> bool:
    """A text without letters is in no language. Capitals are read small: langdetect takes them all for English."""
    found = language_of(text.lower() if text.isupper() else text)
    return found is not None and same_language(found, language)


def verify_paragraph_count(text: str, N: int) -> bool:
    return count_dividers_apart(text) == N


def validate_word_constraint(text: str, N: int, quantifier: str) -> bool:
    return enough(count_words(text), N, quantifier, tenth(N))


def verify_sentence_constraint(text: str, N: int, quantifier: str) -> bool:
    """Around is one more or less, as released."""
    return enough(count_sentences(text), N, quantifier, 1)


def validate_paragraphs(text: str, N: int, first_word: str, i: int) -> bool:
    paragraphs = paragraphs_of(text)
    return len(paragraphs) == N and starts_with_word(paragraphs[i - 1], first_word)


def verify_postscript(text: str, postscript_marker: str) -> bool:
    return has_postscript(text, postscript_marker)


def validate_placeholders(text: str, N: int) -> bool:
    return count_placeholders(text) >= N


def verify_bullet_points(text: str, N: int) -> bool:
    return count_bullets(text) == N


def validate_title(text: str) -> bool:
    return has_title(text)


def validate_choice(text: str, options: list[str] | str) -> bool:
    """Exactly one: an answer that names them all has not chosen."""
    return count_chosen(text, options_of(options)) == 1


def validate_highlighted_sections(text: str, N: int) -> bool:
    return count_highlights(text) >= N


def validate_sections(text: str, N: int, section_splitter: str) -> bool:
    return count_sections(text, section_splitter) == N


def validate_json_format(text: str) -> bool:
    return is_json(text)


def validate_repeat_prompt(text: str, original_prompt: str) -> bool:
    return repeats(text, original_prompt)


def validate_two_responses(text: str) -> bool:
    return two_responses(text)


def validate_uppercase(text: str) -> bool:
    return text.isupper() and is_english(text)


def validate_lowercase(text: str) -> bool:
    return text.islower() and is_english(text)


def validate_frequency_capital_words(text: str, N: int, quantifier: str) -> bool:
    return enough(count_capital_words(text), N, quantifier, tenth(N))


def validate_end(text: str, end_phrase: str) -> bool:
    return ends_with(text, end_phrase)


def validate_quotation(text: str) -> bool:
    return is_quoted(text)


def validate_no_commas(text: str) -> bool:
    return "," not in text


def enough(count: int, wanted: int, quantifier: str, tolerance: int) -> bool:
    if quantifier == "around":
        return abs(count - wanted) <= tolerance
    return count >= wanted if quantifier == "at least" else count <= wanted


FUNCTIONS: dict[str, Callable[..., bool]] = {
    function.__name__: function
    for function in (
        verify_keywords,
        verify_keyword_frequency,
        validate_forbidden_words,
        verify_letter_frequency,
        validate_response_language,
        verify_paragraph_count,
        validate_word_constraint,
        verify_sentence_constraint,
        validate_paragraphs,
        verify_postscript,
        validate_placeholders,
        verify_bullet_points,
        validate_title,
        validate_choice,
        validate_highlighted_sections,
        validate_sections,
        validate_json_format,
        validate_repeat_prompt,
        validate_two_responses,
        validate_uppercase,
        validate_lowercase,
        validate_frequency_capital_words,
        validate_end,
        validate_quotation,
        validate_no_commas,
    )
}
