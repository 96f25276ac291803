"""The slow way through a rollout of PPO: one conversation at a time, unpadded, Python floats, plain autograd and SGD.

Shares no line with the package: it knows of no padding, mask, gathered count or second trainer.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class Sample:
    """One completion. score: None where nothing could score it, which leaves it out of everything."""

    prompt: list[int]
    completion: list[int]
    score: float | None


@dataclass(frozen=True)
class Settings:
    temperature: float = 1.0
    beta: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    epochs: int = 1
    rate: float = 1.0
    value_rate: float = 1.0
    vf_coef: float = 0.1
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    reduction: Literal["dapo", "bnpo"] = "dapo"
    kl_in_loss: bool = False
    estimator: Literal["k1", "k2", "k3"] = "k1"


@dataclass
class Account:
    """What happened on the way, to see that a test covers it. value_losses: of each optimizer step."""

    clipped_tokens: int = 0
    clipped_values: int = 0
    value_losses: list[float] = field(default_factory=list)
    mean_kl: float = 0.0


@dataclass(frozen=True)
class Known:
    """What is fixed for a sample once it has been scored."""

    sample: Sample
    old_logps: torch.Tensor
    ref_logps: torch.Tensor
    old_values: torch.Tensor
    returns: list[float]
    advantages: list[float]


def logps(model: Any, sample: Sample, temperature: float) -> torch.Tensor:
    """Of the completion's tokens, (n,)."""
    ids = sample.prompt + sample.completion
    hidden = model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
    logits = model.lm_head(hidden)[0] / temperature
    every = logits - logits.exp().sum(-1, keepdim=True).log()
    return torch.stack([every[place - 1, ids[place]] for place in range(len(sample.prompt), len(ids))])


def values(model: Any, sample: Sample) -> torch.Tensor:
    """Before each of the completion's tokens, (n,)."""
    ids = torch.tensor([sample.prompt + sample.completion])
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return torch.stack(
        [hidden[len(sample.prompt) - 1 + t] @ model.score.weight[0] for t in range(len(sample.completion))]
    )


def kl(difference: torch.Tensor, estimator: str) -> torch.Tensor:
    return {"k1": difference, "k2": difference * difference / 2, "k3": torch.exp(-difference) - 1 + difference}[
        estimator
    ]


def account_for(policy: Any, reference: Any, critic: Any, samples: Sequence[Sample], with_: Settings) -> list[Known]:
    """Log-probs, values, returns and whitened advantages of a rollout."""
    found: list[Known] = []
    for sample in samples:
        with torch.no_grad():
            ours, theirs = logps(policy, sample, with_.temperature), logps(reference, sample, with_.temperature)
            worth = values(critic, sample)
        paid = [0.0] * len(ours)
        if not with_.kl_in_loss:
            paid = [-with_.beta * penalty for penalty in kl(ours - theirs, with_.estimator).tolist()]
        paid[-1] += sample.score or 0.0
        advantages, ahead, after = [0.0] * len(paid), 0.0, 0.0
        for t in range(len(paid) - 1, -1, -1):
            ahead = paid[t] + with_.gamma * after - float(worth[t]) + with_.gamma * with_.lam * ahead
            after = float(worth[t])
            advantages[t] = ahead
        returns = [advantage + float(value) for advantage, value in zip(advantages, worth, strict=True)]
        found.append(Known(sample, ours, theirs, worth, returns, advantages))
    every = [advantage for known in found for advantage in known.advantages]
    mean, spread = statistics.fmean(every), (statistics.variance(every) + 1e-8) ** 0.5
    for known in found:
        known.advantages[:] = [(advantage - mean) / spread for advantage in known.advantages]
    return found


def policy_losses(policy: Any, known: Known, with_: Settings, account: Account) -> torch.Tensor:
    now = logps(policy, known.sample, with_.temperature)
    losses = []
    for t, advantage in enumerate(known.advantages):
        ratio = torch.exp(now[t] - known.old_logps[t])
        low, high = 1 - with_.cliprange, 1 + with_.cliprange
        bound = high if advantage > 0 else low
        if (float(ratio.detach()) - bound) * advantage > 0:  # it gains nothing beyond
            ratio = torch.tensor(bound)
            account.clipped_tokens += 1
        losses.append(-ratio * advantage)
        if with_.kl_in_loss:
            losses[-1] = losses[-1] + with_.beta * kl(now[t] - known.ref_logps[t], with_.estimator)
    return torch.stack(losses)


def value_losses(critic: Any, known: Known, with_: Settings, account: Account) -> torch.Tensor:
    losses = []
    for value, old, target in zip(values(critic, known.sample), known.old_values.tolist(), known.returns, strict=True):
        step = float(value.detach()) - old
        if step * (target - old) > 0 and abs(step) > with_.cliprange_value:  # too far towards the return
            near = old + with_.cliprange_value * (1 if step > 0 else -1)
            if abs(near - target) > abs(old + step - target):
                value = torch.tensor(near)
                account.clipped_values += 1
        losses.append((value - target) ** 2 / 2)
    return torch.stack(losses)


def train(
    policy: Any, reference: Any, critic: Any, minibatches: Sequence[Sequence[Sequence[Sample]]], with_: Settings
) -> Account:
    """All optimizer steps on one rollout, in place. minibatches: of micro-batches of samples."""
    account = Account()
    scored = [[[s for s in batch if s.score is not None] for batch in step] for step in minibatches]
    samples = [sample for step in scored for batch in step for sample in batch]
    known = {id(k.sample): k for k in account_for(policy, reference, critic, samples, with_)}
    gaps = [float((k.old_logps - k.ref_logps).sum()) for k in known.values()]
    tokens = sum(len(sample.completion) for sample in samples)
    account.mean_kl = sum(gaps) / tokens
    for _ in range(with_.epochs):
        for step in scored:
            batches = [[known[id(sample)] for sample in batch] for batch in step]
            for model, losses_of, rate in (
                (policy, policy_losses, with_.rate),
                (critic, value_losses, with_.value_rate * with_.vf_coef),
            ):
                sums = [torch.cat([losses_of(model, k, with_, account) for k in batch]) for batch in batches if batch]
                if with_.reduction == "dapo":
                    loss = torch.cat(sums).sum() / (tokens / len(scored))
                else:
                    loss = torch.stack([part.mean() for part in sums]).sum() / len(batches)
                descend(model, loss, rate)
                if model is critic:
                    account.value_losses.append(float(loss.detach()))
    return account


def descend(model: torch.nn.Module, loss: torch.Tensor, rate: float) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= rate * gradient
