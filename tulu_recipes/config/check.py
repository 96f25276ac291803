"""What may not be combined (first version: nothing is refused here yet)."""

import os
from collections.abc import Callable, Mapping

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem

ReadText = Callable[..., str | None]


def check_recipe(
    recipe: Recipe,
    *,
    read_text: ReadText | None = None,
    hub_checks: Callable[[Recipe], list[Problem]] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Problem]:
    return hub_checks(recipe) if hub_checks else []
