"""SimPO by TRL's own CPOTrainer, on the same tokenized pairs and with the same account of a step as DPO."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from trl.experimental.cpo import CPOConfig, CPOTrainer

from tulu_recipes.data.pairs import SIDES
from tulu_recipes.trainers.exact import Batch
from tulu_recipes.trainers.pairs import PairTrainer, pair_means, ranked_rightly

__all__ = ["CPOConfig", "SimPOTrainer"]


class SimPOTrainer(PairTrainer, CPOTrainer):  # trl is untyped
    """TRL's CPOTrainer with `loss_type="simpo"`: β times the mean log-prob per token, less γ, and no reference model.

    train_dataset, eval_dataset: the columns `data.pairs.TRAINED`.
    Source: arXiv 2405.14734; the loss of a step is the mean over its pairs.
    """

    def __init__(self, *args: Any, train_dataset: Dataset, eval_dataset: Dataset | None = None, **kwargs: Any) -> None:
        self._metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens = 0
        super().__init__(
            *args,
            train_dataset=_named_as_trl(train_dataset),
            eval_dataset=None if eval_dataset is None else _named_as_trl(eval_dataset),
            **kwargs,
        )

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        return {}  # the rows are tokenized already

    def count_batch(self, batch: Batch) -> tuple[int, ...]:
        supervised = sum(int((batch[f"{side}_labels"] != -100).sum()) for side in SIDES)
        return self.pairs_in(batch), supervised, sum(int(batch[f"{side}_attention_mask"].sum()) for side in SIDES)

    def pairs_in(self, batch: Batch) -> int:
        return len(batch["chosen_labels"])

    def first_pairs(self, batch: Batch, count: int) -> dict[str, torch.Tensor]:
        return {name: value[:count] for name, value in batch.items()}

    def tokens_of(self, batch: Batch) -> list[torch.Tensor]:
        return [batch[f"{side}_input_ids"] for side in SIDES]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        self._pairs = self.take_pairs(inputs)
        loss = super().compute_loss(model, inputs) * self.step_weight(self._pairs)
        self.stop_unless_finite(loss)
        return loss

    def get_batch_loss_metrics(self, model: Any, batch: Any, train_eval: str = "train") -> Any:
        self._batch = batch
        if train_eval == "eval":
            self._pairs = self.take_pairs(batch)
        with self.alone():
            return super().get_batch_loss_metrics(model, batch, train_eval)

    def cpo_loss(self, policy_chosen_logps: torch.Tensor, policy_rejected_logps: torch.Tensor) -> Any:
        """With the mean log-probs per token, (B,) each, that SimPO compares."""
        found = super().cpo_loss(policy_chosen_logps, policy_rejected_logps)
        lengths = {side: (self._batch[f"{side}_labels"][:, 1:] != -100).sum(1).float() for side in SIDES}
        chosen, rejected = found[1], found[2]
        self.note(
            {
                "chosen_reward": chosen,
                "rejected_reward": rejected,
                "right": ranked_rightly(chosen, rejected),
                "chosen_logps": policy_chosen_logps * lengths["chosen"],
                "rejected_logps": policy_rejected_logps * lengths["rejected"],
                "chosen_tokens": lengths["chosen"],
                "rejected_tokens": lengths["rejected"],
            },
            self._pairs,
        )
        return found

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """As `DPOTrainer.means`, without a reference."""
        return pair_means(sums)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["num_tokens"] = self._total_train_tokens
        super().log(logs, start_time)

    def replace_metrics(self, mode: str, means: Mapping[str, float]) -> None:
        prefix = "" if mode == "train" else "eval_"
        kept = {f"{prefix}{name}": [value] for name, value in means.items() if name != "num_tokens"}
        self._stored_metrics[mode] = kept  # of float32, in which a count of tokens loses digits


def _named_as_trl(dataset: Dataset) -> Dataset:
    """Whole conversations with labels, under the names of TRL's collator."""

    def rename(row: Mapping[str, Any]) -> dict[str, Any]:
        renamed: dict[str, Any] = {}
        for side in SIDES:
            ids, mask = row[f"{side}_ids"], row[f"{side}_mask"]
            renamed[f"{side}_input_ids"] = ids
            renamed[f"{side}_attention_mask"] = [1] * len(ids)
            renamed[f"{side}_labels"] = [token if bit else -100 for token, bit in zip(ids, mask, strict=True)]
        return renamed

    return dataset.map(rename, remove_columns=dataset.column_names, desc="Labels for SimPO")
