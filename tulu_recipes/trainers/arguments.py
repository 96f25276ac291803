"""From a recipe to TRL's objects: training arguments, adapter, model."""

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import snapshot_download
from peft import PeftConfig
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import ModelConfig, get_peft_config, get_quantization_config
from trl.trainer.utils import create_model_from_path

from tulu_recipes.config.keys import OURS
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.schema import keys_for
from tulu_recipes.config.surroundings import is_local
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.critic import load_value_model
from tulu_recipes.trainers.dpo import DPOConfig
from tulu_recipes.trainers.grpo import GRPOConfig, RLOOConfig
from tulu_recipes.trainers.online_alarms import OnlineRules, OnlineWindows
from tulu_recipes.trainers.ppo import PPOConfig
from tulu_recipes.trainers.preference_alarms import AlarmRules, AlarmWindows
from tulu_recipes.trainers.reward import RewardConfig, load_scorer
from tulu_recipes.trainers.sft import SFTConfig
from tulu_recipes.trainers.simpo import CPOConfig
from tulu_recipes.verifiers.pool import VerifierPool
from tulu_recipes.verifiers.scoring import VerifiableReward

# Keys of ours that TRL's configurations have under the same name, with a use of their own
_TRL_HAS_TOO = {"pad_token", "eos_token"}


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


def online_alarms(recipe: Recipe) -> OnlineWindows:
    names = ("truncation", "verifier_errors", "length_drift", "entropy_low", "entropy_high", "kl")
    limits = {name: recipe[f"alarm_{name}"] for name in (*names, "explained_variance")}
    return OnlineWindows(OnlineRules(recipe["alarm_window"], **limits))


def rlvr_arguments(recipe: Recipe) -> PPOConfig | GRPOConfig | RLOOConfig:
    """Training arguments of an RLVR recipe. Rows arrive as prompts, which TRL tokenizes. Raises as `sft_arguments`."""
    build = {"ppo": PPOConfig, "grpo": GRPOConfig, "rloo": RLOOConfig}[recipe["algorithm"]]
    known = {field.name for field in dataclasses.fields(build) if field.init}
    ours = [key.name for key in keys_for("rlvr").values() if key.source == OURS and key.name in known - _TRL_HAS_TOO]
    values = _arguments(recipe, "GRPOConfig") | {key: recipe[key] for key in ours}
    if recipe["reward_model_multiplier"]:
        values["reward_weights"] = [1.0, recipe["reward_model_multiplier"]]
    if recipe["stop_after_steps"]:
        values["schedule_steps"], values["max_steps"] = recipe["max_steps"], recipe["stop_after_steps"]
    config: PPOConfig | GRPOConfig | RLOOConfig = build(**{key: values[key] for key in values.keys() & known})
    return config


def verifiable_reward(recipe: Recipe, folder: Path) -> VerifiableReward:
    """The reward function of an RLVR recipe; completions that could not be graded are kept in `folder`."""
    return VerifiableReward(
        recipe["verifier_semantics"],
        recipe["verifiable_reward"],
        recipe["max_verifier_error_fraction"],
        pool=VerifierPool(recipe["verifier_workers"], seconds=recipe["verifier_seconds"]),
        samples_path=folder / "verifier-errors.jsonl",
    )


def reward_functions(recipe: Recipe, folder: Path) -> list[Any]:
    """What scores a completion: the verifier, and a reward model where its score counts."""
    model = [recipe["reward_model_name_or_path"]] if recipe["reward_model_multiplier"] else []
    return [verifiable_reward(recipe, folder), *model]


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
        # Untold, each of several ranks is a run of its own, and bf16 is refused. FSDP has no CPU mode
        values["use_cpu"] = recipe["use_cpu"] or not os.environ.get("ACCELERATE_USE_FSDP")
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


def load_critic(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The value model of PPO, with an embedding row for every token."""
    set_seed(recipe["seed"])  # a new head is random
    named = recipe["value_model_name_or_path"]
    kwargs = _model_kwargs(recipe)
    if named:
        kwargs.pop("revision")
    model = load_value_model(named or _pinned(recipe), fresh_head=recipe["value_head"] == "fresh", **kwargs)
    _grow_embeddings(model, tokenizer)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model


def _pinned(recipe: Recipe) -> str:
    """The model's name; at a revision, the folder of its files: TRL loads the reference by this name alone."""
    name, revision = recipe["model_name_or_path"], recipe["model_revision"]
    if recipe.stage != "rlvr" or revision in (None, "main") or is_local(name):
        return str(name)
    return str(snapshot_download(name, revision=revision))


def _model_kwargs(recipe: Recipe) -> dict[str, Any]:
    """Of `from_pretrained`, but for quantisation."""
    config = model_config(recipe)
    kwargs: dict[str, Any] = dict(recipe["model_init_kwargs"] or {})
    kwargs |= {
        "revision": config.model_revision,
        "trust_remote_code": bool(recipe["trust_remote_code"]),
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype or "float32",
    }
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    if PartialState().num_processes > 1:
        kwargs["device_map"] = None  # said, because TRL's default spreads the model over all GPUs of the machine
    return kwargs


def _grow_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows: int = embeddings.num_embeddings  # not its weight's shape, which ZeRO-3 empties
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)


def load_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model to train in the recipe's dtype, with an embedding row for every token, and told how turns end.

    The reward stage gets a score head on it.

    Embeddings grow only where the tokenizer outgrew them, and then to a multiple of 8 [OIr]; `prepare_data` has
    refused that for adapters.
    """
    set_seed(recipe["seed"])  # new embedding rows are random
    kwargs, quantization = _model_kwargs(recipe), quantization_config(recipe)
    if quantization is not None:
        kwargs["quantization_config"] = quantization
        kwargs.pop("device_map", None)
    build = load_scorer if recipe.stage == "reward" else create_model_from_path
    model: PreTrainedModel = build(_pinned(recipe), **kwargs)
    _grow_embeddings(model, tokenizer)
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
