"""What a run really was: read from its live objects, never from the settings it was asked with."""

from collections.abc import Callable

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer

from tests.layouts import copy_weights

MODES = ("ddp", "fsdp2", "zero2", "zero3")


class FallbackError(AssertionError):
    """A launch that fell back to something else than was asked for."""


def parallelism(trainer: Trainer) -> str:
    """One of `MODES` or "single", of a trainer that has trained."""
    model = trainer.model_wrapped
    parameters = list(trainer.model.parameters())
    if hasattr(model, "zero_optimization_stage"):
        stage = model.zero_optimization_stage()
        sharded = [hasattr(p, "ds_id") and p.ds_tensor.numel() < p.ds_numel for p in parameters]
        return f"zero{stage}" if all(sharded) == (stage == 3) else f"zero{stage} in name only"
    # one row, as of a score head, is on one rank alone
    if all(isinstance(p, DTensor) and (p.to_local().numel() < p.numel() or len(p) == 1) for p in parameters):
        return "fsdp2"
    return "ddp" if isinstance(model, torch.nn.parallel.DistributedDataParallel) else "single"


def require(trainer: Trainer, mode: str, processes: int) -> None:
    """Raises: FallbackError."""
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if (found := parallelism(trainer)) != mode or world != processes:
        raise FallbackError(f"asked for {mode} on {processes} processes, ran {found} on {world}")


def whole_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights put together from the shards of all ranks; every rank takes part."""
    gather: dict[str, Callable[[torch.nn.Parameter], torch.Tensor]] = {"fsdp2": _of_dtensor, "zero3": _of_zero3}
    mode = parallelism(trainer)
    if mode not in gather:
        return copy_weights(trainer.model)
    return {name: gather[mode](parameter) for name, parameter in trainer.model.named_parameters()}


def _of_dtensor(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert isinstance(parameter, DTensor)
    return parameter.full_tensor().detach().clone()


def _of_zero3(parameter: torch.nn.Parameter) -> torch.Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()
