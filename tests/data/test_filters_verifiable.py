"""RLVR rows that can be graded stay; the reasons of the others."""

import json
from typing import Any

import pytest

from tulu_recipes.data.filters import make_filter
from tulu_recipes.errors import DataError

pytestmark = pytest.mark.integration  # math-verify takes two seconds to load, in its process


def row(dataset: str, truth: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "q"}]
    return {"messages": messages, "ground_truth": truth, "dataset": dataset, "constraint": None, **more}


def reason(shown: dict[str, Any], **params: Any) -> str | None:
    return make_filter("verifiable", params, target="rlvr", tokenizer=None)(shown)


def constraint(**label: Any) -> dict[str, Any]:
    return row("ifeval", json.dumps(label), constraint="Use no commas.")


def test_labels_of_all_three_verifiers() -> None:
    assert reason(row("gsm8k", "2,125")) is None
    assert reason(row("GSM8K", "eleven")) == "label is no number"
    assert reason(row("MATH", "\\frac{1}{2}")) is None
    assert reason(row("MATH", "\\frac{1}{")) == "label is no formula"
    assert reason(constraint(func_name="validate_no_commas", N=None)) is None
    assert reason(constraint(func_name="validate_no_comma")) == "label names an unknown function"
    assert reason(row("ifeval", '{"func_name": "validate_no_commas"}')) == "constraint is missing"
    assert reason(row("poetry", "x")) == "no verifier for its dataset"


def test_labels_of_the_other_verifiers() -> None:
    assert reason(row("multiple_choice", "B")) is None
    assert reason(row("multiple_choice", "BC")) == "label is no letter"
    assert reason(row("string_match", " ")) == "label is empty"
    ids = '{"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}'
    assert reason(row("ifeval", ids)) is None  # these rows have no sentence of their own
    assert reason(row("json:dumps", "anything")) is None  # a function of the user's own judges its labels itself
    with pytest.raises(DataError, match="has no attribute 'nothing'"):
        reason(row("json:nothing", "anything"))


def test_a_solution_must_be_graded_correct() -> None:
    right = row("gsm8k", "72", solution="48 + 24 = 72\n#### 72")
    assert reason(right, solution_column="solution") is None
    assert (
        reason({**right, "solution": "so 71"}, solution_column="solution")
        == "its solution is graded wrong: another number"
    )
    assert reason({**right, "ground_truth": "x"}, solution_column="solution") == "label is no number"
    assert reason({**right, "solution": None}, solution_column="solution") is None
    proof = row("MATH", "\\frac12", solution="Thus $\\boxed{\\frac{2}{4}}$.")
    assert reason(proof, solution_column="solution") is None
    assert reason({**proof, "solution": "$\\boxed{3}$"}, solution_column="solution") == (
        "its solution is graded wrong: another answer"
    )


def test_a_solution_must_follow_its_constraint() -> None:
    quiet = constraint(func_name="validate_no_commas")
    assert reason({**quiet, "solution": "No comma."}, solution_column="solution") is None
    assert reason({**quiet, "solution": "No comma.", "constraint": " "}, solution_column="solution") == (
        "constraint is missing"
    )
    assert reason({**quiet, "solution": "One, two."}, solution_column="solution") == (
        "its solution is graded wrong: validate_no_commas is not followed"
    )


def test_a_solution_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="The rows have no column solution"):
        reason(row("gsm8k", "5"), solution_column="solution")
