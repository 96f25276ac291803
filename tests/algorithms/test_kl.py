"""k1, k2 and k3 on distributions over two tokens, where the expectation is a sum of two terms."""

import math

import pytest
import torch

from tulu_recipes.algorithms.kl import LARGEST, estimate_kl

PAIRS = [(0.5, 0.5), (0.9, 0.3), (0.2, 0.7), (0.01, 0.99)]


def expectation(estimator: str, p: torch.Tensor, q: float) -> torch.Tensor:
    """Under the policy (p, 1 − p), of what is estimated against the reference (q, 1 − q)."""
    policy = torch.stack([p, 1 - p])
    reference = torch.tensor([q, 1 - q], dtype=policy.dtype)
    return (policy * estimate_kl(policy.log(), reference.log(), estimator)).sum()


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_k1_and_k3_are_the_divergence_in_expectation(p: float, q: float) -> None:
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    for estimator in ("k1", "k3"):
        assert float(expectation(estimator, torch.tensor(p, dtype=torch.float64), q)) == pytest.approx(kl, abs=1e-12)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_the_gradient_of_k2_of_samples_is_the_divergences(p: float, q: float) -> None:
    # d/dp of p ln(p/q) + (1−p) ln((1−p)/(1−q))
    want = math.log(p / q) - math.log((1 - p) / (1 - q))
    gradients = {}
    for estimator in ("k1", "k2"):
        point = torch.tensor(p, dtype=torch.float64, requires_grad=True)
        logps = torch.stack([point, 1 - point]).log()
        weights = torch.stack([point, 1 - point]).detach()  # samples are drawn, not differentiated
        reference = torch.tensor([q, 1 - q], dtype=torch.float64).log()
        (weights * estimate_kl(logps, reference, estimator)).sum().backward()
        gradients[estimator] = float(point.grad)
    assert gradients["k2"] == pytest.approx(want, abs=1e-12)
    assert gradients["k1"] == pytest.approx(0, abs=1e-12)


def test_numbers_by_hand() -> None:
    logps, ref = torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([-2.0, -1.0, -2.0])
    assert estimate_kl(logps, ref, "k1").tolist() == [1.0, -2.0, 0.0]
    assert estimate_kl(logps, ref, "k2").tolist() == [0.5, 2.0, 0.0]
    assert estimate_kl(logps, ref, "k3").tolist() == pytest.approx([math.exp(-1), math.exp(2) - 3, 0.0], rel=1e-6)


def test_k3_of_distant_models_stays_finite() -> None:
    far = estimate_kl(torch.tensor([-500.0, 0.0]), torch.tensor([0.0, -500.0]), "k3")
    assert far.tolist() == pytest.approx([math.exp(LARGEST) - 1 - LARGEST, math.exp(-LARGEST) - 1 + LARGEST], rel=1e-6)
