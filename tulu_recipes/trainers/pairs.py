"""What the trainers of pairs have in common: one mean over the pairs of a step, and exact averages in logs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tulu_recipes.data.pairs import SIDES
from tulu_recipes.trainers.exact import Batch, ExactTrainer


class PairTrainer(ExactTrainer):
    """Base of DPO, SimPO and the reward model.

    The loss of an optimizer step is the mean over its pairs, however they are divided into micro-batches and ranks,
    also where the last step of an epoch holds fewer. What is logged are means over all pairs since the last line.
    """

    args: Any  # the configuration of a TRL trainer that can switch dropout off

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # sums over this rank's pairs since the last log line, by name
        self.sums: dict[str, Counter[str]] = {"train": Counter(), "eval": Counter()}
        self._real: list[int] = []  # pairs of each micro-batch of the step that count
        self._next = 0
        self._eval_loss = torch.zeros(2, dtype=torch.float64)
        super().__init__(*args, **kwargs)
        if self.args.disable_dropout:
            switch_off_attention_dropout(self.model)

    # ---- pairs that a sampler repeats where they do not divide among the processes

    def without_repeats(self, samples: list[Any]) -> list[Any]:
        self._real = [self.pairs_in(batch) for batch in samples]
        self._next = 0
        if not self.args.dataloader_drop_last:
            self._real[-1] = self._real_pairs(samples[-1], self.args.train_batch_size)
            samples = [*samples[:-1], self.first_pairs(samples[-1], max(self._real[-1], 1))]
        return samples

    def count_batches(self, samples: list[Any]) -> list[tuple[int, ...]]:
        """`count_batch` counts pairs, supervised tokens, all tokens; nothing where all pairs are repeats."""
        counted = super().count_batches(samples)
        return [found if real else (0,) * len(found) for found, real in zip(counted, self._real, strict=True)]

    def take_counts(self, *counted: int) -> None:
        self._total_train_tokens += counted[0]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it TRL's trainer logs this rank alone, and counts no tokens: both are done here.

        It gathers a dozen numbers for each micro-batch, which cannot be done where ranks hold unequal numbers of
        pairs, as at the end of an epoch.
        """
        accelerator, tokens = self.accelerator, self._total_train_tokens
        accelerator.gather = accelerator.gather_for_metrics = lambda value, *args, **kwargs: value
        try:
            yield
        finally:
            del accelerator.gather, accelerator.gather_for_metrics  # the class's own again
            self._total_train_tokens = tokens

    def _real_pairs(self, batch: Batch, filled: int) -> int:
        """Pairs of this rank's batch that are no repeats: the first of all ranks' last batch, in their order.

        filled: pairs of a batch that is filled up, on each rank.
        """
        pairs, state = self.pairs_in(batch), self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return pairs
        before = self.accelerator.process_index * filled
        real: int = min(max(state.remainder - before, 0), pairs)
        return real

    def take_pairs(self, batch: Batch) -> int:
        """How many pairs of the micro-batch at hand count: 0 when all of them are repeats. Once for each."""
        if self.mode == "eval":
            return self._real_pairs(batch, self.args.eval_batch_size)
        self._next += 1
        return self._real[self._next - 1]

    def pairs_in(self, batch: Batch) -> int:
        return len(batch["input_ids"]) // 2  # chosen, then rejected

    def first_pairs(self, batch: Batch, count: int) -> dict[str, torch.Tensor]:
        """The first pairs of a micro-batch: of tensors over both sides the first of each."""
        pairs = self.pairs_in(batch)
        return {
            name: torch.cat([value[:count], value[pairs : pairs + count]])
            if len(value) == 2 * pairs
            else value[:count]
            for name, value in batch.items()
        }

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate what is no repeat; the exact mean loss is kept for `evaluation_loop`."""
        real = self._real_pairs(inputs, self.args.eval_batch_size)
        found = super().prediction_step(model, self.first_pairs(inputs, max(real, 1)), *args, **kwargs)
        self._eval_loss += torch.tensor([float(found[0]) * real, real], dtype=torch.float64)
        return found

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        self._eval_loss = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        local = self._eval_loss.float().to(self.accelerator.device)
        total, pairs = self.accelerator.gather(local).view(-1, 2).double().sum(0).tolist()
        if pairs:
            output.metrics[f"{metric_key_prefix}_loss"] = total / pairs
        return output

    # ---- one mean over the step

    @property
    def mode(self) -> str:
        return "train" if self.model.training else "eval"

    def step_weight(self, pairs: int) -> float:
        """What makes the mean over a micro-batch of so many pairs its part of the mean over the step.

        transformers divides the loss of each micro-batch by their number and averages over ranks, which is right only
        where all hold equally many pairs.
        """
        return pairs * self.counts.num_microbatches / self.counts.num_sequences

    def note(self, per_pair: Mapping[str, torch.Tensor], pairs: int) -> None:
        """Add values of a micro-batch's first `pairs` pairs, name → (B,), to what will be logged."""
        values = {"pairs": torch.ones_like(next(iter(per_pair.values()))), **per_pair}
        stacked = torch.stack([value.detach().float() for value in values.values()], 1)[:pairs]
        self.sums[self.mode].update(dict(zip(values, stacked.cpu().double().sum(0).tolist(), strict=True)))

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What is logged, from sums over pairs; `pairs` is their number."""
        raise NotImplementedError

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = self.mode
        if self.sums[mode] and ("loss" if mode == "train" else "eval_loss") in logs:
            self.replace_metrics(mode, self.means(self._take_sums(mode)) | {"num_tokens": self._total_train_tokens})
        super().log(logs, start_time)

    def _take_sums(self, mode: str) -> dict[str, float]:
        names = sorted(self.sums[mode])
        values = [self.sums[mode][name] for name in names]
        local = torch.tensor([values], device=self.accelerator.device)
        values = self.accelerator.gather(local).double().sum(0).tolist()
        self.sums[mode].clear()
        return dict(zip(names, values, strict=True))

    def replace_metrics(self, mode: str, means: Mapping[str, float]) -> None:
        """Hand TRL exact means in place of its own means of means."""
        for name, value in means.items():
            self._metrics[mode][name] = [value]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.progress.sums = dict(self.sums["train"])
        super()._save_checkpoint(model, trial)

    def restore_progress(self) -> None:
        super().restore_progress()
        self.sums["train"] = Counter(self.progress.sums)


def ranked_rightly(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """1 where chosen has the higher reward, 0 where rejected has, 0.5 for a tie, as before the first step: (B,)."""
    return ((chosen > rejected).float() + (chosen >= rejected).float()) / 2


def switch_off_attention_dropout(model: torch.nn.Module) -> None:
    """What TRL's `disable_dropout` leaves on: most models keep this rate as a number, not as a torch.nn.Dropout."""
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def pair_means(sums: Mapping[str, float]) -> dict[str, float]:
    """What DPO and SimPO log, from sums over pairs.

    Per pair: rewards/*, logps/* (summed over a completion, nats), lengths/* (tokens). Per token: logps_per_token/*,
    and where there is a reference kl/*, the mean log-ratio to it on the pairs' own tokens (k1, nats).
    """
    pairs = sums["pairs"]
    found = {
        "rewards/chosen": sums["chosen_reward"] / pairs,
        "rewards/rejected": sums["rejected_reward"] / pairs,
        "rewards/margins": (sums["chosen_reward"] - sums["rejected_reward"]) / pairs,
        "rewards/accuracies": sums["right"] / pairs,
    }
    for side in SIDES:
        tokens = sums[f"{side}_tokens"]
        found[f"logps/{side}"] = sums[f"{side}_logps"] / pairs
        found[f"logps_per_token/{side}"] = sums[f"{side}_logps"] / tokens
        found[f"lengths/{side}"] = tokens / pairs
        if f"{side}_gain" in sums:
            found[f"kl/{side}"] = sums[f"{side}_gain"] / tokens
    return found
