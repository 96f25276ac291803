"""Weights and divisors by hand, for two rows with three and one supervised tokens."""

import pytest
import torch

from tulu_recipes.algorithms.reductions import (
    BatchCounts,
    Reduction,
    count_sequences,
    divisor,
    sequence_index,
    token_weights,
)

LOSSES = torch.tensor([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
ROWS = torch.tensor([[0, 0, 0], [1, 1, 1]])
PACKED_ROW = torch.tensor([[0, 0, 0, 1, 1, 1]])  # the same two sequences in one row


@pytest.mark.parametrize(
    ("reduction", "loss"),
    [
        ("sum", 6.0),  # (1 + 2 + 3 + 6) / 2 sequences
        ("token_mean", 3.0),  # 12 / 4 tokens
        ("sequence_mean", 4.0),  # (2 + 6) / 2
        ("microbatch_mean", 3.0),  # one micro-batch: its token mean
    ],
)
def test_two_rows_reduce_to_the_number_worked_out_by_hand(reduction: Reduction, loss: float) -> None:
    counts = BatchCounts(num_tokens=4, num_sequences=2, num_microbatches=1)
    for losses, mask, sequences in (
        (LOSSES, MASK, ROWS),
        (LOSSES.view(1, 6), MASK.view(1, 6), PACKED_ROW),
    ):
        weights = token_weights(reduction, mask, sequences)
        total = (losses if weights is None else losses * weights).sum() / divisor(reduction, counts)
        assert float(total) == loss


def test_weights_of_a_sequence_mean_are_one_over_its_supervised_tokens() -> None:
    weights = token_weights("sequence_mean", MASK, ROWS)
    assert weights is not None
    assert torch.equal(weights, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]]))


def test_microbatch_mean_over_two_micro_batches_is_not_the_token_mean() -> None:
    counts = BatchCounts(num_tokens=4, num_sequences=2, num_microbatches=2)
    total = 0.0
    for row in (0, 1):
        weights = token_weights("microbatch_mean", MASK[row : row + 1], torch.zeros(1, 3, dtype=torch.long))
        assert weights is not None
        total += float((LOSSES[row : row + 1] * weights).sum()) / divisor("microbatch_mean", counts)
    assert total == 4.0  # (2 + 6) / 2; over tokens it is 3


@pytest.mark.parametrize("reduction", ["sequence_mean", "microbatch_mean"])
def test_a_batch_without_supervision_weighs_nothing_and_divides_by_nothing(reduction: Reduction) -> None:
    weights = token_weights(reduction, torch.zeros(2, 3, dtype=torch.long), ROWS)
    assert weights is not None
    assert torch.equal(weights, torch.zeros(2, 3))


def test_padded_rows_are_a_sequence_each() -> None:
    batch = {"input_ids": torch.zeros(3, 5, dtype=torch.long)}
    assert count_sequences(batch) == 3
    assert sequence_index(batch)[:, 0].tolist() == [0, 1, 2]


def test_packed_sequences_are_counted_one_by_one() -> None:
    batch = {
        "input_ids": torch.zeros(1, 6, dtype=torch.long),
        "seq_idx": torch.tensor([[0, 0, 0, 1, 1, 2]], dtype=torch.int32),
        "labels": torch.tensor([[-100, 7, 7, -100, 7, -100]]),
    }
    assert count_sequences(batch) == 2  # the last is filling: TRL numbers every filling token as a sequence of its own
    assert sequence_index(batch).dtype == torch.int64
