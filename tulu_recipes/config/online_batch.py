"""Completions, rollouts and optimizer steps of the stage rlvr: what follows from the keys that a recipe gives.

A rollout is global_batch_size × num_minibatches completions, num_generations of each prompt. It is trained on
num_iterations times: num_minibatches × num_iterations optimizer steps.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

from tulu_recipes.config.batch import BatchPlan
from tulu_recipes.config.online_keys import DEFAULTS

TRL_PER_DEVICE_EVAL_BATCH_SIZE = 8


def derive_online(values: Mapping[str, Any], batch: BatchPlan | None) -> dict[str, Any]:
    """Values of keys that a recipe left out: of its algorithm, the rollout and the steps.

    Args:
        values: of the keys that were given.
        batch: None when the global batch is a reported problem; what depends on it is then left out.
    """
    defaults = DEFAULTS.get(values.get("algorithm", "ppo"), {})
    derived = {key: value for key, value in defaults.items() if values.get(key) is None}
    if batch is None:
        return derived
    generations = {**defaults, **values}["num_generations"]
    if values.get("per_device_eval_batch_size") is None:
        group = values.get("num_generations_eval") or generations
        derived["per_device_eval_batch_size"] = eval_batch_size(group, batch.num_processes)
    derived["generation_batch_size"] = batch.global_batch_size * values.get("num_minibatches", 1)
    steps = steps_of_episodes(values, batch)
    if steps is not None and values.get("max_steps") is None:
        derived["max_steps"] = steps
    return derived


def steps_of_episodes(values: Mapping[str, Any], batch: BatchPlan) -> int | None:
    """Optimizer steps that `total_episodes` asks for: whole rollouts, the last one counts as a whole."""
    if values.get("total_episodes") is None:
        return None
    minibatches = values.get("num_minibatches", 1)
    rollouts = ceil(values["total_episodes"] / (batch.global_batch_size * minibatches))
    return int(rollouts * minibatches * values.get("num_iterations", 1))


def eval_batch_size(generations: int, processes: int) -> int:
    """The smallest size per device from TRL's 8 on, at which all processes hold whole groups of samples."""
    size = TRL_PER_DEVICE_EVAL_BATCH_SIZE
    while size * processes % generations:
        size += 1
    return size
