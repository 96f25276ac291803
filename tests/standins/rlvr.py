"""Stand-ins of the RLVR sets: prompts with what their verifier needs."""

import json

import pyarrow as pa

from tests.standins.table import MESSAGES, Row, Standin, one_split, schema
from tests.standins.text import Text

STRING = pa.string()
LAYOUT = schema(messages=MESSAGES, ground_truth=STRING, dataset=STRING, constraint_type=STRING, constraint=STRING)
MATH_LAYOUT = schema(messages=MESSAGES, ground_truth=STRING, dataset=STRING)
# Every argument of every constraint function; those that a constraint does not take are null.
ARGUMENTS = (
    "N quantifier end_phrase keyword_list word forbidden_words letter i first_word postscript_marker options "
    "section_splitter original_prompt"
).split()


def user(content: str) -> list[dict[str, str]]:
    return [{"content": content, "role": "user"}]


def gsm8k_row(text: Text, number: int) -> Row:
    a, b = text.number(), text.number()
    prompt = f"Question: {text.sentence()} How many are {a} and {b} together?\nAnswer:"
    return {"messages": user(prompt), "ground_truth": str(a + b), "dataset": "gsm8k"}


def math_row(text: Text, number: int) -> Row:
    a, b = text.number(), text.number()
    prompt = f"Problem:\n{text.sentence()} Compute $\\frac{{{a}}}{{{b}}}$.\n\nSolution:"
    return {"messages": user(prompt), "ground_truth": f"\\frac{{{a}}}{{{b}}}", "dataset": "MATH"}


def ifeval_row(text: Text, number: int) -> Row:
    function, kind, sentence, given = (
        ("validate_lowercase", "All Lowercase", "Answer in lowercase letters only.", {}),
        ("verify_paragraph_count", "Number Paragraphs", "Write 3 paragraphs separated by ***.", {"N": 3}),
        (
            "verify_keywords",
            "Include Keywords",
            "Use the words harbour and kettle.",
            {"keyword_list": ["harbour", "kettle"]},
        ),
    )[number % 3]
    truth = {"func_name": function, **dict.fromkeys(ARGUMENTS), **given}
    row = {"messages": user(f"{text.question()} {sentence}"), "ground_truth": json.dumps(truth), "dataset": "ifeval"}
    return {**row, "constraint_type": kind, "constraint": sentence}


def mixed_row(text: Text, number: int) -> Row:
    """A quarter GSM8K, a quarter MATH, half constraints, as in the published set."""
    make = (gsm8k_row, ifeval_row, math_row, ifeval_row)[number % 4]
    return {"constraint_type": None, "constraint": None} | make(text, number // 2)


RLVR = {
    "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints": Standin(one_split(LAYOUT, mixed_row)),
    "allenai/RLVR-MATH": Standin(one_split(MATH_LAYOUT, math_row), "mit", assumed="that it has no constraint columns"),
    "allenai/RLVR-GSM": Standin(one_split(MATH_LAYOUT, gsm8k_row), "mit", assumed="that it has no constraint columns"),
    "allenai/RLVR-IFeval": Standin(one_split(LAYOUT, ifeval_row)),
}
