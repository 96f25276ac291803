from typing import NoReturn

import pytest

from tulu_recipes.config.entry import run_cli
from tulu_recipes.errors import HubError, Problem, RecipeError, TrainingError

PROBLEM = Problem("slug", "here", "what.", "mend.")


def raising(error: BaseException) -> "type[object]":
    def main() -> NoReturn:
        raise error

    return main  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RecipeError(PROBLEM), 2, "slug  here\n    what.\n    Mend: mend.\n"),
        (HubError(PROBLEM), 1, "slug  here\n    what.\n    Mend: mend.\n"),
        (KeyboardInterrupt(), 130, "Interrupted. Run the same command again: it goes on from what is saved.\n"),
    ],
)
def test_what_a_user_can_mend_is_a_message_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(raising(error), {}) == code  # type: ignore[arg-type]
    assert capsys.readouterr().err == said
    for environ in ({"LOCAL_RANK": "1"}, {"RANK": "1", "LOCAL_RANK": "1"}, {"RANK": "8", "LOCAL_RANK": "0"}):
        assert run_cli(raising(error), environ) == code  # type: ignore[arg-type]
        assert capsys.readouterr().err == ""
    assert run_cli(raising(error), {"RANK": "0", "LOCAL_RANK": "0"}) == code  # type: ignore[arg-type]
    assert capsys.readouterr().err == said


def test_what_one_rank_alone_may_meet_is_said_by_that_rank(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(raising(TrainingError(PROBLEM)), {"RANK": "1", "LOCAL_RANK": "1"}) == 1  # type: ignore[arg-type]
    assert "slug  here" in capsys.readouterr().err


def test_main_s_own_code_is_kept_and_none_is_success() -> None:
    assert run_cli(lambda: 3, {}) == 3
    assert run_cli(lambda: None, {}) == 0


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cli(raising(ZeroDivisionError()), {})  # type: ignore[arg-type]
