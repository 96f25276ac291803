"""What every trainer here adds to TRL's: an account of each step, no step on a number that is none, exact resume."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from tulu_recipes.algorithms.reductions import BatchCounts
from tulu_recipes.errors import Problem, TrainingError

Batch = Mapping[str, torch.Tensor]


@dataclass
class Progress:
    """What a checkpoint must hold, beside transformers' own files, so that a resumed run logs what an unbroken would.

    One file a rank: partial sums since the last log line differ between ranks.
    """

    total_tokens: int = 0
    supervised_tokens: int = 0
    sequences: int = 0  # of preference stages: pairs
    row_order_crc32: int = 0  # running checksum of every input token this rank was fed, in order
    tr_loss: float = 0.0
    total_loss: float = 0.0
    last_logged_step: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)  # over pairs, see trainers.pairs


class ExactTrainer(Trainer):
    """Base beside a TRL trainer: `class SFTTrainer(ExactTrainer, trl.SFTTrainer)`.

    `counts` holds what the optimizer step at work consists of, over the whole accumulation window and all ranks. A
    loss or gradient that is not finite stops the run before the update, and the batch is kept. Checkpoints hold the
    counters and partial sums of the logs.
    """

    # of TRL's trainers
    _metrics: dict[str, Any]
    _total_train_tokens: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = BatchCounts(1, 1, 1)
        self.progress = Progress()
        self._resumed: Progress | None = None
        self._window: list[Batch] = []
        self.add_callback(_RestoreProgress(self))

    # ---- the account of a step

    def count_batch(self, batch: Batch) -> tuple[int, ...]:
        """Sequences (pairs), supervised tokens, and what else a trainer counts, of one micro-batch on this rank."""
        raise NotImplementedError

    def count_batches(self, samples: list[Any]) -> list[tuple[int, ...]]:
        return [self.count_batch(batch) for batch in samples]

    def take_counts(self, *counted: int) -> None:
        """Told of each step, over all ranks, what else `count_batch` counts."""

    def tokens_of(self, batch: Batch) -> list[torch.Tensor]:
        """The token ids of a micro-batch."""
        return [batch["input_ids"]]

    def without_repeats(self, samples: list[Any]) -> list[Any]:
        """The micro-batches of a step without what a sampler repeated to fill the last one."""
        return samples

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """All evaluation rows: `dataloader_drop_last` is about optimizer steps, and would drop a small set whole."""
        drops, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drops

    @property
    def is_over(self) -> bool:
        """Whether the run was resumed after its last step, in the midst of an epoch: transformers would do another."""
        return bool(self.state.global_step >= self.state.max_steps)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        if self.is_over:
            return [], None
        samples, num_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not samples:  # a stream that ended
            return samples, num_tokens
        samples = self.without_repeats(samples)
        sums = [sum(column) for column in zip(*self.count_batches(samples), strict=True)]
        local = torch.tensor([[len(samples), *sums]], device=device)
        microbatches, sequences, tokens, *more = self.accelerator.gather(local).sum(0).tolist()
        self.counts = BatchCounts(tokens, sequences, microbatches)
        self.take_counts(*more)
        self._window = samples
        self.progress.supervised_tokens += tokens
        self.progress.sequences += sequences
        for ids in (ids for batch in samples for ids in self.tokens_of(batch)):
            self.progress.row_order_crc32 = zlib.crc32(ids.cpu().numpy().tobytes(), self.progress.row_order_crc32)
        return samples, num_tokens

    # ---- never step on a number that is no number

    def stop_unless_finite(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            self.stop_not_finite("loss", float(loss.detach()))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        scaled = self.accelerator.mixed_precision == "fp16"  # whose scaler skips infinite steps by itself
        if grad_norm is not None and not scaled and not torch.isfinite(torch.as_tensor(grad_norm)).all():
            self.stop_not_finite("gradient norm", float(grad_norm), updated=self.is_deepspeed_enabled)
        return grad_norm

    def stop_not_finite(self, what: str, value: float, *, updated: bool = False) -> None:
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
            logs |= self.account()
        super().log(logs, start_time)

    def account(self) -> dict[str, float]:
        """What has been trained on since the run began, for the logs."""
        return {
            "num_supervised_tokens": self.progress.supervised_tokens,
            "num_sequences": self.progress.sequences,
            "row_order_crc32": self.progress.row_order_crc32,
        }

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
            self.args.eval_on_start = False  # that is before step 1; the unbroken run did not evaluate here
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
    def __init__(self, trainer: ExactTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.restore_progress()
