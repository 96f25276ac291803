"""What PPO adds to a policy loss that TRL has: rewards per token, the clipped value loss, how good values are.

The clipped policy loss is TRL's (GRPOTrainer with advantages per token); docs/minimal/ppo.py has all in one loop.
Source: PPO, arXiv 1707.06347; [OIr] ppo_vllm_thread_ray_gtrl.py.
"""

from typing import Literal

import torch

from tulu_recipes.algorithms.advantages import Reduce

ScorePlacement = Literal["last_token", "as_released"]


def token_rewards(
    scores: torch.Tensor, penalties: torch.Tensor, completion_mask: torch.Tensor, placement: ScorePlacement
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards of each token, and the positions that have a value.

    Args:
        scores: (B,), of whole completions.
        penalties: (B, T), taken from each token's reward, such as β × KL.
        completion_mask: (B, T).
        placement: last_token: the score belongs to the last token that counts; as_released: to the position after
            it where the tensor has one, which then has a value too (a quirk of the released code).
    Returns:
        rewards, value_mask: (B, T) each. Completions without a token get nothing.
    """
    mask = completion_mask.bool()
    lengths = mask.sum(1)
    last = (lengths - 1).clamp(min=0)
    if placement == "as_released":
        last = lengths.clamp(max=mask.size(1) - 1)
    rewards = -penalties.masked_fill(~mask, 0.0)
    some = lengths > 0
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last] += torch.where(some, scores, 0.0).to(rewards.dtype)
    value_mask = mask.clone()
    value_mask[rows, last] |= some
    return rewards, value_mask


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, cliprange: float
) -> torch.Tensor:
    """½·max((v − R)², (clip(v, v_old ± cliprange) − R)²), per token, any shape."""
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def explained_variance(
    values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, reduce_sum: Reduce = lambda total: total
) -> float:
    """1 − Var(R − v) / Var(R) over the masked positions: 1 for perfect values, 0 for a constant; 0 where R is."""
    exact = torch.float32 if values.device.type == "mps" else torch.float64
    kept = [tensor[mask.bool()].to(exact) for tensor in (returns, returns - values)]
    count, *means = reduce_sum(torch.stack([mask.sum().to(exact), *(column.sum() for column in kept)]))
    means = [total / count.clamp(min=1) for total in means]
    of_returns, of_errors = reduce_sum(
        torch.stack([((column - mean) ** 2).sum() for column, mean in zip(kept, means, strict=True)])
    ).tolist()
    return 1.0 - of_errors / of_returns if of_returns > 1e-8 * float(count) else 0.0
