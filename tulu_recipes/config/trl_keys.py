"""What becomes of TRL's keys that are not simply passed through, and what other layers call them.

SET_BY_US: the stage gives these their value; a recipe may repeat that value, nothing else.
REFUSED: a recipe that sets these is refused.
RENAMED: names from older TRL, alignment-handbook and open-instruct, with the key that means the same.
RENAMED_BY_STAGE: likewise, where a stage has another key for it than the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class SetByUs:
    """value: what the stage uses; accepted: what a recipe may say without being refused."""

    value: Any
    accepted: tuple[Any, ...]
    reason: str
    mend: str = "remove the key."


@dataclass(frozen=True)
class RefusedKey:
    reason: str
    mend: str


@dataclass(frozen=True)
class Renamed:
    """key: the name here, empty when there is none; hint: what to write, `{value}` is the recipe's value."""

    key: str
    hint: str


SET_BY_US: Mapping[str, SetByUs] = MappingProxyType(
    {
        "assistant_only_loss": SetByUs(
            True, (True,), "The loss is always on the assistant's tokens only; the supervision audit counts them."
        ),
        "completion_only_loss": SetByUs(
            None, (None, True), "prompt/completion rows are always supervised on the completion only."
        ),
        "dataset_kwargs": SetByUs(None, (None,), "Rows are tokenised and audited here, so TRL's preparation is ours."),
        "dataset_text_field": SetByUs(
            "text", ("text",), "Rows are messages or prompt/completion; plain text has no answer to supervise."
        ),
        "truncation_mode": SetByUs(
            "keep_start",
            ("keep_start",),
            "Cutting the start would remove the question and keep the answer.",
            "remove the key; over_length: truncate | drop | stop says what happens to long rows.",
        ),
        "lora_task_type": SetByUs("CAUSAL_LM", ("CAUSAL_LM",), "SFT trains a causal language model."),
        "logging_nan_inf_filter": SetByUs(
            False, (False,), "The filter would hide a NaN loss; a run stops at the first one and keeps its batch."
        ),
        "do_train": SetByUs(True, (True,), "The stage trains."),
        "do_eval": SetByUs(
            False, (), "The stage evaluates as eval_strategy says.", "remove the key and set eval_strategy."
        ),
        "do_predict": SetByUs(False, (False,), "The stage has no prediction pass."),
        "remove_unused_columns": SetByUs(True, (True,), "Columns are chosen by the stage's own preparation."),
    }
)

_NO_SMOOTHING = SetByUs(
    0.0, (0.0,), "TRL's losses of pairs do not read it.", "remove the key; DPO has its own, label_smoothing."
)

_ROLLOUT = SetByUs(
    None,
    (None,),
    "A rollout holds global_batch_size × num_minibatches completions.",
    "write  num_minibatches: optimizer steps per pass over a rollout.",
)

_BY_STAGE: Mapping[str, Mapping[str, SetByUs]] = MappingProxyType(
    {
        "dpo": {
            "padding_free": SetByUs(
                False, (False,), "TRL's DPOTrainer has switched it off for now and would pad without a word."
            ),
            "lora_task_type": SetByUs("CAUSAL_LM", ("CAUSAL_LM",), "DPO trains a causal language model."),
            "label_smoothing_factor": _NO_SMOOTHING,
        },
        "reward": {
            "lora_task_type": SetByUs("SEQ_CLS", ("SEQ_CLS",), "A reward model is a sequence classifier."),
            "label_smoothing_factor": _NO_SMOOTHING,
        },
        "rlvr": {
            "lora_task_type": SetByUs("CAUSAL_LM", ("CAUSAL_LM",), "RLVR trains a causal language model."),
            "label_smoothing_factor": SetByUs(
                0.0, (0.0,), "There are no labels to smooth: completions are generated and scored."
            ),
            "remove_unused_columns": SetByUs(False, (False,), "The verifiers read columns of the rows."),
            "generation_batch_size": _ROLLOUT,
            "steps_per_generation": _ROLLOUT,
            "reward_weights": SetByUs(
                None,
                (None,),
                "The rewards are the verifier's and a reward model's.",
                "write  reward_model_multiplier.",
            ),
            "chat_template_kwargs": SetByUs(
                None, (None,), "Prompts are counted, sampled and trained on with the chat template alone."
            ),
            "max_tool_calling_iterations": SetByUs(None, (None,), "The stage gives the model no tools."),
            "use_transformers_paged": SetByUs(
                False, (False,), "TRL gave it another name.", "write  use_transformers_continuous_batching: true"
            ),
            "vllm_importance_sampling_cap": SetByUs(
                None, (None,), "TRL gave it another name.", "write  vllm_importance_sampling_clip_max"
            ),
        },
    }
)


def set_by_us(stage: str) -> Mapping[str, SetByUs]:
    """TRL's keys to which a stage gives the value."""
    return {**SET_BY_US, **_BY_STAGE.get(stage, {})}


_MACHINE = "It describes the machine, and a recipe may not: the same recipe runs on any."
_LAUNCH = "remove the key and launch with  accelerate launch --config_file recipes/machines/{}.yaml"

REFUSED: Mapping[str, RefusedKey] = MappingProxyType(
    {
        "chat_template_path": RefusedKey(
            "TRL's key copies a template without checking that it marks the assistant's text.",
            "write  chat_template: {value}",
        ),
        "auto_find_batch_size": RefusedKey(
            "It halves the batch when memory runs out, and so changes the optimizer steps on a smaller machine.",
            "set global_batch_size; per_device_train_batch_size: 1 needs the least memory.",
        ),
        "deepspeed": RefusedKey(_MACHINE, _LAUNCH.format("zero3")),
        "fsdp": RefusedKey(_MACHINE, _LAUNCH.format("fsdp2")),
        "fsdp_config": RefusedKey(_MACHINE, _LAUNCH.format("fsdp2")),
        "parallelism_config": RefusedKey(_MACHINE, _LAUNCH.format("fsdp2")),
        "accelerator_config": RefusedKey(
            "split_batches and even_batches in it change how many sequences an optimizer step holds.",
            "remove the key; global_batch_size says how many sequences a step holds.",
        ),
        "local_rank": RefusedKey("The launcher sets it through the environment.", "remove the key."),
        "hub_token": RefusedKey(
            "A recipe is copied into the run folder and onto the model card: the token would be published.",
            "remove the key and revoke the token if the file was shared; log in with  hf auth login  or set HF_TOKEN.",
        ),
        "dataset_streaming": RefusedKey(
            "The supervision audit reads every row before step 0, which a stream does not allow.", "remove the key."
        ),
        "ignore_data_skip": RefusedKey(
            "A resumed run would start the epoch's rows again instead of going on where it stopped.", "remove the key."
        ),
        "ignore_bias_buffers": RefusedKey(
            "A debugging switch of TRL's scripts; nothing here reads it.", "remove the key."
        ),
        "label_names": RefusedKey("Labels are made here.", "remove the key."),
        "include_for_metrics": RefusedKey("There is no metric function that would read them.", "remove the key."),
        "batch_eval_metrics": RefusedKey("There is no metric function that would read them.", "remove the key."),
    }
)

_OWN_FILE = "write the mix to its own file and  dataset_mix: data_mixes/NAME.yaml"

# Keys of TRL's scripts and of other layers that are no fields of TRL's configurations.
RENAMED: Mapping[str, Renamed] = MappingProxyType(
    {
        # transformers and TRL, earlier names
        "warmup_ratio": Renamed(
            "warmup_steps", "write  warmup_steps: {value}  (below 1 it is a fraction of the steps)"
        ),
        "max_seq_length": Renamed("max_length", "write  max_length: {value}"),
        "max_seq_len": Renamed("max_length", "write  max_length: {value}"),
        "torch_dtype": Renamed("dtype", "write  dtype: {value}"),
        "evaluation_strategy": Renamed("eval_strategy", "write  eval_strategy: {value}"),
        "tokenizer_name_or_path": Renamed(
            "", "remove the key: the tokenizer is the model's; chat_template: {value}  takes only its template"
        ),
        "tokenizer_name": Renamed(
            "", "remove the key: the tokenizer is the model's; chat_template: {value}  takes only its template"
        ),
        "use_flash_attn": Renamed("attn_implementation", "write  attn_implementation: flash_attention_2"),
        "use_flash_attention_2": Renamed("attn_implementation", "write  attn_implementation: flash_attention_2"),
        "use_liger": Renamed("use_liger_kernel", "write  use_liger_kernel: {value}"),
        "group_by_length": Renamed("train_sampling_strategy", "write  train_sampling_strategy: group_by_length"),
        "no_cuda": Renamed("use_cpu", "write  use_cpu: {value}"),
        "push_to_hub_model_id": Renamed("hub_model_id", "write  hub_model_id: {value}"),
        "dataset_batch_size": Renamed("", "remove the key"),
        "num_of_sequences": Renamed("", "remove the key"),
        "chars_per_token": Renamed("", "remove the key"),
        "logging_dir": Renamed("output_dir", "remove the key: logs are written into output_dir"),
        "overwrite_output_dir": Renamed("", "remove the key: a folder with checkpoints is resumed; else name another"),
        "dataset_name_or_path": Renamed("dataset_name", "write  dataset_name: {value}"),
        # alignment-handbook
        "dataset_mixer": Renamed("dataset_mix", _OWN_FILE),
        "dataset_mixture": Renamed("dataset_mix", _OWN_FILE),
        "datasets": Renamed("dataset_mix", _OWN_FILE),
        "dataset_splits": Renamed("dataset_train_split", "write  dataset_train_split: train"),
        "preprocessing_num_workers": Renamed("dataset_num_proc", "write  dataset_num_proc: {value}"),
        # open-instruct
        "dataset_mixer_list": Renamed("dataset_mix", _OWN_FILE),
        "reduce_loss": Renamed(
            "loss_reduction", "write  loss_reduction: sum  (theirs: sum) or token_mean (theirs: mean)"
        ),
        "gradient_clipping": Renamed("max_grad_norm", "write  max_grad_norm: {value}"),
        "clip_grad_norm": Renamed("max_grad_norm", "write  max_grad_norm: {value}"),
        "chat_template_name": Renamed("chat_template", "write  chat_template: {value}"),
        "train_file": Renamed("dataset_name", "write  dataset_name: {value}"),
        "use_lora": Renamed("use_peft", "write  use_peft: {value}"),
        "lora_rank": Renamed("lora_r", "write  lora_r: {value}"),
        "use_qlora": Renamed("load_in_4bit", "write  use_peft: true  and  load_in_4bit: true"),
        "use_8bit_optimizer": Renamed("optim", "write  optim: adamw_bnb_8bit"),
        "fused_optimizer": Renamed("optim", "write  optim: adamw_torch_fused"),
        "checkpointing_steps": Renamed("save_steps", "write  save_steps: {value}  (or save_strategy: epoch)"),
        "keep_last_n_checkpoints": Renamed("save_total_limit", "write  save_total_limit: {value}"),
        "exp_name": Renamed("run_name", "write  run_name: {value}"),
        "with_tracking": Renamed("report_to", "write  report_to: wandb  (or trackio, tensorboard, none)"),
        "hf_repo_id": Renamed("hub_model_id", "write  hub_model_id: {value}"),
        "hf_repo_revision": Renamed("hub_revision", "write  hub_revision: {value}"),
        "dpo_beta": Renamed("beta", "write  beta: {value}"),
        "dpo_loss_type": Renamed(
            "loss_type", "write  loss_type: sigmoid_norm  (theirs: dpo_norm), sigmoid (theirs: dpo) or simpo"
        ),
        "dpo_gamma_beta_ratio": Renamed("simpo_gamma", "write  simpo_gamma: beta × {value}"),
        "dpo_label_smoothing": Renamed("label_smoothing", "write  label_smoothing: {value}"),
        "reference_logprobs_cache_path": Renamed(
            "ref_log_probs_cache", "write  precompute_ref_log_probs: true  and  ref_log_probs_cache: {value}"
        ),
        "max_token_length": Renamed("max_length", "write  max_length: {value}"),
        # TRL's DPO, earlier
        "rpo_alpha": Renamed("loss_weights", "write  loss_type: [sigmoid, sft]  and  loss_weights: [1.0, {value}]"),
        "reference_free": Renamed("", "remove the key: write  loss_type: simpo  for a loss without a reference"),
        "generate_during_eval": Renamed("sample_rows", "write  sample_rows: 32"),
        "ref_model_init_kwargs": Renamed("", "remove the key: the reference is the model that training starts from"),
        "use_logits_to_keep": Renamed("", "remove the key"),
        "cpo_alpha": Renamed("", "remove the key: SimPO has no such term"),
        # other trainers
        "epochs": Renamed("num_train_epochs", "write  num_train_epochs: {value}"),
        "lr": Renamed("learning_rate", "write  learning_rate: {value}"),
        "batch_size": Renamed(
            "global_batch_size", "write  global_batch_size: {value}  (sequences per optimizer step)"
        ),
        "micro_batch_size": Renamed("per_device_train_batch_size", "write  per_device_train_batch_size: {value}"),
        "sample_packing": Renamed("packing", "write  packing: {value}"),
        "sequence_len": Renamed("max_length", "write  max_length: {value}"),
        "flash_attention": Renamed("attn_implementation", "write  attn_implementation: flash_attention_2"),
        "base_model": Renamed("model_name_or_path", "write  model_name_or_path: {value}"),
        "model": Renamed("model_name_or_path", "write  model_name_or_path: {value}"),
        "dataset": Renamed("dataset_name", "write  dataset_name: {value}"),
        # TrlParser's way to name the file and to change the environment
        "config": Renamed("", "give the file as the first argument:  python -m tulu_recipes.STAGE RECIPE.yaml"),
        "env": Renamed("", "set environment variables in the shell: a recipe may not change the machine"),
    }
)

_TOGETHER = Renamed("", "remove the key: max_length counts prompt and answer together")
_ANSWERS_GIVEN = {
    "max_prompt_length": _TOGETHER,  # TRL's DPO, earlier
    "max_completion_length": _TOGETHER,
    "max_prompt_token_length": Renamed(
        "max_length", "write  max_length: {value}  and for the released filter of prompts  over_length: as_released"
    ),
    "num_epochs": Renamed("num_train_epochs", "write  num_train_epochs: {value}"),
}
_BOTH_LENGTHS = Renamed(
    "max_completion_length",
    "write  max_prompt_length: {value}  for the prompt, and  max_completion_length  for what is generated",
)
_PASSES = Renamed("num_iterations", "write  num_iterations: {value}  (passes over a rollout)")
_SAMPLES = Renamed("num_generations", "write  num_generations: {value}")
_NON_STOP = Renamed("non_stop_reward", "write  non_stop_reward: {value}")
_BATCH = Renamed(
    "global_batch_size",
    "write  global_batch_size: completions per optimizer step of all processes, and  num_minibatches: steps per pass",
)
_GENERATED = {
    "max_length": _BOTH_LENGTHS,
    "max_seq_length": _BOTH_LENGTHS,
    "max_token_length": _BOTH_LENGTHS,
    "max_new_tokens": Renamed("max_completion_length", "write  max_completion_length: {value}"),
    # open-instruct, and TRL's PPOTrainer of 1.12
    "num_epochs": _PASSES,
    "num_ppo_epochs": _PASSES,
    "ppo_epochs": _PASSES,
    "num_mini_batches": Renamed("num_minibatches", "write  num_minibatches: {value}"),
    "number_samples_per_prompt": _SAMPLES,
    "num_samples_per_prompt_rollout": _SAMPLES,
    "num_unique_prompts_rollout": _BATCH,
    "rollout_batch_size": _BATCH,
    "local_rollout_batch_size": _BATCH,
    "mini_batch_size": _BATCH,
    "local_mini_batch_size": _BATCH,
    "non_stop_penalty": Renamed("non_stop_reward", "write  non_stop_reward: -10.0  (Tülu 3) or 0.0 (Tülu 3.1)"),
    "non_stop_penalty_value": _NON_STOP,
    "penalty_reward_value": _NON_STOP,
    "missing_eos_penalty": Renamed("non_stop_reward", "write  non_stop_reward: -{value}  (it replaces the score)"),
    "response_length": Renamed("max_completion_length", "write  max_completion_length: {value}"),
    "max_prompt_token_length": Renamed("max_prompt_length", "write  max_prompt_length: {value}"),
    "cliprange": Renamed("epsilon", "write  epsilon: {value}"),
    "clip_lower": Renamed("epsilon", "write  epsilon: {value}"),
    "clip_higher": Renamed("epsilon_high", "write  epsilon_high: {value}"),
    "kl_coef": Renamed("beta", "write  beta: {value}"),
    "init_kl_coef": Renamed("beta", "write  beta: {value}"),
    "verification_reward": Renamed("verifiable_reward", "write  verifiable_reward: {value}"),
    "apply_verifiable_reward": Renamed("verifiable_reward", "remove the key: the stage always verifies"),
    "reward_model_path": Renamed("reward_model_name_or_path", "write  reward_model_name_or_path: {value}"),
    "init_value_from_scratch": Renamed("value_head", "write  value_head: fresh"),
    "async_mode": Renamed("rollout_lag", "write  rollout_lag: 1  for true, 0 for false"),
    "async_steps": Renamed("rollout_lag", "write  rollout_lag: {value}"),
    "stop_token": Renamed("", "remove the key: a completion ends at EOS"),
    "whiten_rewards": Renamed("", "remove the key: rewards are not whitened, advantages are (whiten_advantages)"),
    "vllm_num_engines": Renamed("", "remove the key: vLLM's own launch says how many engines there are"),
    "save_freq": Renamed("save_steps", "write  save_steps: {value} × optimizer steps a rollout"),
}
RENAMED_BY_STAGE: Mapping[str, Mapping[str, Renamed]] = MappingProxyType(
    {"sft": _ANSWERS_GIVEN, "reward": _ANSWERS_GIVEN, "dpo": _ANSWERS_GIVEN, "rlvr": _GENERATED}
)
