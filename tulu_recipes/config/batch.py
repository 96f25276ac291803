"""Global batch size = processes × per-device size × accumulation: solved, or refused.

The recipe states how many sequences an optimizer step holds; the machine only decides how they are
divided. A number of processes that cannot make the stated size is refused: another size would be
another experiment.
"""

from dataclasses import dataclass

from tulu_recipes.errors import Problem, RecipeError

# TRL's own values, used only when the recipe does not state global_batch_size
TRL_PER_DEVICE_TRAIN_BATCH_SIZE = 8
TRL_GRADIENT_ACCUMULATION_STEPS = 1


@dataclass(frozen=True)
class BatchPlan:
    """How one optimizer step is made: global = processes × per device × accumulation, in sequences."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_processes: int
    global_batch_size: int


def solve_batch(
    global_batch_size: int | None,
    num_processes: int,
    per_device_train_batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    where: str = "",
) -> BatchPlan:
    """The one division of a global batch over the processes that agrees with everything stated.

    Only global_batch_size: one sequence per device and the rest accumulated, which needs the least memory.
    Without global_batch_size, TRL's product of what is stated and its defaults (8 and 1) defines it.

    Args:
        where: recipe line that problems are reported at.
    Raises:
        RecipeError: batch-not-divisible or batch-contradiction, with the numbers that would work.
    """
    if global_batch_size is None:
        per_device = per_device_train_batch_size or TRL_PER_DEVICE_TRAIN_BATCH_SIZE
        accumulation = gradient_accumulation_steps or TRL_GRADIENT_ACCUMULATION_STEPS
        return BatchPlan(per_device, accumulation, num_processes, num_processes * per_device * accumulation)
    if per_device_train_batch_size and gradient_accumulation_steps:
        _check_product(
            global_batch_size, num_processes, per_device_train_batch_size, gradient_accumulation_steps, where
        )
        return BatchPlan(per_device_train_batch_size, gradient_accumulation_steps, num_processes, global_batch_size)
    stated = per_device_train_batch_size or gradient_accumulation_steps or 1
    rest, left = divmod(global_batch_size, num_processes * stated)
    if left:
        name = "per_device_train_batch_size" if per_device_train_batch_size else "gradient_accumulation_steps"
        raise RecipeError(_not_divisible(global_batch_size, num_processes, stated, name, where))
    if gradient_accumulation_steps:
        return BatchPlan(rest, gradient_accumulation_steps, num_processes, global_batch_size)
    return BatchPlan(stated, rest, num_processes, global_batch_size)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _processes(count: int) -> str:
    return f"{count} process" if count == 1 else f"{count} processes"


def _not_divisible(global_size: int, processes: int, stated: int, name: str, where: str) -> Problem:
    unit = processes * stated
    below = global_size // unit
    product = f"{processes} × {stated}" if stated > 1 else f"{processes}"
    near = f"{product} × {below + 1} = {unit * (below + 1)}"
    if below:
        near = f"{product} × {below} = {unit * below}, {near}"
    named = f" with {name} {stated}" if stated > 1 else ""
    what = (
        f"{_processes(processes)}{named} cannot make a global batch of {global_size} ({near}). "
        "Another size would change the optimizer steps."
    )
    return Problem("batch-not-divisible", where, what, _working_counts(global_size, processes, stated, name))


def _working_counts(global_size: int, processes: int, stated: int, name: str) -> str:
    if global_size % stated:
        return f"choose {name} so that it divides {global_size}, or remove it."
    counts = _divisors(global_size // stated)
    lower = [count for count in counts if count < processes]
    upper = [count for count in counts if count > processes]
    nearest = " or ".join(str(count) for count in (*lower[-1:], *upper[:1]))
    listed = f"{len(counts)} counts work" if len(counts) > 16 else f"any of {', '.join(map(str, counts))} works"
    mend = f"use {nearest} processes ({listed})"
    if stated > 1 and global_size % processes == 0:
        mend += f", or remove {name}"
    return mend + "."


def _check_product(global_size: int, processes: int, per_device: int, accumulation: int, where: str) -> None:
    product = processes * per_device * accumulation
    if product == global_size:
        return
    what = (
        f"{_processes(processes)} × per_device_train_batch_size {per_device} × gradient_accumulation_steps "
        f"{accumulation} = {product}, but global_batch_size is {global_size}."
    )
    mend = "remove gradient_accumulation_steps, or both: they are solved from global_batch_size."
    if global_size % (processes * per_device) == 0:
        mend = f"write  gradient_accumulation_steps: {global_size // (processes * per_device)}  or remove it."
    raise RecipeError(Problem("batch-contradiction", where, what, mend))
