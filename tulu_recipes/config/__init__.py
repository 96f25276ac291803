"""The recipe language: keys, files, overrides, batch arithmetic, and what may not be combined.

Nothing here imports torch, trl or transformers: a broken file is answered in a second.
"""

from tulu_recipes.config.batch import BatchPlan, solve_batch
from tulu_recipes.config.check import check_recipe
from tulu_recipes.config.entry import run_cli
from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.recipe import Recipe

__all__ = ["BatchPlan", "Recipe", "check_recipe", "load_recipe", "run_cli", "solve_batch"]
