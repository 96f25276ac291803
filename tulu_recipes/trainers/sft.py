"""SFT whose loss reduction is the one the recipe names, whose logs are per token, and which resumes exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from trl import SFTConfig as _TrlSFTConfig
from trl import SFTTrainer as _TrlSFTTrainer

from tulu_recipes.algorithms.reductions import (
    Reduction,
    count_sequences,
    divisor,
    real_sequences,
    sequence_index,
    sum_by_sequence,
    token_weights,
)
from tulu_recipes.config.reduction_rules import REDUCTION_RULES
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.exact import ExactTrainer


@dataclass
class SFTConfig(_TrlSFTConfig):  # trl is untyped
    """TRL's SFTConfig and one key.

    loss_reduction: sum | token_mean | sequence_mean | microbatch_mean, see `algorithms.reductions`; TRL's: token_mean.
    """

    loss_reduction: str = field(
        default="token_mean",
        metadata={
            "help": "How the token losses of a step become one number.",
            "choices": list(get_args(Reduction)),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = [problem for rule in REDUCTION_RULES for problem in rule(lambda key: getattr(self, key), str)]
        if self.loss_reduction not in get_args(Reduction):
            problems.append(
                Problem(
                    "unknown-choice",
                    "loss_reduction",
                    f"{self.loss_reduction!r} is no reduction.",
                    f"use one of {', '.join(get_args(Reduction))}.",
                )
            )
        if problems:
            raise RecipeError(problems)


class SFTTrainer(ExactTrainer, _TrlSFTTrainer):  # trl is untyped
    """TRL's SFTTrainer over a global batch of N sequences with M supervised tokens.

    sum              (1/N) * sum of token losses
    token_mean       (1/M) * sum of token losses
    sequence_mean    (1/N) * sum of each sequence's mean token loss
    microbatch_mean  mean over micro-batches of their mean token loss

    The logged `loss` and `eval_loss` are per token (sum / M, nats) whatever the reduction. N and M are counted over
    the whole accumulation window and all ranks, packed sequences one by one. A loss or gradient that is not finite
    stops the run before the update.

    Source: [OI0] `--reduce_loss sum`; docs/decisions/0001-sum-loss.md.
    """

    args: SFTConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reduction: Reduction = getattr(self.args, "loss_reduction", "token_mean")
        self._eval_sums: torch.Tensor | None = None
        self._token_loss = torch.zeros(())

    # ---- the loss

    def count_batch(self, batch: Mapping[str, torch.Tensor]) -> tuple[int, int]:
        return count_sequences(batch), int((batch["labels"] != -100).sum())

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        training = self.model.training
        if training and num_items_in_batch is not None:
            num_items_in_batch = torch.tensor(divisor(self.reduction, self.counts), device=self.args.device)
        weigh = self._weighing(model, inputs) if training else self._summing(model, inputs)
        result = super().compute_loss(weigh, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        if training:
            self.stop_unless_finite(loss)
        return result

    def _weighing(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
        """`model`, whose per-token log-probs come out multiplied by the weights of the reduction."""

        def forward(**kwargs: Any) -> Any:
            outputs = model(**kwargs)
            if not kwargs.get("fused_lm_head"):
                return outputs
            self._token_loss = -outputs.log_probs.detach().sum()
            weights = token_weights(self.reduction, outputs.label_mask, sequence_index(inputs)[:, 1:])
            if weights is not None:
                outputs.log_probs = outputs.log_probs * weights
            return outputs

        return forward

    def _summing(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
        """`model`, which adds token losses and token counts of an evaluation as it goes."""

        def forward(**kwargs: Any) -> Any:
            outputs = model(**kwargs)
            if kwargs.get("fused_lm_head") and self._eval_sums is not None:
                sequences = sequence_index(inputs)
                parts = (-outputs.log_probs.detach().float(), outputs.label_mask.float())
                sums = torch.stack([sum_by_sequence(part, sequences[:, 1:]) for part in parts], 1)
                # One line a conversation, also where they share a row: accelerate leaves out those that the sampler
                # repeats to fill the last batch by cutting lines
                sums = sums[real_sequences(sequences)[: len(sums)]]
                self._eval_sums += self.accelerator.gather_for_metrics(sums).sum(0).to(self._eval_sums)
            return outputs

        return forward

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if self.reduction == "token_mean":
            return loss
        # What is logged: this micro-batch's part of the step's mean token loss, scaled as TRL scales a loss
        logged: torch.Tensor = self._token_loss / max(self.counts.num_tokens, 1) * self.accelerator.num_processes
        return logged

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """transformers averages the means of batches; `eval_loss` here is the mean over supervised tokens, in nats."""
        self._eval_sums = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, tokens = self._eval_sums.tolist()
        self._eval_sums = None
        if tokens:
            output.metrics[f"{metric_key_prefix}_loss"] = total / tokens
        return output
