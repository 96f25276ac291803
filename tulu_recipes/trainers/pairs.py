"""What the trainers of pairs have in common: one mean over the pairs of a step, and exact averages in logs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from tulu_recipes.data.pairs import SIDES
from tulu_recipes.trainers.exact import ExactTrainer


class PairTrainer(ExactTrainer):
    """Base of DPO, SimPO and the reward model.

    The loss of an optimizer step is the mean over its pairs, however they are divided into micro-batches and ranks,
    also where the last step of an epoch holds fewer. What is logged are means over all pairs since the last line.
    """

    args: Any  # the configuration of a TRL trainer that can switch dropout off

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # sums over pairs since the last log line, by name; those of training on this rank alone
        self.sums: dict[str, Counter[str]] = {"train": Counter(), "eval": Counter()}
        super().__init__(*args, **kwargs)
        if self.args.disable_dropout:
            switch_off_attention_dropout(self.model)

    @property
    def mode(self) -> str:
        return "train" if self.model.training else "eval"

    def step_weight(self, pairs: int) -> float:
        """What makes the mean over a micro-batch of so many pairs its part of the mean over the step.

        transformers divides the loss of each micro-batch by their number and averages over ranks, which is right only
        where all hold equally many pairs.
        """
        return pairs * self.counts.num_microbatches / self.counts.num_sequences

    def note(self, per_pair: Mapping[str, torch.Tensor]) -> None:
        """Add values of a micro-batch's pairs, name → (B,), to what will be logged."""
        values = {"pairs": torch.ones_like(next(iter(per_pair.values()))), **per_pair}
        stacked = torch.stack([value.detach().float() for value in values.values()], 1)
        if self.mode == "eval":  # without the pairs that a sampler repeats to fill the last batch
            stacked = self.accelerator.gather_for_metrics(stacked)
        self.sums[self.mode].update(dict(zip(values, stacked.double().sum(0).tolist(), strict=True)))

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What is logged, from sums over pairs; `pairs` is their number."""
        raise NotImplementedError

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = self.mode
        if self.sums[mode] and ("loss" if mode == "train" else "eval_loss") in logs:
            self.replace_metrics(mode, self.means(self._take_sums(mode)))
        super().log(logs, start_time)

    def _take_sums(self, mode: str) -> dict[str, float]:
        names = sorted(self.sums[mode])
        values = [self.sums[mode][name] for name in names]
        if mode == "train":
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
