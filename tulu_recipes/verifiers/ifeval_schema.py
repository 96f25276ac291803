"""The labels of RLVR-IFeval rows: JSON with `func_name` and the arguments of one of 25 constraint functions.

Arguments that a function does not take stand there as null. Names: open-instruct's if_functions at the Tülu 3 release.
"""

import json
from typing import Any

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "verify_keywords": ("keyword_list",),
    "verify_keyword_frequency": ("word", "N"),
    "validate_forbidden_words": ("forbidden_words",),
    "verify_letter_frequency": ("letter", "N"),
    "validate_response_language": ("language",),
    "verify_paragraph_count": ("N",),
    "validate_word_constraint": ("N", "quantifier"),
    "verify_sentence_constraint": ("N", "quantifier"),
    "validate_paragraphs": ("N", "first_word", "i"),
    "verify_postscript": ("postscript_marker",),
    "validate_placeholders": ("N",),
    "verify_bullet_points": ("N",),
    "validate_title": (),
    "validate_choice": ("options",),
    "validate_highlighted_sections": ("N",),
    "validate_sections": ("N", "section_splitter"),
    "validate_json_format": (),
    "validate_repeat_prompt": ("original_prompt",),
    "validate_two_responses": (),
    "validate_uppercase": (),
    "validate_lowercase": (),
    "validate_frequency_capital_words": ("N", "quantifier"),
    "validate_end": ("end_phrase",),
    "validate_quotation": (),
    "validate_no_commas": (),
}
NUMBERS = {"N", "i"}
LISTS = {"keyword_list", "forbidden_words", "options"}  # the options of a choice may also be one text


def label_fault(ground_truth: str) -> str | None:
    """What is wrong with a label, without its values; None when a constraint can be checked with it."""
    try:
        label = json.loads(ground_truth)
    except (ValueError, RecursionError):
        return "label is not JSON"
    if not isinstance(label, dict):
        return "label is not an object"
    name = label.get("func_name")
    if not isinstance(name, str) or not name:
        return "label has no func_name"
    if name not in ARGUMENTS:
        return "label names an unknown function"
    given = {key for key, value in label.items() if value is not None} - {"func_name"}
    if set(ARGUMENTS[name]) - given:
        return "label lacks an argument"
    if given - set(ARGUMENTS[name]):
        return "label has an argument too many"
    return next((fault for key in ARGUMENTS[name] if (fault := _argument_fault(key, label[key]))), None)


def _argument_fault(key: str, value: Any) -> str | None:
    if key in NUMBERS:
        return (
            None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "argument is no count"
        )
    if key in LISTS and isinstance(value, list):
        fits = bool(value) and all(isinstance(item, str) and item for item in value)
        return None if fits else "argument is no list of words"
    if key in LISTS - {"options"}:
        return "argument is no list of words"
    return None if isinstance(value, str) and value else "argument is no text"
