"""The labels of constraint rows, in three layouts, read into a list of constraints.

- RLVR-IFeval: a JSON object with `func_name` and the arguments of one of 25 constraint functions; arguments that a
  function does not take stand there as null. Names: open-instruct's if_functions at the Tülu 3 release.
- google/IFEval: a JSON object with `instruction_id_list` and `kwargs`, one object of arguments an instruction.
- open-instruct today: a list of objects with `instruction_id` and `kwargs`, as JSON or as a Python literal.
"""

import ast
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tulu_recipes.verifiers.ifeval_text import options_of

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
INSTRUCTIONS: dict[str, tuple[str, ...]] = {  # section_spliter is spelt so there
    "keywords:existence": ("keywords",),
    "keywords:frequency": ("keyword", "frequency", "relation"),
    "keywords:forbidden_words": ("forbidden_words",),
    "keywords:letter_frequency": ("letter", "let_frequency", "let_relation"),
    "language:response_language": ("language",),
    "length_constraints:number_sentences": ("num_sentences", "relation"),
    "length_constraints:number_paragraphs": ("num_paragraphs",),
    "length_constraints:number_words": ("num_words", "relation"),
    "length_constraints:nth_paragraph_first_word": ("num_paragraphs", "nth_paragraph", "first_word"),
    "detectable_content:number_placeholders": ("num_placeholders",),
    "detectable_content:postscript": ("postscript_marker",),
    "detectable_format:number_bullet_lists": ("num_bullets",),
    "detectable_format:constrained_response": (),
    "detectable_format:number_highlighted_sections": ("num_highlights",),
    "detectable_format:multiple_sections": ("section_spliter", "num_sections"),
    "detectable_format:json_format": (),
    "detectable_format:title": (),
    "combination:two_responses": (),
    "combination:repeat_prompt": ("prompt_to_repeat",),
    "startend:end_checker": ("end_phrase",),
    "startend:quotation": (),
    "change_case:capital_word_frequency": ("capital_frequency", "capital_relation"),
    "change_case:english_capital": (),
    "change_case:english_lowercase": (),
    "punctuation:no_comma": (),
}
NUMBERS = set(
    "N i frequency let_frequency capital_frequency num_sentences num_paragraphs nth_paragraph num_words "
    "num_placeholders num_bullets num_highlights num_sections".split()
)
LISTS = {"keyword_list", "keywords", "forbidden_words", "options"}  # the options of a choice may also be one text
QUANTIFIERS = ("at least", "around", "at most")
RELATIONS = ("at least", "less than")
# What langdetect can tell apart, and zh, which IFEval writes for both of its Chinese codes.
LANGUAGES = set(
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt "
    "ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh zh-cn zh-tw".split()
)


class Constraint(NamedTuple):
    """name: a function of ARGUMENTS, or an id of INSTRUCTIONS, which has a colon; with exactly its arguments."""

    name: str
    arguments: dict[str, Any]


class LabelFault(Exception):
    """What is wrong with a label, in a few words without its values."""


def label_fault(ground_truth: str) -> str | None:
    """What is wrong with a label; None when every constraint can be checked with it."""
    try:
        read_label(ground_truth)
    except LabelFault as fault:
        return str(fault)
    return None


def read_label(ground_truth: str) -> list[Constraint]:
    """One constraint or more; raises LabelFault."""
    if not isinstance(ground_truth, str) or not ground_truth.strip():
        raise LabelFault("label is empty")
    label = _parsed(ground_truth)
    parts = label if isinstance(label, list) else [label]
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise LabelFault("label is not an object")
    if isinstance(label, dict) and "instruction_id_list" not in label:
        name = label.get("func_name")
        if not isinstance(name, str) or not name:
            raise LabelFault("label has no func_name")
        if name not in ARGUMENTS:
            raise LabelFault("label names an unknown function")
        given = {key: value for key, value in label.items() if key != "func_name"}
        return [_constraint(name, given, ARGUMENTS[name])]
    key = "instruction_id" if isinstance(label, list) else "instruction_id_list"
    return [constraint for part in parts for constraint in _instructions(part, key)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if not text.lstrip().startswith("["):
            raise LabelFault("label is not JSON") from None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise LabelFault("label is not JSON") from None


def _instructions(part: dict[str, Any], key: str) -> list[Constraint]:
    names, arguments = part.get(key), part.get("kwargs")
    if not isinstance(names, list) or not names:
        raise LabelFault("label names no instruction")
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise LabelFault("label has not one kwargs for each instruction")
    if not all(isinstance(name, str) and name in INSTRUCTIONS for name in names):
        raise LabelFault("label names an unknown instruction")
    if not all(given is None or isinstance(given, dict) for given in arguments):
        raise LabelFault("kwargs of an instruction are no object")
    return [_constraint(name, given or {}, INSTRUCTIONS[name]) for name, given in zip(names, arguments, strict=True)]


def _constraint(name: str, given: Mapping[str, Any], wanted: tuple[str, ...]) -> Constraint:
    arguments = {key: value for key, value in given.items() if value is not None}
    if set(wanted) - set(arguments):
        raise LabelFault("label lacks an argument")
    if set(arguments) - set(wanted):
        raise LabelFault("label has an argument too many")
    for key in wanted:
        fault = _argument_fault(key, arguments[key])
        if fault:
            raise LabelFault(fault)
    if "first_word" in arguments:
        count, position = ("N", "i") if "i" in arguments else ("num_paragraphs", "nth_paragraph")
        if not 1 <= arguments[position] <= arguments[count]:
            raise LabelFault("argument names a paragraph that is not there")
    return Constraint(name, arguments)


def _argument_fault(key: str, value: Any) -> str | None:
    if key in NUMBERS:
        return (
            None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "argument is no count"
        )
    if key in LISTS and isinstance(value, list):
        fits = bool(value) and all(isinstance(item, str) and item.strip() for item in value)
        return None if fits else "argument is no list of words"
    if key in LISTS - {"options"}:
        return "argument is no list of words"
    if not isinstance(value, str) or not value.strip():
        return "argument is no text"
    if key.endswith("relation"):
        return None if value in RELATIONS else "argument is no relation"
    if key == "options":
        return None if options_of(value) else "argument is no list of words"
    if key == "quantifier":
        return None if value in QUANTIFIERS else "argument is no quantifier"
    if key == "language":
        return None if value in LANGUAGES else "argument is no language that can be told apart"
    return "argument is no single letter" if key == "letter" and len(value) != 1 else None
