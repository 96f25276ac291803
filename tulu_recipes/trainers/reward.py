"""A reward model from a language model: one head with Tülu's start, a step that is one mean over its pairs."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import RewardConfig as _TrlRewardConfig
from trl import RewardTrainer as _TrlRewardTrainer
from trl.trainer.reward_trainer import suppress_seqcls_warning
from trl.trainer.utils import create_model_from_path

from tulu_recipes.config.model_files import classifier_of
from tulu_recipes.data.pairs import PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.trainers.exact import Batch
from tulu_recipes.trainers.pairs import PairTrainer, ranked_rightly


@dataclass
class RewardConfig(_TrlRewardConfig):  # trl is untyped
    """TRL's RewardConfig, as it is. Pairs longer than `max_length` are left out."""


def load_scorer(name: str, **kwargs: Any) -> PreTrainedModel:
    """A causal language model with a new score head, or a reward model with the head it has.

    Args:
        kwargs: of `from_pretrained`; dtype is float32 where it is not named.
    """
    with suppress_seqcls_warning():
        model: PreTrainedModel = create_model_from_path(
            name, AutoModelForSequenceClassification, num_labels=1, **kwargs
        )
    if classifier_of(model.config.architectures) is None:
        init_score_head(model)
    # vLLM then gives the score itself and not its sigmoid
    model.config.problem_type = "regression"
    return model


def load_adapted_scorer(name: str, **kwargs: Any) -> PreTrainedModel:
    """A reward model saved as an adapter, on its base, whose head the adapter brings. kwargs: of `from_pretrained`."""
    with suppress_seqcls_warning():
        # num_labels of the base; an adapter's configuration does not say
        loaded: Any = AutoPeftModelForSequenceClassification.from_pretrained(name, num_labels=1, **kwargs)
    model: PreTrainedModel = loaded
    return model


def init_score_head(model: PreTrainedModel) -> None:
    """Draw the head's weights from N(0, 1/√(hidden + 1)). Source: [OIr] model_utils.py."""
    head: Any = getattr(model, "score", None) or model.classifier
    weight = head.weight
    gathered: Any = nullcontext()
    if is_deepspeed_zero3_enabled():
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(weight, modifier_rank=0)
    with gathered:
        hidden = model.config.get_text_config().hidden_size
        torch.nn.init.normal_(weight, std=1 / math.sqrt(hidden + 1))


class RewardTrainer(PairTrainer, _TrlRewardTrainer):  # trl is untyped
    """TRL's RewardTrainer: −log σ(r_c − r_r), mean over the pairs of a step; a score is the head's output at the last
    token that is not padding, with the Tülu template the EOS of the answer.

    Rows: any preference layout of docs/layouts.md, or the columns chosen_ids and rejected_ids.
    Source: [OIr] reward_modeling.py.
    """

    args: RewardConfig

    def __init__(self, model: Any, args: RewardConfig | None = None, *others: Any, **kwargs: Any) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = RewardConfig(f"{name.split('/')[-1]}-Reward")
        if isinstance(model, str):
            model = load_scorer(model, **(args.model_init_kwargs or {}))
            args.model_init_kwargs = None
        super().__init__(model, args, *others, **kwargs)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: RewardConfig, dataset_name: str) -> Dataset:
        if {"chosen_ids", "rejected_ids"} <= set(dataset.column_names):
            return dataset
        margin = "margin" if "margin" in dataset.column_names else None
        rules = PairRules(args.max_length)
        tokenized = tokenize_pairs(
            dataset, processing_class, rules, margin_column=margin, num_proc=args.dataset_num_proc
        )
        return trainable_pairs(tokenized, over_length="drop")

    def count_batch(self, batch: Batch) -> tuple[int, ...]:
        tokens = int(batch["attention_mask"].sum())
        return self.pairs_in(batch), tokens, tokens

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        with self.alone():
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        pairs = self.take_pairs(inputs)
        if self.model.training:
            loss = loss * self.step_weight(pairs)
            self.stop_unless_finite(loss)
        self.note({"chosen": chosen, "rejected": rejected, "right": ranked_rightly(chosen, rejected)}, pairs)
        return (loss, outputs) if return_outputs else loss

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        pairs, kept = sums["pairs"], self._metrics[self.mode]
        # TRL keeps those of each micro-batch of this rank
        extremes = torch.tensor([[min(kept["min_reward"]), -max(kept["max_reward"])]], device=self.accelerator.device)
        lowest, highest = self.accelerator.gather(extremes).amin(0).tolist()
        return {
            "accuracy": sums["right"] / pairs,
            "margin": (sums["chosen"] - sums["rejected"]) / pairs,
            "min_reward": lowest,
            "max_reward": -highest,
            "mean_reward": (sums["chosen"] + sums["rejected"]) / (2 * pairs),
            "rewards/chosen": sums["chosen"] / pairs,
            "rewards/rejected": sums["rejected"] / pairs,
        }
