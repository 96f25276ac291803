"""The rules on hand-written answers: tests/vectors/, one file a rule, with the outcomes as fixed and as released."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.verifiers import VERIFIERS, verify
from tulu_recipes.verifiers.ifeval_schema import ARGUMENTS, INSTRUCTIONS

VECTORS = Path(__file__).parents[1] / "vectors"
VERIFIER_OF = {"ifeval_official": "ifeval"}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["gsm8k", "ifeval", "ifeval_official", "string_match", "multiple_choice"])
def test_every_vector(name: str) -> None:
    for row in rows(name):
        for semantics in {"fixed", "as_released"} & set(row):
            verdict = verify(VERIFIER_OF.get(name, name), row["completion"], row["ground_truth"], semantics)
            assert verdict.outcome == row[semantics], (row, semantics, verdict)
            assert bool(verdict.reason) == (verdict.outcome != "correct")
            expected = row.get("score", float(row[semantics] == "correct")) if semantics == "fixed" else None
            assert expected in (verdict.score, None), row


def test_every_function_and_instruction_has_answers_that_follow_it_and_that_do_not() -> None:
    outcomes: dict[str, set[str]] = defaultdict(set)
    for row in rows("ifeval") + rows("ifeval_official"):
        outcomes[row["rule"]].add(row["fixed"])
    for rule in (*ARGUMENTS, *INSTRUCTIONS):
        assert outcomes[rule] >= {"correct", "wrong"}, rule


def test_every_function_but_one_differs_from_the_release_somewhere() -> None:
    differing = {row["rule"] for row in rows("ifeval") if row["fixed"] != row["as_released"]}
    assert differing == set(ARGUMENTS)  # validate_no_commas too: it followed on an empty answer


def test_the_page_gives_the_versions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \| ([0-9]+) \|", page, re.MULTILINE))
    assert stated == {name: str(verifier.version) for name, verifier in VERIFIERS.items()}
