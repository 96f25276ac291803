"""From a recipe to TRL's objects: training arguments, adapter, model."""

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import ModelConfig, get_peft_config, get_quantization_config
from trl.trainer.utils import create_model_from_path

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.dpo import DPOConfig
from tulu_recipes.trainers.preference_alarms import AlarmRules, AlarmWindows
from tulu_recipes.trainers.reward import RewardConfig, load_scorer
from tulu_recipes.trainers.sft import SFTConfig
from tulu_recipes.trainers.simpo import CPOConfig


def sft_arguments(recipe: Recipe) -> SFTConfig:
    """Training arguments of an SFT recipe.

    Rows arrive tokenized, cut and labelled, so TRL's own preparation is left with packing alone.

    Raises:
        RecipeError: it asks for kernels that this machine cannot run.
    """
    packing = recipe["packing"]
    values = _arguments(recipe, "SFTConfig") | {
        "loss_reduction": recipe["loss_reduction"],
        "dataset_kwargs": None if packing else {"skip_prepare_dataset": True},
        "assistant_only_loss": False,  # the labels say it already
        "completion_only_loss": False,
        "eval_packing": False,  # evaluation is per row
    }
    if recipe["padding_free"] and not packing:
        values["max_length"] = None  # TRL's condition; the rows are cut already
    return SFTConfig(**values)


def reward_arguments(recipe: Recipe) -> RewardConfig:
    """Training arguments of a reward model; pairs arrive tokenized. Raises as `sft_arguments`."""
    return RewardConfig(**_arguments(recipe, "RewardConfig"))


def dpo_arguments(recipe: Recipe) -> DPOConfig | CPOConfig:
    """Training arguments of a DPO recipe, or of SimPO's trainer. Pairs arrive tokenized. Raises as `sft_arguments`."""
    values = _arguments(recipe, "DPOConfig") | {"beta": recipe["beta"], "prediction_loss_only": True}
    if recipe.is_simpo():
        known = {field.name for field in dataclasses.fields(CPOConfig) if field.init}
        values = {key: value for key, value in values.items() if key in known}
        return CPOConfig(**values, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=recipe["simpo_gamma"])
    ours = ("masking", "mask_termination_tokens", "concatenated_forward", "loss_weights", "ref_log_probs_cache")
    return DPOConfig(**values, loss_type=recipe.loss_types(), **{key: recipe[key] for key in ours})


def preference_alarms(recipe: Recipe) -> AlarmWindows:
    rules = AlarmRules(recipe["alarm_window"], recipe["alarm_chosen_drop"], recipe["alarm_accuracy"])
    return AlarmWindows(rules)


def _arguments(recipe: Recipe, config: str) -> dict[str, Any]:
    """What every stage tells transformers.

    Pushing at the end is ours (`hub.push_folder`); transformers pushes in between, where `hub_strategy` asks for it.
    """
    values = recipe.trl_values((config, "TrainingArguments"))
    values |= {
        "output_dir": recipe["output_dir"],
        "disable_tqdm": True,  # trainers.callbacks.ProgressCallback
        "logging_nan_inf_filter": False,  # a loss that is not finite stops the run
        "push_to_hub": bool(recipe["push_to_hub"]) and recipe["hub_strategy"] != "end",
    }
    if "report_to" not in recipe.given:
        values["report_to"] = ["trackio"] if find_spec("trackio") else []
    if not torch.cuda.is_available():
        values["dataloader_pin_memory"] = False  # there is nothing to pin for, and torch warns at every epoch
    on_cpu = recipe["use_cpu"] or not torch.accelerator.is_available()
    if recipe["use_liger_kernel"] and on_cpu:
        raise RecipeError(
            Problem(
                "liger-without-gpu",
                recipe.where("use_liger_kernel"),
                "use_liger_kernel is true, and Liger's kernels run on GPUs alone; this run is on the CPU.",
                "write  use_liger_kernel: false, or run it on a GPU.",
            )
        )
    if on_cpu:
        # accelerate puts ranks on "cpu:0" and "cpu:1", and torch.load can restore nothing there when a run resumes
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    values.setdefault("project", "tulu_recipes")
    values.setdefault("run_name", Path(recipe["output_dir"]).name)
    if values["push_to_hub"] is False:
        values = {key: value for key, value in values.items() if not key.startswith("hub_")}
    return values


def model_config(recipe: Recipe) -> ModelConfig:
    return ModelConfig(**recipe.trl_values("ModelConfig"))


def adapter_config(recipe: Recipe) -> PeftConfig | None:
    """LoRA through TRL's keys (`use_peft`, `lora_r`, …), or None."""
    config: PeftConfig | None = get_peft_config(model_config(recipe))
    return config


def quantization_config(recipe: Recipe) -> BitsAndBytesConfig | None:
    config: BitsAndBytesConfig | None = get_quantization_config(model_config(recipe))
    return config


def load_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model to train in the recipe's dtype, with an embedding row for every token, and told how turns end.

    The reward stage gets a score head on it.

    Embeddings grow only where the tokenizer outgrew them, and then to a multiple of 8 [OIr]; `prepare_data` has
    refused that for adapters.
    """
    set_seed(recipe["seed"])  # new embedding rows are random
    config = model_config(recipe)
    kwargs: dict[str, Any] = dict(recipe["model_init_kwargs"] or {})
    kwargs |= {
        "revision": config.model_revision,
        "trust_remote_code": bool(recipe["trust_remote_code"]),
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype or "float32",
        "quantization_config": quantization_config(recipe),
    }
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    if PartialState().num_processes > 1 and "quantization_config" not in kwargs:
        kwargs["device_map"] = None  # said, because TRL's default spreads the model over all GPUs of the machine
    build = load_scorer if recipe.stage == "reward" else create_model_from_path
    model: PreTrainedModel = build(recipe["model_name_or_path"], **kwargs)
    embeddings: Any = model.get_input_embeddings()
    rows: int = embeddings.num_embeddings  # not its weight's shape, which ZeRO-3 empties
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)
    _align_special_tokens(model, tokenizer)
    return model


def load_reference(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
    """A second copy of the model that DPO starts from; None where its log-probs come without one.

    Adapters are switched off for the reference; a cache is computed by the policy before it moves, but not under FSDP,
    which shards it only when training begins.
    """
    cached = recipe["precompute_ref_log_probs"] and not os.environ.get("ACCELERATE_USE_FSDP")
    if recipe["use_peft"] or recipe.is_simpo() or cached:
        return None
    return load_model(recipe, tokenizer)


def _align_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Generation must stop on the EOS that is trained, and pad with a token that is not it."""
    model.config.bos_token_id = tokenizer.bos_token_id  # else transformers does, aloud
    generation = getattr(model, "generation_config", None)  # a reward model generates nothing
    if generation is not None:
        known = generation.eos_token_id
        others = known if isinstance(known, list) else [known] if known is not None else []
        if tokenizer.eos_token_id not in others:
            others = [tokenizer.eos_token_id, *others]
        generation.eos_token_id = others if len(others) > 1 else others[0]
        generation.pad_token_id = tokenizer.pad_token_id
        generation.bos_token_id = tokenizer.bos_token_id
    text_config = model.config.get_text_config()
    text_config.pad_token_id = tokenizer.pad_token_id
    text_config.eos_token_id = tokenizer.eos_token_id


def trainable_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
