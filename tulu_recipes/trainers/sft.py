"""SFT whose loss reduction is the one the recipe names, whose logs are per token, and which resumes exactly."""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import TrainerCallback
from trl import SFTConfig as _TrlSFTConfig
from trl import SFTTrainer as _TrlSFTTrainer

from tulu_recipes.algorithms.reductions import (
    BatchCounts,
    Reduction,
    count_sequences,
    divisor,
    real_sequences,
    sequence_index,
    sum_by_sequence,
    token_weights,
)
from tulu_recipes.config.reduction_rules import REDUCTION_RULES
from tulu_recipes.errors import Problem, RecipeError, TrainingError


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


@dataclass
class Progress:
    """What a checkpoint must hold, beside transformers' own files, so that a resumed run logs what an unbroken would.

    One file a rank: partial sums since the last log line differ between ranks.
    """

    total_tokens: int = 0
    supervised_tokens: int = 0
    sequences: int = 0
    row_order_crc32: int = 0  # running checksum of every input token this rank was fed, in order
    tr_loss: float = 0.0
    total_loss: float = 0.0
    last_logged_step: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict)


class SFTTrainer(_TrlSFTTrainer):  # trl is untyped
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
        self.progress = Progress()
        self._resumed: Progress | None = None
        self._window: list[Mapping[str, torch.Tensor]] = []
        self._counts = BatchCounts(1, 1, 1)
        self._eval_sums: torch.Tensor | None = None
        self._token_loss = torch.zeros(())
        self.add_callback(_RestoreProgress(self))

    # ---- the loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        samples, num_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        local = torch.tensor([sum(count_sequences(batch) for batch in samples), len(samples)], device=device)
        sequences, microbatches = self.accelerator.gather(local).view(-1, 2).sum(0).tolist()
        self._counts = BatchCounts(int(num_tokens), sequences, microbatches)
        self._window = samples
        self.progress.supervised_tokens += int(num_tokens)
        self.progress.sequences += sequences
        for batch in samples:
            self.progress.row_order_crc32 = zlib.crc32(
                batch["input_ids"].cpu().numpy().tobytes(), self.progress.row_order_crc32
            )
        return samples, num_tokens

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        training = self.model.training
        if training and num_items_in_batch is not None:
            num_items_in_batch = torch.tensor(divisor(self.reduction, self._counts), device=self.args.device)
        weigh = self._weighing(model, inputs) if training else self._summing(model, inputs)
        result = super().compute_loss(weigh, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        if training and not torch.isfinite(loss):
            self._stop_not_finite("loss", float(loss.detach()))
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
        logged: torch.Tensor = self._token_loss / max(self._counts.num_tokens, 1) * self.accelerator.num_processes
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

    # ---- never step on a number that is no number

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        scaled = self.accelerator.mixed_precision == "fp16"  # whose scaler skips infinite steps by itself
        if grad_norm is not None and not scaled and not torch.isfinite(torch.as_tensor(grad_norm)).all():
            self._stop_not_finite("gradient norm", float(grad_norm), updated=self.is_deepspeed_enabled)
        return grad_norm

    def _stop_not_finite(self, what: str, value: float, *, updated: bool = False) -> None:
        """Keep the batch and stop. `updated`: DeepSpeed steps inside its backward pass, before the norm is known."""
        step = self.state.global_step + 1
        path = Path(self.args.output_dir) / f"not-finite-step-{step}-rank-{self.args.process_index}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            [{key: torch.as_tensor(value).cpu() for key, value in batch.items()} for batch in self._window], path
        )
        raise TrainingError(
            Problem(
                "not-finite",
                f"step {step}, rank {self.args.process_index}",
                f"The {what} is {value}; the weights in memory were {'' if updated else 'not '}updated, no checkpoint "
                f"was written. The batch of this step is kept in {path}.",
                "look at its rows (torch.load, then tokenizer.batch_decode of input_ids), lower the learning rate, or "
                "resume from the last checkpoint with the same command.",
            )
        )

    # ---- logs and exact resume

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and "loss" in logs:
            logs["num_supervised_tokens"] = self.progress.supervised_tokens
            logs["num_sequences"] = self.progress.sequences
            logs["row_order_crc32"] = self.progress.row_order_crc32
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        self.progress.total_tokens = self._total_train_tokens
        self.progress.tr_loss = float(self._tr_loss)
        self.progress.total_loss = self._total_loss_scalar
        self.progress.last_logged_step = self._globalstep_last_logged
        self.progress.metrics = {key: list(values) for key, values in self._metrics["train"].items()}
        # Before the rest: transformers writes trainer_state.json last, and deletes the older checkpoint after it
        text = json.dumps(vars(self.progress))
        (folder / f"progress-rank-{self.args.process_index}.json").write_text(text, encoding="utf-8")
        super()._save_checkpoint(model, trial)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint:
            path = Path(resume_from_checkpoint) / f"progress-rank-{self.args.process_index}.json"
            if path.is_file():  # a checkpoint of plain TRL has none, and resumes as TRL does
                self._resumed = Progress(**json.loads(path.read_text(encoding="utf-8")))
        return prepared

    def restore_progress(self) -> None:
        """Continue the counters of a resumed run; called once transformers has reset its own."""
        if self._resumed is None:
            return
        self.progress, self._resumed = self._resumed, None
        self._total_train_tokens = self.progress.total_tokens
        self._tr_loss += self.progress.tr_loss
        self._total_loss_scalar = self.progress.total_loss
        self._globalstep_last_logged = self.progress.last_logged_step
        for key, values in self.progress.metrics.items():
            self._metrics["train"][key] = list(values)


class _RestoreProgress(TrainerCallback):
    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.restore_progress()
