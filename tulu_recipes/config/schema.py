"""Every key a recipe may hold, per stage: ours, then TRL's as recorded in trl_surface.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tulu_recipes.config.trl_keys import REFUSED, SET_BY_US, RefusedKey, SetByUs

SURFACE = Path(__file__).with_name("trl_surface.json")

OURS = "tulu_recipes"
Use = Literal["passed", "ours_sets", "refused"]


@dataclass(frozen=True)
class Limits:
    """A number's allowed range; `open_low` excludes the lower end itself."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False

    def holds(self, value: float) -> bool:
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        low = "" if self.low is None else f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        high = "" if self.high is None else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part)


@dataclass(frozen=True)
class Key:
    """One recipe key.

    kinds: what a value may be, of "null" "bool" "int" "float" "str" "list" "dict".
    choices: allowed words; empty when any text will do.
    group: heading in --help; for TRL's keys the dataclass they belong to.
    source: "tulu_recipes" or the TRL dataclass.
    use: passed through to TRL | ours_sets (the stage gives it its value) | refused.
    reason: for ours_sets and refused keys, why, and what to write instead.
    changes_weights: whether another value can give other trained weights.
    """

    name: str
    kinds: tuple[str, ...]
    choices: tuple[str, ...]
    default: Any
    help: str
    group: str
    source: str
    limits: Limits | None = None
    use: Use = "passed"
    reason: str = ""
    mend: str = ""
    fixed_values: tuple[Any, ...] = ()
    changes_weights: bool = True


def _ours(
    name: str,
    kinds: str,
    default: Any,
    help: str,  # noqa: A002  # the dataclass field it fills
    group: str,
    *,
    choices: tuple[str, ...] = (),
    limits: Limits | None = None,
    changes_weights: bool = True,
) -> Key:
    return Key(
        name, tuple(kinds.split()), choices, default, help, group, OURS, limits, changes_weights=changes_weights
    )


FRACTION = Limits(0, 1)
POSITIVE = Limits(1)

LOSS_REDUCTIONS = ("sum", "token_mean", "sequence_mean", "microbatch_mean")

_SFT_KEYS = (
    _ours(
        "chat_template",
        "null str",
        None,
        "How turns become text: tulu, a .jinja file, or a folder or Hub id of a tokenizer; null: the model's own.",
        "model",
    ),
    _ours(
        "pad_token",
        "null str",
        None,
        "Padding token, added to the vocabulary where absent; never the EOS token.",
        "model",
    ),
    _ours(
        "model_builder",
        "null str",
        None,
        "module:function that builds the folder model_name_or_path when it does not exist.",
        "model",
    ),
    _ours("dataset_mix", "null str", None, "Path of a mix YAML; instead of dataset_name.", "data"),
    _ours("dataset_revision", "null str", None, "Branch, tag or commit of dataset_name on the Hub.", "data"),
    _ours(
        "eval_dataset_name",
        "null str",
        None,
        "Hub id or local path of evaluation rows; null: dataset_test_split of dataset_name.",
        "data",
        changes_weights=False,
    ),
    _ours(
        "over_length",
        "str",
        "truncate",
        "What happens to rows longer than max_length.",
        "data",
        choices=("truncate", "drop", "stop"),
    ),
    _ours(
        "global_batch_size",
        "null int",
        None,
        "Sequences per optimizer step; per-device size and accumulation are solved from the processes.",
        "batch and loss",
        limits=POSITIVE,
    ),
    _ours(
        "loss_reduction",
        "str",
        "token_mean",
        "How token losses become one number.",
        "batch and loss",
        choices=LOSS_REDUCTIONS,
    ),
    _ours(
        "allow",
        "list",
        [],
        "Slugs of problems to go on in spite of, e.g. [bf16-weights].",
        "consent and limits",
        changes_weights=False,
    ),
    _ours(
        "max_cut_answer_fraction",
        "float",
        0.05,
        "Stop when more of the rows lose a part of an answer to max_length.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    _ours(
        "max_unsupervised_fraction",
        "float",
        0.01,
        "Stop when more of the rows have no supervised token.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    _ours(
        "max_broken_fraction",
        "float",
        0.001,
        "Stop when more of the rows cannot be read as a conversation.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    _ours(
        "max_duplicate_fraction",
        "float",
        1.0,
        "Stop when more of the rows are exact copies of another.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
    _ours(
        "sample_rows",
        "int",
        0,
        "Evaluation rows answered before and after training, for the report.",
        "samples",
        limits=Limits(0),
        changes_weights=False,
    ),
    _ours(
        "sample_max_new_tokens",
        "int",
        64,
        "Longest sampled answer, in tokens.",
        "samples",
        limits=POSITIVE,
        changes_weights=False,
    ),
)

OUR_KEYS: Mapping[str, tuple[Key, ...]] = MappingProxyType({"sft": _SFT_KEYS})

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
    """.split()
)


@cache
def keys_for(stage: str) -> Mapping[str, Key]:
    """All keys of a stage by name, ours first, then TRL's in the order of its dataclasses.

    Raises:
        KeyError: for a stage that has no recorded surface.
    """
    recorded = json.loads(SURFACE.read_text(encoding="utf-8"))["stages"][stage]
    ours = {key.name: key for key in OUR_KEYS[stage]}
    # pad_token is a key of both: TRL's is deprecated and only names a token that must exist already.
    trl = {name: _trl_key(name, entry) for name, entry in recorded.items() if name not in ours}
    return MappingProxyType({**ours, **trl})


def _trl_key(name: str, entry: Mapping[str, Any]) -> Key:
    refused: RefusedKey | None = REFUSED.get(name)
    ours: SetByUs | None = SET_BY_US.get(name)
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
