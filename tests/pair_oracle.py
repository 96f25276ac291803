"""The slow way to the step of a preference stage: one conversation at a time, full logits, plain autograd.

Shares no line with the package: it neither patches the model nor knows of padding, weights, divisors or micro-batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Row = Mapping[str, Any]  # chosen_ids, rejected_ids, chosen_mask, rejected_mask


@dataclass(frozen=True)
class Step:
    """gradients: parameter name -> gradient. loss: of the step. logged: what a log line should say beside it."""

    gradients: dict[str, torch.Tensor]
    loss: float
    logged: dict[str, float]


@dataclass(frozen=True)
class Compared:
    """Log-probs of the compared tokens of one pair, (n,) each, by the policy and by the reference."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor


def token_logps(model: torch.nn.Module, ids: Sequence[int], mask: Sequence[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    every = logits - logits.exp().sum(-1, keepdim=True).log()
    return torch.stack([every[place - 1, ids[place]] for place in range(1, len(ids)) if mask[place]])


def compare(model: torch.nn.Module, reference: torch.nn.Module, pairs: Sequence[Row]) -> list[Compared]:
    found = []
    for pair in pairs:
        ours = [token_logps(model, pair[f"{side}_ids"], pair[f"{side}_mask"]) for side in ("chosen", "rejected")]
        with torch.no_grad():
            ref = [token_logps(reference, pair[f"{s}_ids"], pair[f"{s}_mask"]) for s in ("chosen", "rejected")]
        found.append(Compared(*ours, *ref))
    return found


def minus_log_sigmoid(value: torch.Tensor) -> torch.Tensor:
    return torch.log1p(torch.exp(-value))


def dpo_step(
    model: torch.nn.Module,
    reference: torch.nn.Module,
    pairs: Sequence[Row],
    losses: Mapping[str, float],
    beta: float,
) -> Step:
    """`losses`: weight of sigmoid, sigmoid_norm and sft, each in words of one line."""
    seen = compare(model, reference, pairs)
    mean = "sigmoid_norm" in losses
    gains = [(_total(p.chosen - p.ref_chosen, mean), _total(p.rejected - p.ref_rejected, mean)) for p in seen]
    preferred = torch.stack([minus_log_sigmoid(beta * (chosen - rejected)) for chosen, rejected in gains]).mean()
    imitated = -torch.cat([pair.chosen for pair in seen]).mean()
    loss = preferred * sum(weight for name, weight in losses.items() if name != "sft") + imitated * losses.get(
        "sft", 0
    )
    logged = _sides("rewards", gains, beta)
    for side in ("chosen", "rejected"):
        ours, ref = (
            torch.cat([getattr(p, f"{which}{side}").detach() for p in seen]).double() for which in ("", "ref_")
        )
        logged[f"kl/{side}"] = float((ours - ref).mean())
        logged[f"logps_per_token/{side}"] = float(ours.mean())
        logged[f"lengths/{side}"] = len(ours) / len(pairs)
    return Step(_gradients(model, loss), float(loss.detach()), logged)


def simpo_step(model: torch.nn.Module, pairs: Sequence[Row], beta: float, gamma: float) -> Step:
    means = [(p.chosen.mean(), p.rejected.mean()) for p in compare(model, model, pairs)]
    loss = torch.stack([minus_log_sigmoid(beta * (chosen - rejected) - gamma) for chosen, rejected in means]).mean()
    logged = _sides("rewards", means, beta)
    return Step(_gradients(model, loss), float(loss.detach()), logged)


def score(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """A reward model's head at the last token of a conversation."""
    return model.score(model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1])[0]


def reward_step(model: torch.nn.Module, pairs: Sequence[Row]) -> Step:
    scores = [(score(model, pair["chosen_ids"]), score(model, pair["rejected_ids"])) for pair in pairs]
    loss = torch.stack([minus_log_sigmoid(chosen - rejected) for chosen, rejected in scores]).mean()
    sides = _sides("rewards", scores)
    logged = {
        "rewards/chosen": sides["rewards/chosen"],
        "rewards/rejected": sides["rewards/rejected"],
        "margin": sides["rewards/margins"],
        "accuracy": sides["rewards/accuracies"],
        "mean_reward": (sides["rewards/chosen"] + sides["rewards/rejected"]) / 2,
    }
    return Step(_gradients(model, loss), float(loss.detach()), logged)


def _total(values: torch.Tensor, mean: bool) -> torch.Tensor:
    return values.mean() if mean else values.sum()


def _sides(name: str, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], beta: float = 1.0) -> dict[str, float]:
    chosen, rejected = ([beta * float(value.detach()) for value in side] for side in zip(*pairs, strict=True))
    return {
        f"{name}/chosen": sum(chosen) / len(chosen),
        f"{name}/rejected": sum(rejected) / len(rejected),
        f"{name}/margins": (sum(chosen) - sum(rejected)) / len(chosen),
        f"{name}/accuracies": sum(_rank(a, b) for a, b in zip(chosen, rejected, strict=True)) / len(chosen),
    }


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad], strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def _rank(chosen: float, rejected: float) -> float:
    if chosen == rejected:
        return 0.5
    return 1.0 if chosen > rejected else 0.0
