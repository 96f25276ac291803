"""Generalised advantage estimation, and what is done to advantages before they weigh the policy's loss.

Source: GAE, arXiv 1506.02438; the mask and the whitening as in [OIr] ppo_vllm_thread_ray_gtrl.py.
"""

from collections.abc import Callable

import torch

Reduce = Callable[[torch.Tensor], torch.Tensor]


def compute_gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    completion_mask: torch.Tensor,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of completions that start at position 0 and end where their mask does.

    Args:
        rewards: (B, T), reward for emitting token t.
        values: (B, T), value before token t; may be anything where the mask is 0.
        completion_mask: (B, T), 1 or True for the tokens that count; nothing follows the last of them.
        gamma: discount. lam: λ of GAE.
    Returns:
        advantages, returns: (B, T) each, 0 where the mask is 0; returns = advantages + values.
    """
    mask = completion_mask.bool()
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    following = next_value = values.new_zeros(len(values))
    for t in reversed(range(values.size(1))):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = torch.where(mask[:, t], delta + gamma * lam * following, 0.0)
        next_value = values[:, t]
        advantages[:, t] = following
    return advantages, advantages + values


def whiten(
    values: torch.Tensor, mask: torch.Tensor, reduce_sum: Reduce = lambda total: total, eps: float = 1e-8
) -> torch.Tensor:
    """Shift and scale to mean 0 and variance 1 (unbiased) over the masked positions; 0 elsewhere.

    Args:
        values, mask: (B, T).
        reduce_sum: adds a tensor of sums over the ranks that share the statistics.
        eps: added to the variance.
    """
    mask = mask.bool()
    exact = torch.float32 if values.device.type == "mps" else torch.float64  # equal values must become exactly 0
    counted = values.to(exact).masked_fill(~mask, 0.0)
    total, count = reduce_sum(torch.stack([counted.sum(), mask.sum().to(exact)]))
    centred = (counted - total / count.clamp(min=1)).masked_fill(~mask, 0.0)
    variance = reduce_sum((centred**2).sum()[None])[0] / (count - 1).clamp(min=1)
    whitened: torch.Tensor = centred * torch.rsqrt(variance + eps)
    return whitened.to(values.dtype)
