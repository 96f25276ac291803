"""The part of `plan` for RLVR: prompts and completions, memory of policy and value model, hours without generation."""

from rich.console import Console
from rich.table import Table

from tulu_recipes import hub
from tulu_recipes.config.check_machine import Written, written_bytes
from tulu_recipes.config.cost import UNPACKED_MFU, Gpu, estimate_cost
from tulu_recipes.config.memory import Sharding
from tulu_recipes.config.model_files import files_of
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.config.online_cost import (
    OnlineMemory,
    completions,
    kept,
    online_flops_per_token,
    online_steps,
)
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.surroundings import Surroundings

GIB = 2**30


def value_shape(recipe: Recipe, policy: ModelShape) -> ModelShape | None:
    """None without a value model. One that cannot be read yet is taken to be as large as the policy."""
    if recipe["algorithm"] != "ppo":
        return None
    name = recipe["value_model_name_or_path"]
    files = files_of(name, None, Surroundings(read_text=hub.read_text)) if name else None
    return ModelShape.from_config(files.config) if files is not None and files.config else policy


def print_work(console: Console, recipe: Recipe, prompts: int, tokens: int, *, exact: bool) -> None:
    """Prompts of an epoch, and what the steps generate."""
    steps = online_steps(recipe, prompts)
    sampled = completions(recipe, steps)
    known = "exact" if exact else "as stated"
    console.print(f"prompts {prompts:,} · {tokens:,} tokens ({known})")
    console.print(
        f"steps   {steps:,} · {sampled:,} completions of at most {recipe['max_completion_length']:,} tokens, "
        f"{recipe['num_generations']} of a prompt: each prompt {sampled / recipe['num_generations'] / prompts:,.2f} "
        "times"
    )


def print_memory(console: Console, recipe: Recipe, estimates: dict[Sharding, OnlineMemory]) -> None:
    tokens = recipe["max_prompt_length"] + recipe["max_completion_length"]
    console.print(f"\nMemory per device, GiB · prompt and completion of {tokens:,} tokens, each as long as allowed")
    table = Table()
    for heading in ("sharding", "policy", "reference", "value model", "activations", "KV cache", "peak"):
        table.add_column(heading, justify="left" if heading == "sharding" else "right", no_wrap=True)
    for level, memory in estimates.items():
        policy, value = memory.policy, memory.value
        cells = [
            kept(policy) - policy.reference,
            policy.reference,
            kept(value) if value else 0,
            max(policy.activations, value.activations if value else 0),
            memory.cache,
            memory.total,
        ]
        table.add_row(level, *[f"{size / GIB:,.2f}" for size in cells])
    console.print(table)
    engine = (
        f"vLLM on these devices takes {recipe['vllm_gpu_memory_utilization']:.0%} of each on top"
        if recipe["use_vllm"] and recipe["vllm_mode"] == "colocate"
        else "vLLM has devices of its own"
        if recipe["use_vllm"]
        else "generation: all completions of a device at a time"
    )
    console.print(f"estimated, not measured for RLVR: weights with gradients and optimizer of both models; {engine}")


def print_cost(
    console: Console,
    recipe: Recipe,
    shapes: tuple[ModelShape, ModelShape | None],
    gpus: list[Gpu],
    *,
    num_processes: int,
    prompts: tuple[int, int] | None,
    mfu: float | None,
    price_per_hour: float | None,
) -> None:
    """prompts: how many an epoch has, and their tokens; None: not known, and the longest are taken."""
    mean = prompts[1] / prompts[0] if prompts else float(recipe["max_prompt_length"])
    length = mean + recipe["max_completion_length"]
    steps = online_steps(recipe, prompts[0] if prompts else 0)
    sampled = completions(recipe, steps) or 1_000_000
    flops = online_flops_per_token(recipe, shapes[0], shapes[1], length=length)
    reached = mfu or UNPACKED_MFU
    of = "" if steps else " for each 1,000,000 completions"
    console.print(
        f"\nTime of training{of}, at most: completions as long as allowed · {flops:.3g} FLOPs a token · {reached:.0%} "
        "of the GPU's peak reached (--mfu)"
    )
    table = Table()
    for heading in ("GPU", "GPUs", "hours", "GPU hours", *(["price"] if price_per_hour is not None else [])):
        table.add_column(heading, justify="left" if heading == "GPU" else "right")
    for gpu in gpus:
        cost = estimate_cost(sampled * length, flops, gpu, num_processes, reached, price_per_hour)
        cells = [gpu.name, str(num_processes), f"{cost.hours:,.3g}", f"{cost.gpu_hours:,.3g}"]
        table.add_row(*cells, *([f"{cost.price:,.2f}"] if cost.price is not None else []))
    console.print(table)
    console.print("generation comes on top, and often takes longer; no formula tells how fast it is")


def print_disk(console: Console, recipe: Recipe, saved: int, value: ModelShape | None) -> None:
    of_policy = written_bytes(recipe, saved)
    of_value = written_bytes(recipe, value.scorer_parameters) if value else Written(0, 0, 0)
    both = Written(of_policy.copies, of_policy.weights + of_value.weights, of_policy.state + of_value.state)
    console.print(f"\nDisk: {both.describe()}", soft_wrap=True)
