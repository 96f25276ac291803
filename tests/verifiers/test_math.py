"""MATH under both semantics: vectors, the released rules beside lm-eval's copy of them, and hostile text."""

import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.tasks.hendrycks_math import utils as hendrycks
from lm_eval.tasks.minerva_math import utils as minerva

from tulu_recipes.verifiers import Question, VerifierPool, math_answer, math_released
from tulu_recipes.verifiers.math_size import is_too_large
from tulu_recipes.verifiers.verdict import CORRECT, error

VECTORS = Path(__file__).parents[1] / "vectors" / "math.jsonl"
integration = pytest.mark.integration  # a worker takes half a second to start


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(2) as pool:
        yield pool


@integration
@pytest.mark.parametrize("semantics", ["fixed", "as_released"])
def test_vectors(pool: VerifierPool, semantics: str) -> None:
    """Each line has its rule's name; where the two semantics differ, a fault of the release shows."""
    vectors = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    asked = [Question("math", vector["completion"], vector["ground_truth"]) for vector in vectors]
    found = pool.verify_all(asked, semantics)
    pairs = list(zip(vectors, found, strict=True))
    assert [vector for vector, verdict in pairs if verdict.outcome != vector[semantics]] == []
    assert all(bool(verdict.reason) == (verdict.outcome != "correct") for verdict in found)
    assert len(vectors) > 70


PIECES = ["\\boxed{", "\\boxed ", "\\boxed", "\\fbox{", "}", "{", "$", "a ", "5", "\\", "x"]


def test_the_released_box_is_found_as_lm_eval_finds_it() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 9)))
        whole = hendrycks.last_boxed_only_string(text)
        try:
            expected = None if whole is None else hendrycks.remove_boxed(whole)
        except AssertionError:
            expected = None
        assert math_released.last_boxed(text) == expected, text


STRINGS = ["\\frac", "\\dfrac", "1", "2", "{3}", "{.5}", ".5", "/", "=", "x", "\\sqrt", " ", "\\left(", "\\right)"]
STRINGS += ["\\text{ cm}", "\\%", "^\\circ", "^{\\circ}", "\\$", "\\!", "\\\\", "\n", "0.5", "-"]


def test_texts_are_equal_at_the_release_where_lm_eval_says_so() -> None:
    draw = random.Random(0)
    equal = 0
    for _ in range(6000):
        first, second = ("".join(draw.choices(STRINGS, k=draw.randint(0, 3))) for _ in range(2))
        assert math_released.same_text(first, second) == hendrycks.is_equiv(first, second), (first, second)
        equal += math_released.same_text(first, second) and first != second
    assert equal > 50


FINAL = ["12", "x=", "$", "\\frac12", "\\frac{1}{2}", "\\sqrt3", "\\text{and}x", "\\text{east}", "\\textbf{5}", " "]
FINAL += ["\\overline{7}", "\\boxed{8}", ".$", "a ", "{,}", "\\dots", "^\\circ", "\n", "\\mbox{m}", '"', "an "]


def test_final_answers_are_normalised_at_the_release_as_by_lm_eval() -> None:
    """Away from what lm-eval has mended since: words within commands, indexed roots, commas of a list."""
    draw = random.Random(0)
    for _ in range(1000):
        text = "".join(draw.choices(FINAL, k=draw.randint(0, 6)))
        assert math_released.normalised(text) == minerva.normalize_final_answer(text), text
    assert math_released.normalised("\\left(1\\right)") == "\\le(1\\right)"  # "ft" is a unit
    assert math_released.normalised("0,1") == "01"
    assert math_released.normalised("\\sqrt[3]8") == "\\sqrt{[}3]8"
    assert math_released.normalised("12 square inches") == "12"


def test_the_released_sentence_is_the_one_lm_eval_finds() -> None:
    said = "Final Answer: The final answer is"
    parts = [said, " 5", ". ", "I hope it is correct.", "\n", "! I hope it is correct?"]
    for text in map("".join, itertools.product(parts, repeat=4)):
        assert math_released.minerva_answer(text) == minerva.get_unnormalized_answer(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{1} then \\boxed{2}", ["1", "2"]),
        ("\\boxed{\\frac{1}{2}}", ["\\frac{1}{2}"]),
        ("\\boxed{\\{1\\}}", ["\\{1\\}"]),
        ("\\boxed{1 \\boxed{2} 3}", ["2"]),
        ("} { \\boxed{1} \\boxed{2", ["1"]),
        ("\\boxed{} \\fbox{3}", ["3"]),
        ("$\\boxed 5$ or $\\boxed\\frac{1}{2}$", ["5", "\\frac{1}{2}"]),
        ("\\boxed 5 is what I get, not $6$", ["5"]),
        ("\\boxedsymbol{3} \\unboxed{4}", []),
        ("\\boxed", []),
    ],
)
def test_what_boxes_hold(text: str, found: list[str]) -> None:
    assert math_answer.boxed(text) == found


@pytest.mark.parametrize("piece", ["\\text{", "\\boxed{", "a ", "$", "\\frac", "9"])
def test_the_released_rules_take_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    math_released.normalised(text)
    assert math_released.candidates(text)
    assert not math_released.same_text(text, "7")
    assert time.process_time() - start < 1.0


HUGE = [
    "{",
    "}",
    "\\boxed{",
    "\\boxed ",
    "\\boxed",
    "$",
    "$ ",
    "\\(",
    "\\",
    "(",
    "Final answer is ",
    "9^{",
    "\x00",
    "٣",
]


@pytest.mark.parametrize("piece", HUGE)
def test_an_answer_is_looked_for_in_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    found = math_answer.ways(text)
    assert time.process_time() - start < 1.0  # quadratic: at least 5
    assert found


@pytest.mark.parametrize(
    ("formula", "too_large"),
    [
        ("9^{9^{9^9}}", True),
        ("9**9**9**9", True),
        ("2^{1000000}", True),
        ("10^{-9^{9}}", True),
        ("7^{7^7}", True),
        ("123456!", True),
        ("((9!)!)!", True),
        ("2^{10}", False),
        ("2^{2^{3}}", False),
        ("2^{2^n}", False),
        ("x^{999999999}", False),
        ("2^{2010}", False),
        ("10^{100}", False),
        ("1.05^{30}", False),
        ("10!", False),
        ("3.5", False),
    ],
)
def test_numbers_that_nobody_can_compute_are_known_by_their_text(formula: str, too_large: bool) -> None:
    assert is_too_large(formula) == is_too_large(f"\\left( {formula} \\right)") == too_large
    assert is_too_large("9" * 2000 + "^") is False  # at once


@integration
def test_a_tower_costs_nothing_and_is_no_wrong_answer() -> None:
    asked = [Question("math", "\\boxed{9^{9^{9^9}}}", "7"), Question("math", "\\boxed{9^{9^{9^9}}}", "9^{9^{9^9}}")]
    with VerifierPool(1) as pool:
        assert pool.verify_all(asked) == [error("too large to compute"), CORRECT]


@integration
def test_hostile_text_is_an_error_or_wrong_and_costs_one_sample() -> None:
    tower = "9^{9^{9^9}}"
    hostile = [
        Question("math", text * (100_000 // len(text)), "7") for text in ("{", "\\boxed{", "7 1", "\\frac", "$x$ ")
    ]
    hostile += [Question("math", f"\\boxed{{{'(' * 40}1{')' * 40}}}", "7")]
    hostile += [Question("math", f"\\boxed{{{tower}}}", "7"), Question("math", "\\boxed{7}", tower)]
    hostile += [Question("math", "\\boxed{\\binom{99999999}{4999999}}", "7")]
    good = Question("math", "\\boxed{7}", "7")
    asked = [question for bad in hostile for question in (bad, good)]
    with VerifierPool(2, seconds=0.5) as pool:
        for found in (pool.verify_all(asked), pool.verify_all(asked[:4] + asked[-4:], "as_released")):
            assert set(found[1::2]) == {CORRECT}
            assert "correct" not in {verdict.outcome for verdict in found[::2]}
