"""How the token losses of one optimizer step become one number.

Every reduction is a weight for each token and one divisor for the whole step:

    loss = sum over the global batch of  weight * token loss  /  divisor

so that it cannot depend on how the batch was cut into micro-batches and ranks. The one exception is
`microbatch_mean`, which depends on exactly that; it is kept to study what it did to published runs.

Shapes: B rows, L positions. In padding-free batches B is 1 and several sequences share the row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

Reduction = Literal["sum", "token_mean", "sequence_mean", "microbatch_mean"]


@dataclass(frozen=True)
class BatchCounts:
    """What one optimizer step holds, over all ranks and accumulation steps.

    num_tokens: supervised tokens. num_sequences: conversations. num_microbatches: forward passes.
    """

    num_tokens: int
    num_sequences: int
    num_microbatches: int


def sequence_index(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Number the sequences of one micro-batch: (B, L) int64, equal where two tokens belong together.

    Args:
        batch: as TRL's collator makes it; `seq_idx` (1, L) is there in padding-free batches only.
    """
    if "seq_idx" in batch:
        return batch["seq_idx"].long()
    rows, length = batch["input_ids"].shape
    return torch.arange(rows, device=batch["input_ids"].device)[:, None].expand(rows, length)


def real_sequences(sequences: torch.Tensor) -> torch.Tensor:
    """Which numbers of a `sequence_index` are sequences: (S,) bool.

    `pad_to_multiple_of` fills padding-free rows with tokens at position 0, each numbered as a sequence of its own. No
    sequence that trains is so short: its first token cannot be predicted.
    """
    return torch.bincount(sequences.reshape(-1)) > 1


def count_sequences(batch: Mapping[str, torch.Tensor]) -> int:
    """Sequences in one micro-batch, packed or not; what fills it up is none."""
    return int(real_sequences(sequence_index(batch)).sum())


def sum_by_sequence(values: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
    """Sums of (B, L) `values` over the tokens of each sequence: (S,), by number."""
    sums = torch.zeros(int(sequences.max()) + 1, dtype=values.dtype, device=values.device)
    return sums.scatter_add_(0, sequences.reshape(-1), values.reshape(-1))


def divisor(reduction: Reduction, counts: BatchCounts) -> int:
    """What the weighted sum of a step's token losses is divided by.

    sum              number of sequences                  [OI0] `--reduce_loss sum`
    token_mean       number of supervised tokens          TRL's own
    sequence_mean    number of sequences
    microbatch_mean  number of micro-batches              transformers before 4.46, open-instruct at HEAD
    Source: [OIr] finetune.py: the sum over a micro-batch, which DeepSpeed divides by accumulation steps and ranks;
    with one sequence a device, as in every Tülu 3 run, their product is the number of sequences.
    """
    return {
        "sum": counts.num_sequences,
        "token_mean": counts.num_tokens,
        "sequence_mean": counts.num_sequences,
        "microbatch_mean": counts.num_microbatches,
    }[reduction]


def token_weights(reduction: Reduction, label_mask: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor | None:
    """Weight of each token loss in its micro-batch, or None where every weight is 1.

    sequence_mean: 1 / supervised tokens of the token's sequence.
    microbatch_mean: 1 / supervised tokens of the micro-batch.

    Args:
        label_mask: (B, L) 1 = the token carries loss.
        sequences: (B, L) int64, the sequence each token belongs to.
    """
    if reduction in ("sum", "token_mean"):
        return None
    if reduction == "microbatch_mean":
        return label_mask.float() / label_mask.sum().clamp(min=1)
    lengths = sum_by_sequence(label_mask.float(), sequences)
    return label_mask.float() / lengths.clamp(min=1)[sequences]
