"""Rules that run in the caller's process: no long answer keeps them, whatever it is made of."""

import json
import time

import pytest

from tulu_recipes.errors import DataError
from tulu_recipes.verifiers import find_verifier, ifeval_language, verify
from tulu_recipes.verifiers.ifeval_schema import ARGUMENTS, INSTRUCTIONS, LISTS, NUMBERS

LENGTH = 40_000
SECONDS = 0.4  # each takes some hundredths; what reads on from every character takes seconds
PIECES = (
    "a| |\n|*|-|[|<|<<|.|!|\"|(|1|1,|\x00|\u05d0|* * * |******|\n\n|\n |[a|A |a-|a'|(a|answer: |\\boxed{|**|<answer>|"
    "\u3042。|\ud800|a@"
).split("|")
VALUES = {"quantifier": "around", "language": "de", "options": ["a", "b"], "i": 1, "nth_paragraph": 1}


def labels() -> list[str]:
    def value(key: str) -> object:
        if key in VALUES or key.endswith("relation"):
            return VALUES.get(key, "at least")
        return 3 if key in NUMBERS else ["a", "b a"] if key in LISTS else "a"

    functions = [
        {"func_name": name, **{key: value(key) for key in keys}}
        for name, keys in ARGUMENTS.items()
        if "language" not in name
    ]
    ids = [name for name in INSTRUCTIONS if "language" not in name]
    arguments = [{key: value(key) for key in INSTRUCTIONS[name]} for name in ids]
    several = {"instruction_id_list": ids, "kwargs": arguments}
    return [json.dumps(label) for label in [*functions, several]]


@pytest.mark.integration
def test_no_answer_keeps_a_rule_for_seconds() -> None:
    questions = [("ifeval", label) for label in labels()]
    questions += [("gsm8k", "5"), ("string_match", "a"), ("multiple_choice", "A")]
    ifeval_language.language_of("x")  # langdetect loads its profiles
    for piece in PIECES:
        completion = (piece * LENGTH)[:LENGTH]
        for name, label in questions:
            verifier = find_verifier(name)
            for grade in filter(None, (verifier.grade, verifier.grade_as_released)):
                start = time.process_time()
                grade(completion, label)
                assert time.process_time() - start < SECONDS, (name, label, piece)


def test_langdetect_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ifeval_language._factory.cache_clear()
    monkeypatch.setattr(ifeval_language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as missing:
        verify("ifeval", "Guten Tag", '{"func_name": "validate_response_language", "language": "de"}')
    assert missing.value.slugs == ["verifier-library"]
    assert "tulu-recipes[rlvr]" in str(missing.value)


def test_the_language_of_a_very_long_text_is_read_from_its_start() -> None:
    ifeval_language.language_of("x")
    start = time.process_time()
    assert ifeval_language.language_of("Der Hund schläft heute im Garten. " * 100_000) == "de"
    assert time.process_time() - start < SECONDS


def test_the_language_is_the_same_every_time() -> None:
    """langdetect draws at random: unseeded, this is Portuguese or English by turns."""
    assert len({ifeval_language.language_of("no commas here") for _ in range(20)}) == 1
