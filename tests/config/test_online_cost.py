"""Steps, completions and memory that `plan` tells of RLVR, against numbers worked out by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tulu_recipes.config.memory import MemoryEstimate
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.config.online_cost import (
    OnlineMemory,
    cache_bytes,
    completions,
    online_flops_per_token,
    online_steps,
)
from tulu_recipes.config.recipe import Recipe

Load = Callable[..., Recipe]
TEXT = "max_prompt_length: 60\nmax_completion_length: 40\nglobal_batch_size: 8\nnum_minibatches: 2\n"
SHAPE = ModelShape.from_config(
    {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 2,
        "vocab_size": 10,
        "max_position_embeddings": 128,
    }
)


@pytest.mark.parametrize(
    ("keys", "prompts", "steps", "sampled"),
    [
        ("total_episodes: 100\n", 50, 14, 112),  # ⌈100/16⌉ = 7 rollouts of 2 steps
        ("total_episodes: 100\nnum_iterations: 3\n", 50, 42, 112),
        ("total_episodes: 100\nstop_after_steps: 5\n", 50, 5, 48),  # the third rollout is begun
        ("num_train_epochs: 2\n", 50, 12, 96),  # 3 whole rollouts of 16 prompts an epoch
        ("num_train_epochs: 2\nnum_generations: 4\n", 50, 48, 384),  # 12 rollouts of 4 prompts
        ("max_steps: 9\n", 50, 9, 80),
    ],
)
def test_steps_and_completions(keys: str, prompts: int, steps: int, sampled: int, load: Load) -> None:
    recipe = load(TEXT + keys, stage="rlvr")
    assert online_steps(recipe, prompts) == steps
    assert completions(recipe, steps) == sampled


def test_a_rollout_s_keys_and_values(load: Load) -> None:
    recipe = load(TEXT, stage="rlvr", num_processes=2)
    # 16 completions on 2 processes × 100 tokens × 3 layers × (2 heads × 2) keys and as many values × 2 bytes
    assert cache_bytes(recipe, SHAPE, 2, 2) == 8 * 100 * 3 * 4 * 2 * 2


def test_the_peak_is_the_largest_moment() -> None:
    parts = {"weights": 10, "masters": 1, "gradients": 10, "optimizer": 20, "activations": 5, "logits": 1}
    policy = MemoryEstimate(**parts, working=0, reference=9, moments={"a": 90})  # keeps 50
    value = replace(policy, reference=0, moments={"a": 70})  # keeps 41
    assert OnlineMemory(policy, value, cache=0).total == 131
    assert OnlineMemory(policy, replace(value, moments={"a": 99}), cache=0).total == 149
    assert OnlineMemory(policy, value, cache=100).total == 191
    assert OnlineMemory(policy, None, cache=7).total == 90


def test_passes_and_models_cost_operations(load: Load) -> None:
    grpo = load(TEXT + "algorithm: grpo\n", stage="rlvr")
    one = online_flops_per_token(grpo, SHAPE, None, length=0.0)
    # a layer: 8·8 (q) + 2·8·4 (k, v) + 8·8 (o) + 3·8·16 = 576 weights; 3 layers and a head of 80: 1,808
    # training 6 per weight and 2 of the layers' again (checkpointing is TRL's default); one forward of 2
    assert one == 6 * 1808 + 2 * 1728 + 2 * 1808
    with_reference = load(TEXT + "algorithm: grpo\nbeta: 0.1\n", stage="rlvr")
    assert online_flops_per_token(with_reference, SHAPE, None, length=0.0) == one + 2 * 1808
    ppo = load(TEXT + "beta: 0\nnum_iterations: 2\n", stage="rlvr")
    trained = 2 * (6 * 1808 + 2 * 1728) + 2 * 1808
    assert online_flops_per_token(ppo, SHAPE, SHAPE, length=0.0) == trained + 2 * (8 * 1728) + 2 * 1728
