"""Length-normalised DPO against numbers worked out by hand."""

import math

import pytest
import torch

from tulu_recipes.algorithms.preference import length_normalized_dpo_loss

# log-probs of two pairs, summed over 4 and 3, and 2 and 5 tokens; beta 5
#   chosen   5 * (-10 + 12) / 4 = 2.5      5 * (-3 + 3) / 2 = 0
#   rejected 5 * (-9 + 6) / 3  = -5        5 * (-8 + 10) / 5 = 2
PAIRS = [
    torch.tensor([-10.0, -3.0], requires_grad=True),
    torch.tensor([-9.0, -8.0], requires_grad=True),
    torch.tensor([-12.0, -3.0]),
    torch.tensor([-6.0, -10.0]),
    torch.tensor([4, 2]),
    torch.tensor([3, 5]),
]


def test_losses_and_rewards_are_those_worked_out_by_hand() -> None:
    losses, chosen, rejected = length_normalized_dpo_loss(*PAIRS, beta=5.0)
    assert chosen.tolist() == pytest.approx([2.5, 0.0])
    assert rejected.tolist() == pytest.approx([-5.0, 2.0])
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-7.5)), math.log1p(math.exp(2.0))])
    assert losses.requires_grad
    assert not chosen.requires_grad
    assert not rejected.requires_grad


def test_a_policy_that_is_its_reference_has_the_loss_ln_2() -> None:
    same = torch.tensor([-7.0, -2.0])
    losses, _, _ = length_normalized_dpo_loss(same, same - 1, same, same - 1, PAIRS[4], PAIRS[5], beta=5.0)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)


def test_the_gradient_is_divided_by_each_answer_s_length() -> None:
    losses, _, _ = length_normalized_dpo_loss(*PAIRS, beta=5.0)
    chosen, rejected = torch.autograd.grad(losses.sum(), PAIRS[:2])
    wrong = [1 / (1 + math.exp(7.5)), 1 / (1 + math.exp(-2.0))]  # share of the time the rejected one wins
    assert chosen.tolist() == pytest.approx([-5 / 4 * wrong[0], -5 / 2 * wrong[1]])
    assert rejected.tolist() == pytest.approx([5 / 3 * wrong[0], 5 / 5 * wrong[1]])
