"""Every check of a recipe that needs no torch: one list, all problems at once."""

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from tulu_recipes.config import (
    check_data,
    check_machine,
    check_online,
    check_preference,
    check_training,
    model_files,
    online_files,
)
from tulu_recipes.config.recipe import Recipe, UnresolvedKey
from tulu_recipes.config.surroundings import ReadText, Surroundings, free_bytes, has_module
from tulu_recipes.errors import HubError, Problem

Check = Callable[[Recipe, Surroundings], Iterator[Problem]]

CHECKS: tuple[Check, ...] = (
    check_training.check_consents,
    *check_data.CHECKS,
    *check_training.CHECKS,
    *check_machine.CHECKS,
)
CHECKS_OF_STAGE: Mapping[str, tuple[Check, ...]] = MappingProxyType(
    {
        "sft": check_training.SFT_CHECKS,
        "reward": (),
        "dpo": check_preference.CHECKS,
        "rlvr": (*check_online.CHECKS, *online_files.CHECKS),
    }
)


def check_recipe(
    recipe: Recipe,
    *,
    read_text: ReadText | None = None,
    hub_checks: Callable[[Recipe], list[Problem]] | None = None,
    environ: Mapping[str, str] = os.environ,
    has_module: Callable[[str], bool] = has_module,
    free_bytes: Callable[[str], int] = free_bytes,
) -> list[Problem]:
    """Every combination, path and model file of the recipe that would train something else, or nothing.

    Args:
        read_text: reads a small file of a Hub repository (tulu_recipes.hub.read_text); None: local models only.
        hub_checks: rights and repositories, where the Hub may be asked.
        has_module, free_bytes: what is installed and what is free; tests replace them.
    """
    surroundings = Surroundings(environ, read_text, has_module, free_bytes)
    problems: list[Problem] = []
    for check in (*CHECKS, *CHECKS_OF_STAGE[recipe.stage], *model_files.CHECKS):
        problems += _run(check, recipe, surroundings)
    return problems + (hub_checks(recipe) if hub_checks else [])


def _run(check: Check, recipe: Recipe, surroundings: Surroundings) -> list[Problem]:
    found: list[Problem] = []
    try:
        found.extend(check(recipe, surroundings))
    except UnresolvedKey:
        pass  # the value it asked for is a reported problem already
    except HubError as error:
        found += error.problems
    return found
