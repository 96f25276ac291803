"""The official instruction ids against the published checkers, on generated answers, and where we differ."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.verifiers.published_ifeval import Check, published_checks
from tulu_recipes.verifiers import verify
from tulu_recipes.verifiers.ifeval_language import _factory
from tulu_recipes.verifiers.ifeval_schema import INSTRUCTIONS, LANGUAGES

pytestmark = pytest.mark.integration  # nltk takes a second to import

PIECES = (
    "cat Cat CAT concatenate dog, no. yes! Why? I don't WELL-KNOWN 3.5 «ok» [name] [] [open ] << >> <<joy>> <poem> * "
    "** *** ****** *one* **two** ***both*** *a b* - -- _ \" ' “so” Section SECTION 1 2 12 P.S. p.s. P.P.S p. s. {} "
    "[1] 9 א"
).split()
PIECES += [
    " ",
    "  ",
    "\n",
    "\n",
    "\n\n",
    "\n\n",
    "\n* a",
    "\n- b",
    "\n  * c",
    "\n**d**",
    "Section 1",
    "Section 2\n",
    "The end.",
]
PIECES += ["My answer is yes.", "my answer is no.", "```json\n", "```", '{"a": 1}', "Name a fruit.", "\t", "\u0000"]
RELATIONS = ("at least", "less than")
ARGUMENTS: dict[str, list[Any]] = {
    "keywords": [["cat"], ["cat", "dog"], ["yes"], ["concatenate"]],
    "keyword": ["cat", "dog", "no"],
    "forbidden_words": [["cat"], ["cat", "dog"], ["fish"]],
    "letter": ["a", "T", "o"],
    "language": ["en", "de", "he"],
    "first_word": ["cat", "No", "i"],
    "postscript_marker": ["P.S.", "P.P.S"],
    "section_spliter": ["Section", "SECTION"],
    "prompt_to_repeat": ["Name a fruit.", "cat "],
    "end_phrase": ["the end.", "yes!", "Why?"],
}
NEEDS_NLTK_DATA = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}


@pytest.fixture(scope="module")
def published() -> Iterator[Check]:
    with published_checks() as follows:
        yield follows


def ours(name: str, completion: str, arguments: dict[str, Any]) -> bool:
    label = json.dumps({"instruction_id_list": [name], "kwargs": [arguments]})
    verdict = verify("ifeval", completion, label)
    assert verdict.outcome != "error", verdict
    return verdict.outcome == "correct"


def drawn(name: str, dice: random.Random) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for key in INSTRUCTIONS[name]:
        if key in ARGUMENTS:
            arguments[key] = dice.choice(ARGUMENTS[key])
        elif key.endswith("relation"):
            arguments[key] = dice.choice(RELATIONS)
        else:
            arguments[key] = (
                dice.randint(1, 4) if key != "nth_paragraph" else dice.randint(1, arguments["num_paragraphs"])
            )
    return arguments


def answer(name: str, dice: random.Random) -> str:
    text = "".join(dice.choice(PIECES) + dice.choice(("", " ")) for _ in range(dice.randint(0, 12)))
    if name.endswith("quotation"):
        return f'"{text}"' if dice.random() < 0.5 else text
    if name.endswith("json_format"):
        return (
            dice.choice(("", "```json\n", "```"))
            + dice.choice(('{"a": [1]}', "[]", "7", text))
            + dice.choice(("", "\n```"))
        )
    if name.startswith(("change_case", "language")):
        return dice.choice((str.lower, str.upper, str))(text)
    return text


def differs_on_purpose(name: str, completion: str) -> bool:
    """The differences that ifeval_official.py names and that generated answers hit."""
    if name.endswith("nth_paragraph_first_word"):
        return True  # compared below on plain paragraphs
    lines = [line.strip() for line in completion.split("\n")]
    return name.endswith("number_bullet_lists") and "*" in lines


@pytest.mark.parametrize("name", sorted(set(INSTRUCTIONS) - NEEDS_NLTK_DATA))
def test_generated_answers_are_graded_as_published(name: str, published: Check) -> None:
    dice = random.Random(name)
    rounds = 25 if "language" in name or "english" in name else 300
    seen: set[bool] = set()
    for _ in range(rounds):
        arguments, completion = drawn(name, dice), answer(name, dice)
        if differs_on_purpose(name, completion):
            continue
        expected = published(name, completion, arguments)
        seen.add(expected)
        assert ours(name, completion, arguments) == expected, (completion, arguments)
    assert seen == {True, False} or name.endswith(("nth_paragraph_first_word", "constrained_response"))


def test_the_first_word_of_plain_paragraphs(published: Check) -> None:
    dice = random.Random(0)
    name = "length_constraints:nth_paragraph_first_word"
    for _ in range(300):
        paragraphs = [
            dice.choice(("Cat sat.", '"No," he said.', "I, for one", "Nothing", "catalogue")) for _ in range(3)
        ]
        completion = "\n\n".join(paragraphs[: dice.randint(1, 3)]) + dice.choice(("", "\n\n"))
        arguments = drawn(name, dice)
        assert ours(name, completion, arguments) == published(name, completion, arguments), (completion, arguments)


@pytest.mark.parametrize(
    ("name", "completion", "arguments"),
    [
        ("keywords:existence", "abc", {"keywords": ["a.c"]}),
        ("keywords:frequency", "abc", {"keyword": "a.c", "frequency": 1, "relation": "at least"}),
        ("keywords:forbidden_words", "so C++ it is", {"forbidden_words": ["x|C"]}),
        ("detectable_format:multiple_sections", "PARTS 1", {"section_spliter": "PART.", "num_sections": 1}),
        ("detectable_format:number_bullet_lists", "*\n- b", {"num_bullets": 1}),
        (
            "length_constraints:nth_paragraph_first_word",
            "A.\n\n\n\n\n\nCat: so.",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "cat"},
        ),
    ],
)
def test_accidents_of_the_published_rules_are_not_ours(
    name: str, completion: str, arguments: dict[str, Any], published: Check
) -> None:
    assert ours(name, completion, arguments) != published(name, completion, arguments)


def test_the_languages_are_those_that_langdetect_knows() -> None:
    assert set(_factory().get_lang_list()) == LANGUAGES - {"zh"}
