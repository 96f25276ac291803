"""Verdicts on hand-written answers, labels of constraint rows, and a math process that cannot hang anybody."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.errors import DataError
from tulu_recipes.verifiers import Verdict, math, verify
from tulu_recipes.verifiers.ifeval_schema import ARGUMENTS, label_fault


@pytest.mark.parametrize(
    ("completion", "label", "outcome"),
    [
        ("She has 48 + 24 = 72 clips.", "72", "correct"),
        ("#### 2,125", "2,125", "correct"),
        ("It costs $1,234.50.", "1234.5", "correct"),
        ("The change is -5.", "-5", "correct"),
        ("The change is \u22125", "-5", "correct"),
        ("The change is -5.", "5", "wrong"),
        ("10-5", "5", "correct"),  # a minus between numbers is an operator
        ("between 3-4", "4", "correct"),
        ("72.0", "72", "correct"),
        ("72 and then 71", "72", "wrong"),
        ("no idea", "72", "wrong"),
        ("1" * 5000, "1", "wrong"),
        ("72", "seventy-two", "error"),
        ("72", "", "error"),
        ("5", "١٢", "error"),
        ("18", "$18", "correct"),
        ("18", " 18% ", "correct"),
        ("5", "-" + " " * 100_000, "error"),
    ],
)
def test_gsm8k_takes_the_last_number(completion: str, label: str, outcome: str) -> None:
    verdict = verify("gsm8k", completion, label)
    assert verdict.outcome == outcome
    assert verdict.score == (outcome == "correct")
    assert bool(verdict.reason) == (outcome != "correct")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("completion", "label", "outcome"),
    [
        ("Thus $\\boxed{\\frac{2}{4}}$.", "\\frac{1}{2}", "correct"),
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}", "correct"),
        ("\\boxed{1+x}", "x+1", "correct"),
        ("The final answer is $0.5$. I hope it is correct.", "$\\frac12$", "correct"),
        ("\\boxed{50\\%}", "50\\%", "correct"),
        ("\\boxed{\\text{east}}", "\\text{east}", "correct"),
        ("\\boxed{12}, no, wait: \\boxed{13}", "13", "correct"),
        ("\\boxed{13}, no, wait: \\boxed{12}", "13", "wrong"),
        ("$x=\\boxed{1}$ and $y=\\boxed{2}$", "1,2", "correct"),
        ("\\boxed{3}", "4", "wrong"),
        ("no formula here", "4", "wrong"),
        ("\\boxed{3}", "\\frac{1}{", "error"),
        ("\\boxed{3}", "", "error"),
    ],
)
def test_math_compares_formulas(completion: str, label: str, outcome: str) -> None:
    assert verify("MATH", completion, label).outcome == outcome


@pytest.mark.integration
def test_any_thread_may_ask() -> None:
    """SIGALRM, which math-verify uses, works in main threads alone."""
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(verify("math", "\\boxed{10.0}", "10")))
    thread.start()
    thread.join(60)
    assert found == [Verdict("correct", 1.0)]


FORKING = """
import os
from tulu_recipes.verifiers import verify

def all_say(answer, outcome):
    return {verify("math", answer, "3").outcome for _ in range(300)} == {outcome}

assert all_say("3", "correct")
worker = os.fork()
if not worker:
    verify("math", "4", "3")
    os._exit(0 if all_say("4", "wrong") else 7)
assert all_say("3", "correct")
assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
"""


@pytest.mark.integration
def test_a_forked_worker_asks_a_child_of_its_own() -> None:
    """Both would otherwise read each other's answers from one pipe. In a process without threads, as forks want."""
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=120, cwd=Path(__file__).parents[2])


def test_a_missing_library_and_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, semantics in (("gsm8", "fixed"), ("code", "as_released"), ("string_match", "as_released")):
        with pytest.raises(DataError) as refused:
            verify(name, "1", "1", semantics)
        assert refused.value.slugs == ["verifier-unknown"]
    with pytest.raises(DataError, match="verifier-unknown"):
        verify(None, "1", "1")  # type: ignore[arg-type]
    monkeypatch.setattr(math.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as missing:
        verify("math", "1", "1")
    assert missing.value.slugs == ["verifier-library"]
    assert "tulu-recipes[eval]" in str(missing.value)


FINE: dict[str, Any] = {
    "N": 3,
    "i": 1,
    "keyword_list": ["a"],
    "forbidden_words": ["a", "b"],
    "options": ["yes", "no"],
    "quantifier": "around",
    "language": "de",
}


def test_the_25_functions_accept_their_own_arguments_and_no_others() -> None:
    assert len(ARGUMENTS) == 25
    everything = sorted({name for names in ARGUMENTS.values() for name in names})
    for function, names in ARGUMENTS.items():
        label = {"func_name": function, **dict.fromkeys(everything), **{name: FINE.get(name, "x") for name in names}}
        assert label_fault(json.dumps(label)) is None
        for name in names:
            assert label_fault(json.dumps({**label, name: None})) == "label lacks an argument"
        foreign = next(name for name in everything if name not in names)
        assert label_fault(json.dumps({**label, foreign: "x"})) == "label has an argument too many"


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("verify_keywords", "label is not JSON"),
        ('["verify_keywords"]', "label is not an object"),
        ('{"N": 3}', "label has no func_name"),
        ('{"func_name": 3}', "label has no func_name"),
        ('{"func_name": "is_polite"}', "label names an unknown function"),
        ('{"func_name": "validate_placeholders", "N": "3"}', "argument is no count"),
        ('{"func_name": "validate_placeholders", "N": true}', "argument is no count"),
        ('{"func_name": "validate_placeholders", "N": -1}', "argument is no count"),
        ('{"func_name": "verify_keywords", "keyword_list": "a"}', "argument is no list of words"),
        ('{"func_name": "verify_keywords", "keyword_list": []}', "argument is no list of words"),
        ('{"func_name": "verify_keywords", "keyword_list": [""]}', "argument is no list of words"),
        ('{"func_name": "validate_choice", "options": []}', "argument is no list of words"),
        ('{"func_name": "validate_choice", "options": 5}', "argument is no text"),
        ('{"func_name": "validate_choice", "options": "[]"}', "argument is no list of words"),
        ('{"func_name": "validate_end", "end_phrase": ""}', "argument is no text"),
        ('{"func_name": "validate_choice", "options": "yes or no"}', None),
        ('{"func_name": "verify_sentence_constraint", "N": 1, "quantifier": "exactly"}', "argument is no quantifier"),
        ('{"func_name": "verify_letter_frequency", "letter": "ab", "N": 1}', "argument is no single letter"),
        (
            '{"func_name": "validate_response_language", "language": "German"}',
            "argument is no language that can be told apart",
        ),
        (
            '{"func_name": "validate_paragraphs", "N": 2, "first_word": "So", "i": 3}',
            "argument names a paragraph that is not there",
        ),
        ('{"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}', None),
        ('{"instruction_id_list": [], "kwargs": []}', "label names no instruction"),
        ('{"instruction_id_list": ["count:emoji"], "kwargs": [{}]}', "label names an unknown instruction"),
        ('{"instruction_id_list": [["x"]], "kwargs": [{}]}', "label names an unknown instruction"),
        (
            '{"instruction_id_list": ["startend:quotation"], "kwargs": []}',
            "label has not one kwargs for each instruction",
        ),
        ('{"instruction_id_list": ["startend:quotation"]}', "label has not one kwargs for each instruction"),
        (
            '{"instruction_id_list": ["startend:quotation"], "kwargs": ["x"]}',
            "kwargs of an instruction are no object",
        ),
        ('{"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]}', "label lacks an argument"),
        ("[{'instruction_id': ['startend:quotation'], 'kwargs': [None]}]", None),
        ("[{'instruction_id': ['startend:quotation'], 'kwargs': [None]}", "label is not JSON"),
        ("[" + "-" * 100000 + "1]", "label is not JSON"),
        ("[]", "label is not an object"),
        ("", "label is empty"),
        ("[" * 100000, "label is not JSON"),
    ],
)
def test_labels_that_no_constraint_can_be_checked_with(label: str, fault: str | None) -> None:
    assert label_fault(label) == fault
