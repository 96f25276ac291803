from typing import Any

import pytest
import yaml

from tulu_recipes.config.keys import Key, Limits
from tulu_recipes.config.values import nearest, read_value, show
from tulu_recipes.errors import Problem


def read(text: str, kinds: str, **changes: Any) -> Any:
    options: dict[str, Any] = {"choices": (), "default": None} | changes
    key = Key("k", tuple(kinds.split()), help="", group="", source="", **options)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None
    return read_value(key, node, "r.yaml line 1")


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("5e-6", "float", 5e-6),
        ("5.0e-6", "float", 5e-6),
        ("1e5", "float", 1e5),
        ("3", "float", 3.0),
        (".5", "float", 0.5),
        ("4_096", "int", 4096),
        ("-1", "int", -1),
        ("yes", "bool", True),
        ("off", "bool", False),
        ("no", "str", "no"),
        ("no", "bool str", "no"),
        ("true", "bool str", True),
        ("1e10", "str", "1e10"),
        ("0123456", "str", "0123456"),
        ("null", "null str", None),
        ("None", "null float", None),
        ("none", "null str", None),
        ("~", "null int", None),
        ("'null'", "null str", "null"),
        ("[a, 1]", "list", ["a", "1"]),
        ("all-linear", "null list", ["all-linear"]),
        ("{min_lr: 5e-7, deep: {on: [1, yes, ~]}}", "dict", {"min_lr": 5e-7, "deep": {"on": [1, "yes", None]}}),
    ],
)
def test_text_is_read_as_the_key_expects(text: str, kinds: str, value: Any) -> None:
    got = read(text, kinds)
    assert got == value
    assert type(got) is type(value)


def test_none_is_the_word_where_it_is_the_key_s_own_default() -> None:
    assert read("none", "null str list", default="none") == "none"


@pytest.mark.parametrize(
    ("text", "kinds", "said", "mend"),
    [
        ("abc", "float", "k is abc; expected is a number.", "write a number, or remove the key."),
        ("'0.1'", "float", "k is 0.1 in quotes; expected is a number.", "write  k: 0.1"),
        ("1e3", "int", "k is 1e3; expected is a whole number.", "write  k: 1000"),
        ("1,000", "int", "k is 1,000", "write  k: 1000"),
        ("2.5", "int", "k is 2.5", "write a whole number"),
        ("010", "int", "k is 010", "write  k: 10"),
        ("3%", "float", "k is 3%", "write  k: 0.03"),
        ("1", "bool", "k is 1; expected is true or false", "write  k: true"),
        ("true", "int", "k is true", "write a whole number"),
        ("nan", "float", "k is nan", "write a number"),
        (".inf", "float", "k is .inf", "write a number"),
        ("[3]", "int", "k is a list", "write  k: 3"),
        ("[3, 4]", "int", "k is a list", "write a whole number"),
        ("{a: 1}", "float", "k is a mapping; expected is a number.", "write a number"),
        ("[{a: 1}]", "list", "k is a list", "write a list"),
        ("{a: 1, a: 2}", "dict", "k is a mapping", "write a mapping"),
        ("~", "int", "k has no value; expected is a whole number.", "write a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_value_that_would(text: str, kinds: str, said: str, mend: str) -> None:
    problem = read(text, kinds)
    assert isinstance(problem, Problem)
    assert problem.slug == "wrong-type"
    assert said in problem.what
    assert mend in problem.mend


def test_a_number_outside_its_range_is_refused_with_the_range() -> None:
    problem = read("1.5", "float", limits=Limits(0, 1), default=0.1)
    assert (problem.slug, problem.what) == ("out-of-range", "k is 1.5; it must be at least 0 and at most 1.")
    assert "0.1" in problem.mend
    assert read("0", "float", limits=Limits(0, open_low=True)).what == "k is 0.0; it must be above 0."
    assert read("1", "float", limits=Limits(0, 1)) == 1.0


def test_a_word_that_is_no_choice_names_the_nearest() -> None:
    problem = read("adamw-torch", "str", choices=("adamw_torch", "sgd"))
    assert (problem.slug, problem.mend) == ("unknown-choice", "write  k: adamw_torch")
    assert "Valid: adamw_torch, sgd." in problem.what
    assert read("zzz", "str", choices=("adamw_torch", "sgd")).mend == "write one of adamw_torch, sgd."


def test_nearest_ignores_case_and_dashes() -> None:
    assert nearest("Learning-Rate", ["learning_rate", "seed"]) == "learning_rate"
    assert nearest("qqqq", ["learning_rate", "seed"]) == ""


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (5e-6, "float"),
        (1e-08, "float"),
        (1.5e300, "float"),
        (0.03, "float"),
        (3.0, "float"),
        (None, "null str"),
        (True, "bool"),
        (-1, "int"),
        ("no", "str"),
        ("none", "str"),
        ("null", "null str"),
        ("5e-6", "str"),
        ("a: b # c", "str"),
        ("<pad>", "str"),
        ("tüllü \"q\" 'q'\n", "str"),
        ("./a/b-c.yaml", "str"),
        ("", "str"),
        (["a", "b"], "list"),
        ({"min_lr": 5e-07, "on": True}, "dict"),
    ],
)
def test_a_shown_value_reads_back_as_itself(value: Any, kinds: str) -> None:
    assert read(show(value), kinds) == value


def test_shown_floats_are_floats_in_plain_yaml_too() -> None:
    for number in (5e-6, 1e-8, 2e-5, 0.03, 1e22):
        assert yaml.safe_load(show(number)) == number


def test_a_hub_token_is_not_repeated_in_a_message() -> None:
    problem = read("hf_abcdefghijkl", "int")
    assert "hf_..." in problem.what
    assert "abcdefgh" not in problem.render()
