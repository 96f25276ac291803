"""The slow way to a gradient: one row at a time, full logits, torch's own cross-entropy, plain autograd.

Shares no line with the package: it neither patches the model nor knows of weights, divisors or micro-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Step:
    """gradients: parameter name -> gradient. loss: mean over supervised tokens, nats."""

    gradients: dict[str, torch.Tensor]
    loss: float
    supervised_tokens: int


def token_losses(model: LlamaForCausalLM, row: Row) -> torch.Tensor:
    """Loss of each supervised token of one row, (n,)."""
    ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
    hidden = model.model(input_ids=ids[None], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)[0]
    losses = [cross_entropy(logits[i - 1], labels[i]) for i in range(1, len(ids)) if labels[i] != -100]
    return torch.stack(losses)


def step(model: LlamaForCausalLM, rows: Sequence[Row], reduction: str) -> Step:
    """What one optimizer step over `rows` should see, reduction by reduction, in words of one line each."""
    losses = [token_losses(model, row) for row in rows]
    every = torch.cat(losses)
    total = {
        "sum": lambda: every.sum() / len(rows),
        "token_mean": lambda: every.mean(),
        "sequence_mean": lambda: torch.stack([loss.mean() for loss in losses]).mean(),
    }[reduction]()
    return Step(_gradients(model, total), float(every.detach().mean()), len(every))


def microbatch_step(model: LlamaForCausalLM, micro_batches: Sequence[Sequence[Row]]) -> Step:
    """microbatch_mean: the mean over micro-batches of each one's mean token loss."""
    losses = [torch.cat([token_losses(model, row) for row in rows]) for rows in micro_batches]
    every = torch.cat(losses)
    total = torch.stack([loss.mean() for loss in losses]).mean()
    return Step(_gradients(model, total), float(every.detach().mean()), len(every))


def mean_loss(model: LlamaForCausalLM, rows: Sequence[Row]) -> float:
    """Mean over all supervised tokens of `rows`."""
    with torch.no_grad():
        return float(torch.cat([token_losses(model, row) for row in rows]).double().mean())


def _gradients(model: LlamaForCausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def worst_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of a tensor divided by its largest absolute entry, over all tensors."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - want).abs().max() / want.abs().max()) for name, want in expected.items())
