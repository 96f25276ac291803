"""Every key a recipe may hold, per stage: ours, then TRL's as recorded in trl_surface.json."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tulu_recipes.config.keys import FRACTION, POSITIVE, Key, Limits, Use
from tulu_recipes.config.our_keys import OUR_KEYS
from tulu_recipes.config.trl_keys import REFUSED, RefusedKey, SetByUs, set_by_us

SURFACE = Path(__file__).with_name("trl_surface.json")

# TRL and transformers declare no ranges; these are the ones outside which training cannot be meant.
RANGES: Mapping[str, Limits] = MappingProxyType(
    {
        "learning_rate": Limits(0, open_low=True),
        "max_length": Limits(2),
        "num_train_epochs": Limits(0, open_low=True),
        "max_steps": Limits(-1),
        "warmup_steps": Limits(0),
        "weight_decay": Limits(0),
        "adam_beta1": FRACTION,
        "adam_beta2": FRACTION,
        "adam_epsilon": Limits(0, open_low=True),
        "max_grad_norm": Limits(0),
        "label_smoothing_factor": FRACTION,
        "label_smoothing": FRACTION,
        "precompute_ref_batch_size": POSITIVE,
        "ref_model_sync_steps": POSITIVE,
        "ref_model_mixup_alpha": FRACTION,
        "beta": Limits(0),
        "temperature": Limits(0),
        "top_p": Limits(0, 1, open_low=True),
        "top_k": Limits(0),
        "min_p": FRACTION,
        "repetition_penalty": Limits(0, open_low=True),
        "num_generations": POSITIVE,
        "num_generations_eval": POSITIVE,
        "num_iterations": POSITIVE,
        "max_completion_length": POSITIVE,
        "epsilon": Limits(0, open_low=True),
        "epsilon_high": Limits(0, open_low=True),
        "vllm_gpu_memory_utilization": Limits(0, 1, open_low=True),
        "vllm_tensor_parallel_size": POSITIVE,
        "vllm_server_timeout": Limits(0, open_low=True),
        "lora_dropout": FRACTION,
        "lora_r": POSITIVE,
        "lora_alpha": POSITIVE,
        "per_device_train_batch_size": POSITIVE,
        "per_device_eval_batch_size": POSITIVE,
        "gradient_accumulation_steps": POSITIVE,
        "eval_accumulation_steps": POSITIVE,
        "logging_steps": Limits(0, open_low=True),
        "eval_steps": Limits(0, open_low=True),
        "save_steps": Limits(0, open_low=True),
        "save_total_limit": POSITIVE,
        "seed": Limits(0, 2**32 - 1),
        "data_seed": Limits(0, 2**32 - 1),
        "dataset_num_proc": POSITIVE,
        "dataloader_num_workers": Limits(0),
        "dataloader_prefetch_factor": POSITIVE,
        "torch_empty_cache_steps": POSITIVE,
        "ddp_timeout": POSITIVE,
    }
)

# Keys that may differ between two runs of the same recipe: where it writes, how it reports, how the
# machine does the same arithmetic. Everything else counts as science and enters the fingerprint.
NOT_SCIENCE = frozenset(
    """
    output_dir run_name project report_to trackio_space_id trackio_bucket_id trackio_static_space_id
    logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter
    include_num_input_tokens_seen log_level log_level_replica disable_tqdm debug skip_memory_metrics
    eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start
    eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics
    batch_eval_metrics eval_packing bf16_full_eval fp16_full_eval dataset_test_split
    save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint save_only_model
    push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    resume_from_checkpoint restore_callback_states_from_checkpoint ignore_data_skip
    per_device_train_batch_size gradient_accumulation_steps gradient_checkpointing
    gradient_checkpointing_kwargs activation_offloading torch_empty_cache_steps auto_find_batch_size
    dataset_num_proc dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
    use_cpu local_rank do_train do_eval do_predict use_cache
    precompute_ref_log_probs precompute_ref_batch_size
    num_generations_eval log_completions log_multimodal num_completions_to_print log_unique_prompts
    log_completions_hub_repo ds3_gather_for_generation
    vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port
    vllm_gpu_memory_utilization vllm_enable_sleep_mode vllm_tensor_parallel_size
    """.split()
)


@cache
def keys_for(stage: str) -> Mapping[str, Key]:
    """All keys of a stage by name, ours first, then TRL's in the order of its dataclasses.

    Raises:
        KeyError: for a stage that has no recorded surface.
    """
    recorded = json.loads(SURFACE.read_text(encoding="utf-8"))["stages"][stage]
    groups = list(dict.fromkeys(key.group for key in OUR_KEYS[stage]))
    ours = {key.name: key for key in sorted(OUR_KEYS[stage], key=lambda key: groups.index(key.group))}
    # pad_token is a key of both: TRL's is deprecated and only names a token that must exist already.
    trl = {name: _trl_key(stage, name, entry) for name, entry in recorded.items() if name not in ours}
    return MappingProxyType({**ours, **trl})


def _trl_key(stage: str, name: str, entry: Mapping[str, Any]) -> Key:
    refused: RefusedKey | None = REFUSED.get(name)
    ours: SetByUs | None = set_by_us(stage).get(name)
    use: Use = "refused" if refused else "ours_sets" if ours else "passed"
    why = refused or ours
    return Key(
        name=name,
        kinds=tuple(entry["kinds"]),
        choices=tuple(entry["choices"]),
        default=ours.value if ours else _as_read(entry),
        help=entry["help"],
        group=entry["origin"],
        source=entry["origin"],
        limits=RANGES.get(name),
        use=use,
        reason=why.reason if why else "",
        mend=why.mend if why else "",
        fixed_values=ours.accepted if ours else (),
        changes_weights=use == "passed" and name not in NOT_SCIENCE,
    )


def _as_read(entry: Mapping[str, Any]) -> Any:
    """The default as a recipe's value would be read: TRL writes 0 for fields that are floats."""
    value = entry["default"]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and "float" in entry["kinds"] and "int" not in entry["kinds"] else value
