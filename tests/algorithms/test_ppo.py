"""Rewards per token, the clipped value loss and explained variance, by hand."""

import pytest
import torch

from tulu_recipes.algorithms.ppo import clipped_value_loss, explained_variance, token_rewards

# completions of 2, 4 (all of the tensor), 0 and 1 tokens
MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
SCORES = torch.tensor([10.0, 20.0, 30.0, 40.0])
# 99s, and a number that is none, where nothing counts
PENALTIES = torch.tensor([[1.0, 2.0, 99.0, 99.0], [1.0, 2.0, 3.0, 4.0], [99.0] * 4, [0.5, torch.nan, 99.0, 99.0]])


def test_the_score_belongs_to_the_last_token() -> None:
    rewards, value_mask = token_rewards(SCORES, PENALTIES, MASK, "last_token")
    assert rewards.tolist() == [[-1, 8, 0, 0], [-1, -2, -3, 16], [0] * 4, [39.5, 0, 0, 0]]
    assert torch.equal(value_mask, MASK.bool())


def test_as_released_the_score_comes_one_position_later_where_there_is_one() -> None:
    rewards, value_mask = token_rewards(SCORES, PENALTIES, MASK, "as_released")
    assert rewards.tolist() == [[-1, -2, 10, 0], [-1, -2, -3, 16], [0] * 4, [-0.5, 40, 0, 0]]
    assert value_mask.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [0] * 4, [1, 1, 0, 0]]
    assert torch.equal(MASK.bool(), MASK != 0)  # and the mask given is left as it was


def test_a_score_that_is_no_number_does_not_reach_a_completion_without_tokens() -> None:
    scores = torch.tensor([1.0, torch.nan])
    rewards, _ = token_rewards(scores, torch.zeros(2, 3), torch.tensor([[1, 1, 0], [0, 0, 0]]), "last_token")
    assert rewards.tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [
        (1.0, 1.0, 3.0, 2.0),  # unmoved: ½·2²
        (2.0, 1.0, 3.0, 0.5 * 1.8**2),  # moved too far towards the return: counted at 1.2
        (0.0, 1.0, 3.0, 4.5),  # moved away: not excused
        (1.1, 1.0, 3.0, 0.5 * 1.9**2),  # within the range
    ],
)
def test_a_value_gains_nothing_by_moving_further_than_the_range(
    value: float, old: float, target: float, loss: float
) -> None:
    values = torch.tensor([value], requires_grad=True)
    found = clipped_value_loss(values, torch.tensor([old]), torch.tensor([target]), 0.2)
    assert found.item() == pytest.approx(loss, rel=1e-6)
    found.sum().backward()
    assert float(values.grad) == pytest.approx(0.0 if value == 2.0 else value - target, rel=1e-6)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0, torch.nan], [6.0, torch.inf, 0.0, 0.0]])  # 1, 2, 3, 6: Σ(R − 3)² = 14
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 5.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(returns + 100, returns, mask) == pytest.approx(1.0)  # a shift is no variance
    assert explained_variance(-returns, returns, mask) == pytest.approx(1 - 4)  # errors 2R
    values = torch.tensor([[1.0, 2.0, 3.0, 7.0], [2.0, 7.0, 7.0, 7.0]])  # errors 0, 0, 0, 4: Σ(e − 1)² = 12
    assert explained_variance(values, returns, mask) == pytest.approx(1 - 12 / 14)


def test_of_equal_returns_there_is_nothing_to_explain() -> None:
    assert explained_variance(torch.randn(2, 3), torch.full((2, 3), 0.1), torch.ones(2, 3)) == 0.0
    assert explained_variance(torch.randn(2, 3), torch.randn(2, 3), torch.zeros(2, 3)) == 0.0
