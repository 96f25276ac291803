"""Estimators of KL(policy ‖ reference) on tokens that the policy sampled.

Source: J. Schulman, "Approximating KL divergence" (2020), who names them k1, k2 and k3.
"""

from typing import Literal, get_args

import torch

Estimator = Literal["k1", "k2", "k3"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
LARGEST = 40.0  # nats; beyond it k3 overflows [OIg]


def estimate_kl(logps: torch.Tensor, ref_logps: torch.Tensor, estimator: Estimator) -> torch.Tensor:
    """Per token, in nats, any shape: k1 = d, k2 = d²/2, k3 = exp(−d) − 1 + d with d = logps − ref_logps.

    k1 and k3 are unbiased in value; the gradient of k2's mean is that of the KL divergence, k1's is 0 in expectation.
    """
    difference = logps - ref_logps
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    difference = difference.clamp(-LARGEST, LARGEST)
    return torch.expm1(-difference) + difference
