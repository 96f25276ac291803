"""Checks that ask the Hub: are model and data there, may we read them, may we push."""

from collections.abc import Iterator
from pathlib import Path

from tulu_recipes import hub
from tulu_recipes.config.online_files import SCORERS
from tulu_recipes.config.recipe import Recipe, UnresolvedKey
from tulu_recipes.config.surroundings import is_local
from tulu_recipes.errors import Problem


def hub_problems(recipe: Recipe) -> list[Problem]:
    """Every reason why the Hub would refuse this recipe, now or at the end; nothing is created or downloaded."""
    problems: list[Problem] = []
    for check in (_check_model, _check_data, _check_push):
        try:
            problems += check(recipe)
        except UnresolvedKey:
            continue  # its value is a reported problem already
        if any(problem.slug == "hub-unreachable" for problem in problems):
            break  # the others would wait for the same answer
    return problems


def hub_model_id(recipe: Recipe) -> str:
    """Where a recipe pushes to: hub_model_id, else the name of the run folder, as in transformers."""
    return str(recipe["hub_model_id"] or Path(recipe["output_dir"]).name)


def _check_model(recipe: Recipe) -> Iterator[Problem]:
    revisions = {"model_name_or_path": recipe["model_revision"]}
    revisions |= {key: None for key in SCORERS if recipe.values.get(key)}
    for key, revision in revisions.items():
        name = recipe[key]
        built = key == "model_name_or_path" and recipe["model_builder"]
        if name and not built and not is_local(name) and not recipe.untrained(key):
            yield from hub.check_readable(name, repo_type="model", revision=revision, where=recipe.where(key))


def _check_data(recipe: Recipe) -> Iterator[Problem]:
    for key, revision in (("dataset_name", recipe["dataset_revision"]), ("eval_dataset_name", None)):
        if recipe[key] and not is_local(recipe[key]):
            yield from hub.check_readable(recipe[key], repo_type="dataset", revision=revision, where=recipe.where(key))


def _check_push(recipe: Recipe) -> Iterator[Problem]:
    if recipe["push_to_hub"]:
        where = recipe.where("hub_model_id" if recipe["hub_model_id"] else "push_to_hub")
        yield from hub.check_writable(hub_model_id(recipe), private=recipe["hub_private_repo"], where=where)
