"""One optimizer step of our SFTTrainer in a given layout, and the update it made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaForCausalLM

from tests.tiny import conversation, tiny_tokenizer
from tulu_recipes.data.supervision import tokenize_rows, trainable_rows
from tulu_recipes.trainers.sft import SFTConfig, SFTTrainer

# SGD with one large step: (weights before - weights after) / RATE is the gradient, and the rounding of the weights is
# small beside the step. Works the same where gradients are sharded or gone after the step.
RATE = 16.0
LAYOUTS = ((8, 1), (4, 2), (1, 8))  # rows in a micro-batch, micro-batches
REDUCTIONS = ("sum", "token_mean", "sequence_mean")
PACKED = {"packing": True, "packing_strategy": "bfd", "dataset_kwargs": None}
PADDING_FREE = {"padding_free": True, "max_length": None}
# What one comparable step needs of any trainer
ONE_STEP: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "max_grad_norm": 0,
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": [],
}


def token_rows(count: int, first: int = 0) -> Dataset:
    """Rows of one to three turns, whose lengths and supervised parts differ."""
    rows = Dataset.from_list([conversation(i, 1 + i % 3, 9) for i in range(first, first + count)])
    return trainable_rows(tokenize_rows(rows, tiny_tokenizer(), max_length=128), over_length="truncate")


def sft_config(folder: Path, **keys: Any) -> SFTConfig:
    settings = ONE_STEP | {
        "max_length": 128,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "eval_packing": False,
    }
    return SFTConfig(str(folder), **settings | keys)


def trainer_for(
    model: LlamaForCausalLM, folder: Path, rows: Dataset, eval_rows: Dataset | None = None, **keys: Any
) -> SFTTrainer:
    """Build `sft_config` first where the model is loaded into shards; pass it as `args`."""
    args = keys.pop("args", None) or sft_config(folder, **keys)
    return SFTTrainer(model, args, train_dataset=rows, eval_dataset=eval_rows, processing_class=tiny_tokenizer())


def copy_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def update(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradient of the one step between two sets of weights."""
    return {name: (before[name] - after[name]) / RATE for name in before}
