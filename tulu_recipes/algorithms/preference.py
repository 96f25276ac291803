"""Losses of preference pairs as pure functions. TRL computes them in training; these say what the numbers are.

Shapes: B pairs. Log-probs are sums over a completion's tokens, in nats.
"""

import torch
from torch.nn.functional import logsigmoid


def length_normalized_dpo_loss(
    policy_chosen_logps: torch.Tensor,
    policy_rejected_logps: torch.Tensor,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """DPO on the mean log-ratio of a completion's tokens, with Tülu β = 5.

        -log σ( β/|y_c| · log[π(y_c)/π_ref(y_c)] − β/|y_r| · log[π(y_r)/π_ref(y_r)] )

    Args:
        *_logps: (B,) summed log-probs of the completion's tokens.
        *_lengths: (B,) how many tokens those are, at least 1.
    Returns:
        losses (B,), and the chosen and rejected rewards (B,): β × the mean log-ratio, without gradient.
    Source: arXiv 2411.15124 §5.1.2; TRL's `loss_type="sigmoid_norm"`.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps) / chosen_lengths
    rejected = beta * (policy_rejected_logps - ref_rejected_logps) / rejected_lengths
    return -logsigmoid(chosen - rejected), chosen.detach(), rejected.detach()
