"""DPO whose masking is named, whose logs are those of its loss, and whose step is one mean over its pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from datasets import Dataset
from trl import DPOConfig as _TrlDPOConfig
from trl import DPOTrainer as _TrlDPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import pad

from tulu_recipes.algorithms.preference import length_normalized_dpo_loss
from tulu_recipes.data.pairs import SIDES, TRAINED, Masking, PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.exact import Batch
from tulu_recipes.trainers.pairs import pair_means, ranked_rightly
from tulu_recipes.trainers.reference import ReferenceTrainer


@dataclass
class DPOConfig(_TrlDPOConfig):  # trl is untyped
    """TRL's DPOConfig and four keys.

    masking: last_turn | all_assistant_turns; `loss_type="sigmoid_norm"` counts the same tokens.
    mask_termination_tokens: leave the EOS of each compared turn out of the loss.
    concatenated_forward: chosen and rejected in one forward pass; False: in two.
    ref_log_probs_cache: folder of what `precompute_ref_log_probs` computes; None: in output_dir.
    """

    masking: Masking = field(
        default="last_turn",
        metadata={"help": "Which turns are compared.", "choices": list(get_args(Masking))},
    )
    mask_termination_tokens: bool = field(default=False, metadata={"help": "Leave EOS out of the loss."})
    concatenated_forward: bool = field(default=True, metadata={"help": "Chosen and rejected in one forward pass."})
    ref_log_probs_cache: str | None = field(default=None, metadata={"help": "Folder of reference log-probs."})

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = []
        if self.masking not in get_args(Masking):
            mend = f"use one of {', '.join(get_args(Masking))}."
            problems.append(Problem("unknown-choice", "masking", f"{self.masking!r} is no masking.", mend))
        if self.beta <= 0:
            what = f"beta is {self.beta}; it must be above 0."
            problems.append(Problem("out-of-range", "beta", what, "use 0.1, or 5 with sigmoid_norm."))
        if problems:
            raise RecipeError(problems)


@dataclass
class PairCollator(DataCollatorForPreference):  # trl is untyped
    """TRL's collator for pairs that bring their own masks: whole conversations, already cut.

    Returns what TRL's does: input_ids, attention_mask, completion_mask (2B, L), chosen first, and cached ref_*_logps.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = super().torch_call([{"prompt_ids": [], **example} for example in examples])
        masks = [torch.tensor(example[f"{side}_mask"]).long() for side in SIDES for example in examples]
        batch["completion_mask"] = pad(
            masks, padding_value=0, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of
        )
        return batch


class DPOTrainer(ReferenceTrainer, _TrlDPOTrainer):  # trl is untyped
    """TRL's DPOTrainer, whose losses are computed by TRL on the tokens that `masking` names.

    The loss of a step is the mean over its pairs; TRL's `sft` term is the mean over the chosen tokens of the whole
    step rather than of a micro-batch. Logged rewards are those the loss compares: with `sigmoid_norm` per token.
    Reference log-probs come with the batch where they are cached, from the reference model otherwise.

    Rows: any preference layout of docs/layouts.md, or the columns `data.pairs.TRAINED`.
    Source: [OIr] dpo_tune.py for all_assistant_turns; docs/decisions/0008-preference-loss.md.
    """

    args: DPOConfig
    # of TRL's trainer
    loss_types: list[str]
    loss_weights: list[float]
    precompute_ref_logps: bool
    _precompute_engine: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: DPOConfig | None = None,
        data_collator: Any = None,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = DPOConfig(f"{name.split('/')[-1]}-DPO")
        # The padding token is known once TRL has found a tokenizer: _prepare_dataset fills it in
        collator = data_collator or PairCollator(-1, pad_to_multiple_of=args.pad_to_multiple_of)
        self._collator = collator
        self._chosen_tokens = 1
        super().__init__(model, ref_model, args, collator, *others, **kwargs)
        weights = dict(zip(self.loss_types, self.loss_weights, strict=True))
        self.sft_weight: float = weights.pop("sft", 0.0)
        self.loss_types, self.loss_weights = list(weights), list(weights.values())
        if args.precompute_ref_log_probs:
            self.ref_model = None  # what it had to say is in the rows; its memory is the policy's

    # ---- rows

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: DPOConfig, dataset_name: str) -> Dataset:
        if isinstance(self._collator, PairCollator) and self._collator.pad_token_id == -1:
            self._collator.pad_token_id = self._tokenizer.pad_token_id
        if set(TRAINED) <= set(dataset.column_names):
            return dataset
        rules = PairRules(args.max_length, masking=args.masking, mask_termination_tokens=args.mask_termination_tokens)
        tokenized = tokenize_pairs(dataset, processing_class, rules, num_proc=args.dataset_num_proc)
        return trainable_pairs(tokenized, over_length="truncate")

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*TRAINED, "ref_chosen_logps", "ref_rejected_logps"]

    # ---- the loss

    def count_batch(self, batch: Batch) -> tuple[int, ...]:
        """And, last, the chosen tokens, which the sft term is divided by."""
        mask = batch["completion_mask"]
        return self.pairs_in(batch), int(mask.sum()), int(batch["attention_mask"].sum()), int(_halves(mask)[0].sum())

    def take_counts(self, *counted: int) -> None:
        super().take_counts(*counted)
        self._chosen_tokens = counted[-1]

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        if return_outputs:  # TRL runs the model again for them, and so shall not we
            return super().compute_loss(model, inputs, return_outputs=True)
        if "ref_chosen_logps" not in inputs:
            reference = self.passes(self.ref_model or self.model)
            chosen, rejected = self.compute_ref_log_probs(reference, inputs)
            inputs = inputs | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        seen: list[torch.Tensor] = []
        cached, self.precompute_ref_logps = self.precompute_ref_logps, True  # TRL: the batch has them
        try:
            with self.alone():
                loss = super().compute_loss(self.passes(model, seen.append), inputs)
        finally:
            self.precompute_ref_logps = cached
        pairs = self.take_pairs(inputs)
        loss = loss * self.step_weight(pairs) if self.model.training else loss
        per_token_logps = seen[0]
        if self.sft_weight and pairs:
            loss = loss + self.sft_weight * self._sft_term(per_token_logps, inputs["completion_mask"])
        if self.model.training:
            self.stop_unless_finite(loss)
        self._note_pairs(per_token_logps.detach(), inputs, pairs)
        return loss

    def _sft_term(self, per_token_logps: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
        """This micro-batch's part of the mean loss over the step's chosen tokens; scaled as transformers divides."""
        chosen_mask, _ = _halves(completion_mask[:, 1:])
        total = -(_halves(per_token_logps)[0] * chosen_mask).sum()
        if not self.model.training:
            return total / chosen_mask.sum()
        return total * self.counts.num_microbatches / self._chosen_tokens

    def passes(self, model: Any, see: Callable[[torch.Tensor], None] | None = None) -> Callable[..., Any]:
        """`model`, run over both halves of a batch at once or apart; `see` gets the per-token logps, (2B, L - 1)."""

        def forward(**kwargs: Any) -> Any:
            outputs = model(**kwargs) if self.args.concatenated_forward else _run_apart(model, kwargs)
            if see is not None:
                see(outputs.log_probs[:, 1 - kwargs["input_ids"].shape[1] :])
            return outputs

        return forward

    # ---- logs

    def _note_pairs(self, per_token_logps: torch.Tensor, inputs: Batch, pairs: int) -> None:
        chosen, rejected = _halves(per_token_logps.float().sum(1))
        chosen_tokens, rejected_tokens = _halves(inputs["completion_mask"].sum(1).float())
        ref_chosen, ref_rejected = inputs["ref_chosen_logps"].float(), inputs["ref_rejected_logps"].float()
        if "sigmoid_norm" in self.loss_types:
            lengths = chosen_tokens, rejected_tokens
        else:
            lengths = torch.ones_like(chosen), torch.ones_like(rejected)
        _, chosen_reward, rejected_reward = length_normalized_dpo_loss(
            chosen, rejected, ref_chosen, ref_rejected, *lengths, self.beta
        )
        self.note(
            {
                "chosen_reward": chosen_reward,
                "rejected_reward": rejected_reward,
                "right": ranked_rightly(chosen_reward, rejected_reward),
                "chosen_logps": chosen,
                "rejected_logps": rejected,
                "chosen_gain": chosen - ref_chosen,
                "rejected_gain": rejected - ref_rejected,
                "chosen_tokens": chosen_tokens,
                "rejected_tokens": rejected_tokens,
            },
            pairs,
        )

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        return pair_means(sums)


def _halves(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = tensor.chunk(2)
    return chosen, rejected


def _run_apart(model: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    """Two forward passes, each padded to its own longest row, whose outputs are put together as of one."""
    shape = kwargs["input_ids"].shape
    outputs = []
    for rows in (slice(0, shape[0] // 2), slice(shape[0] // 2, None)):
        width = int(kwargs["attention_mask"][rows].sum(1).max())  # padding is on the right
        half = {
            key: value[rows, :width] if isinstance(value, torch.Tensor) and value.shape == shape else value
            for key, value in kwargs.items()
        }
        outputs.append(model(**half))
    for name, value in outputs[0].items():
        other = outputs[1][name]
        if value.ndim == 0:  # losses of a mixture of experts
            outputs[0][name] = (value + other) / 2
        else:
            outputs[0][name] = torch.cat([_widened(value, shape[1] - 1), _widened(other, shape[1] - 1)])
    return outputs[0]


def _widened(values: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
