"""GAE and whitening: numbers by hand, a loop over single tokens, and what garbage behind a mask does."""

import random

import pytest
import torch

from tulu_recipes.algorithms.advantages import compute_gae, whiten


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """Each advantage as the sum of (γλ)^k δ, written out; a completion of exactly these tokens."""
    size = len(values)
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * after[t] - values[t] for t in range(size)]
    advantages = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, size)) for t in range(size)]
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]


def test_without_discount_an_advantage_is_the_terminal_reward_less_the_value() -> None:
    # three completions of 3, 2 and 4 tokens with values 1, 2, 3 and terminal rewards 10, 20, 30
    lengths, rewards = torch.tensor([3, 2, 4]), torch.zeros(3, 4)
    mask = torch.arange(4)[None] < lengths[:, None]
    rewards[range(3), lengths - 1] = torch.tensor([10.0, 20.0, 30.0])
    values = torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 4)
    advantages, returns = compute_gae(rewards, values, mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[9, 9, 9, 0], [18, 18, 0, 0], [27, 27, 27, 27]]
    assert returns.tolist() == [[10, 10, 10, 0], [20, 20, 0, 0], [30, 30, 30, 30]]


def test_numbers_by_hand() -> None:
    # δ = (0 + ½·4 − 2, 8 − 4) = (0, 4); γλ = ¼
    advantages, returns = compute_gae(
        torch.tensor([[0.0, 8.0]]), torch.tensor([[2.0, 4.0]]), torch.ones(1, 2), gamma=0.5, lam=0.5
    )
    assert advantages.tolist() == [[1.0, 4.0]]
    assert returns.tolist() == [[3.0, 8.0]]


def test_lambda_0_is_one_step_ahead() -> None:
    advantages, _ = compute_gae(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 7.0, 11.0]]), torch.ones(1, 3), gamma=1.0, lam=0.0
    )
    assert advantages.tolist() == [[1 + 7 - 5, 2 + 11 - 7, 3 - 11]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (0.99, 1.0)])
def test_a_batch_is_its_completions_one_by_one_whatever_is_behind_the_mask(gamma: float, lam: float) -> None:
    draw = random.Random(0)
    lengths = [5, 1, 0, 7, 3]
    rewards = torch.tensor([[draw.uniform(-3, 3) for _ in range(7)] for _ in lengths], dtype=torch.float64)
    values = torch.tensor([[draw.uniform(-3, 3) for _ in range(7)] for _ in lengths], dtype=torch.float64)
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    garbage = torch.where(mask, values, torch.nan), torch.where(mask, rewards, torch.inf)
    for shown_values, shown_rewards in ((values, rewards), garbage):
        advantages, returns = compute_gae(shown_rewards, shown_values, mask, gamma, lam)
        for row, length in enumerate(lengths):
            want = slow_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
            for found, expected in zip((advantages, returns), want, strict=True):
                assert found[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
                assert found[row, length:].tolist() == [0.0] * (7 - length)


def test_whitened_numbers_by_hand() -> None:
    # 1, 2, 3: mean 2, unbiased variance 1
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    whitened = whiten(torch.tensor([[1.0, 2.0, torch.nan], [3.0, torch.inf, 99.0]]), mask, eps=0.0)
    assert whitened.tolist() == [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_whitened_is_what_torch_says_of_the_masked_values() -> None:
    values = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)) * 7 + 3
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    kept = whiten(values, mask)[mask]
    assert torch.allclose(kept, (values[mask] - values[mask].mean()) / values[mask].std(), atol=1e-5)
    assert float(kept.var()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0.1, -7.3, 1e4, 1 / 3])
def test_equal_values_become_exactly_0(value: float) -> None:
    whitened = whiten(torch.full((37, 53), value), torch.ones(37, 53))
    assert torch.count_nonzero(whitened) == 0


def test_of_nothing_and_of_one_value_nothing_is_left() -> None:
    assert whiten(torch.full((2, 3), torch.nan), torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    assert whiten(torch.tensor([[5.0, 6.0]]), torch.tensor([[1, 0]])).tolist() == [[0.0, 0.0]]


def test_ranks_that_add_their_sums_whiten_as_one() -> None:
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    sums: list[torch.Tensor] = []  # of all rows: what both ranks are told
    whole = whiten(values, mask, lambda total: sums.append(total) or total)
    told: list[list[torch.Tensor]] = []  # what each rank tells
    for rows in (slice(0, 2), slice(2, 4)):
        told.append([])
        answers = iter(sums)
        found = whiten(
            values[rows], mask[rows], lambda total, answers=answers: told[-1].append(total) or next(answers)
        )
        assert torch.equal(found, whole[rows])
        assert not torch.allclose(whiten(values[rows], mask[rows]), whole[rows], atol=0.1)
    assert all(torch.allclose(first + second, both) for first, second, both in zip(*told, sums, strict=True))


def test_a_tensor_without_positions_has_no_advantages() -> None:
    advantages, returns = compute_gae(*(torch.zeros(2, 0) for _ in range(3)), gamma=1.0, lam=0.95)
    assert advantages.shape == returns.shape == (2, 0)
