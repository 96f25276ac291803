"""The part of TRL and transformers that recipes rest on, recorded as data.

`tulu_recipes/config/` may not import trl (a broken recipe is answered at once), so it reads this record
instead. A contract test compares the record with the installed packages: an upstream change of a key, a
default or a method that we override is a red test, not a silent change of results.

    python -m tulu_recipes.trainers.surface            print what differs from the record
    python -m tulu_recipes.trainers.surface --write    record it
"""

import dataclasses
import difflib
import enum
import importlib
import inspect
import json
import re
import sys
import types
import typing
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "config" / "trl_surface.json"

# Per stage, the dataclasses whose fields are recipe keys. The first is the trainer's own configuration;
# what it inherits from transformers is recorded under TrainingArguments.
STAGES: dict[str, tuple[str, ...]] = {
    "sft": ("trl:SFTConfig", "trl:ModelConfig", "trl:ScriptArguments"),
    "reward": ("trl:RewardConfig", "trl:ModelConfig", "trl:ScriptArguments"),
    "dpo": ("trl:DPOConfig", "trl:ModelConfig", "trl:ScriptArguments"),
    "rlvr": ("trl:GRPOConfig", "trl:ModelConfig", "trl:ScriptArguments"),
}

# What our trainers override or call. A changed signature means: read the new body before believing the override.
METHODS: tuple[str, ...] = (
    "trl.trainer.sft_trainer:SFTTrainer.compute_loss",
    "trl.trainer.sft_trainer:SFTTrainer.log",
    "trl.trainer.sft_trainer:SFTTrainer._save_checkpoint",
    "trl.trainer.sft_trainer:SFTTrainer.prediction_step",
    "trl.trainer.sft_trainer:SFTTrainer.training_step",
    "trl.trainer.dpo_trainer:DPOTrainer._compute_loss",
    "trl.trainer.dpo_trainer:DPOTrainer._prepare_dataset",
    "trl.trainer.dpo_trainer:DPOTrainer._precompute_ref_logps",
    "trl.trainer.dpo_trainer:DPOTrainer._set_signature_columns_if_needed",
    "trl.trainer.dpo_trainer:DPOTrainer.compute_loss",
    "trl.trainer.dpo_trainer:DPOTrainer.compute_ref_log_probs",
    "trl.trainer.reward_trainer:RewardTrainer._prepare_dataset",
    "trl.trainer.reward_trainer:RewardTrainer.compute_loss",
    "trl.experimental.cpo.cpo_trainer:CPOTrainer.cpo_loss",
    "trl.experimental.cpo.cpo_trainer:CPOTrainer.get_batch_loss_metrics",
    "trl.experimental.cpo.cpo_trainer:CPOTrainer.tokenize_row",
    "trl.trainer.grpo_trainer:GRPOTrainer._get_train_sampler",
    "trl.trainer.grpo_trainer:GRPOTrainer._prepare_inputs",
    "trl.trainer.grpo_trainer:GRPOTrainer._calculate_rewards",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_and_score_completions",
    "trl.trainer.grpo_trainer:GRPOTrainer._compute_loss",
    "trl.trainer.grpo_trainer:GRPOTrainer._get_per_token_logps_and_entropies",
    "trl.trainer.grpo_trainer:GRPOTrainer.training_step",
    "trl.trainer.grpo_trainer:GRPOTrainer._save_checkpoint",
    "trl.trainer.grpo_trainer:GRPOTrainer.log",
    "trl.trainer.rloo_trainer:RLOOTrainer._get_train_sampler",
    "trl.trainer.rloo_trainer:RLOOTrainer._prepare_inputs",
    "trl.trainer.rloo_trainer:RLOOTrainer._calculate_rewards",
    "trl.trainer.rloo_trainer:RLOOTrainer._generate_and_score_completions",
    "trl.trainer.rloo_trainer:RLOOTrainer._compute_loss",
    "trl.trainer.rloo_trainer:RLOOTrainer._get_per_token_logps_and_entropies",
    "trl.trainer.rloo_trainer:RLOOTrainer.training_step",
    "trl.trainer.rloo_trainer:RLOOTrainer._save_checkpoint",
    "trl.trainer.rloo_trainer:RLOOTrainer.log",
    "trl.trainer.grpo_trainer:GRPOTrainer._generate_single_turn",
    "trl.trainer.grpo_trainer:GRPOTrainer._tokenize_prompts",
    "trl.trainer.rloo_trainer:RLOOTrainer._generate_single_turn",
    "trl.trainer.rloo_trainer:RLOOTrainer._tokenize_prompts",
    "transformers.trainer:Trainer.get_batch_samples",
    "transformers.trainer:Trainer._clip_grad_norm",
    "transformers.trainer:Trainer._prepare_for_training",
    "transformers.trainer:Trainer.evaluation_loop",
)

_KIND_OF_TYPE = {int: "int", float: "float", bool: "bool", str: "str", type(None): "null"}
_KIND_ORDER = ("null", "bool", "int", "float", "str", "list", "dict")


def record_surface() -> dict[str, Any]:
    """The installed surface: `versions`, `stages` (key by key) and `methods` (signatures), all JSON."""
    return {
        "versions": {name: version(name) for name in ("trl", "transformers")},
        "stages": {stage: _record_stage(sources) for stage, sources in STAGES.items()},
        "methods": {path: _signature(path) for path in METHODS},
    }


def load_record() -> dict[str, Any]:
    """The recorded surface, as config/ reads it."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def render(surface: dict[str, Any]) -> str:
    """The record's text: one line per key, so that a diff names the key."""
    stages = ",\n".join(
        f'  "{stage}": {{\n'
        + ",\n".join(f"   {json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in keys.items())
        + "\n  }"
        for stage, keys in surface["stages"].items()
    )
    methods = ",\n".join(f"  {json.dumps(path)}: {json.dumps(text)}" for path, text in surface["methods"].items())
    head = json.dumps(surface["versions"])
    return f'{{\n "versions": {head},\n "stages": {{\n{stages}\n }},\n "methods": {{\n{methods}\n }}\n}}\n'


def _record_stage(sources: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    keys: dict[str, dict[str, Any]] = {}
    for path in sources:
        config = _resolve(path)
        inherited = _inherited_fields(config)
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if not field.init:
                continue
            if field.name in keys:
                raise ValueError(f"{field.name} is a field of two dataclasses: its origin would be ambiguous.")
            origin = "TrainingArguments" if field.name in inherited else config.__name__
            keys[field.name] = _record_field(origin, field, hints[field.name])
    return keys


def _record_field(origin: str, field: "dataclasses.Field[Any]", annotation: Any) -> dict[str, Any]:
    kinds, choices = _kinds_and_choices(annotation)
    declared = field.metadata.get("choices")
    return {
        "origin": origin,
        "kinds": sorted(kinds, key=_KIND_ORDER.index),
        "choices": list(declared) if declared is not None else choices,
        "default": _default(field),
        "help": _first_sentence(field.metadata.get("help", "")),
    }


def _kinds_and_choices(annotation: Any) -> tuple[set[str], list[str]]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds: set[str] = set()
        choices: list[str] = []
        for part in typing.get_args(annotation):
            part_kinds, part_choices = _kinds_and_choices(part)
            kinds |= part_kinds
            choices += part_choices
        return kinds, choices
    if origin is typing.Literal:
        values = typing.get_args(annotation)
        return {_KIND_OF_TYPE[type(value)] for value in values}, [value for value in values if isinstance(value, str)]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"str"}, [str(member.value) for member in annotation]
    if origin in (list, tuple) or annotation in (list, tuple):
        return {"list"}, []
    if annotation in _KIND_OF_TYPE:
        return {_KIND_OF_TYPE[annotation]}, []
    # dict[...] and classes that a YAML could only give as a mapping (ParallelismConfig)
    return {"dict"}, []


def _inherited_fields(config: type) -> set[str]:
    from transformers import TrainingArguments

    if not issubclass(config, TrainingArguments):
        return set()
    return {field.name for field in dataclasses.fields(TrainingArguments)}


def _default(field: "dataclasses.Field[Any]") -> Any:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        raise ValueError(f"{field.name} has no default: recipes need a rule for required fields first.")
    return value.value if isinstance(value, enum.Enum) else value


def _first_sentence(text: str) -> str:
    words = " ".join(text.replace("%%", "%").split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`(])", words, maxsplit=1)[0]


def _resolve(path: str) -> Any:
    module, _, names = path.partition(":")
    value: Any = importlib.import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


def _signature(path: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", str(inspect.signature(_resolve(path))))


def main(argv: list[str]) -> int:
    recorded = RECORD.read_text(encoding="utf-8") if RECORD.exists() else ""
    installed = render(record_surface())
    diff = difflib.unified_diff(
        recorded.splitlines(), installed.splitlines(), "recorded", "installed", lineterm="", n=0
    )
    sys.stdout.write("\n".join([*diff, ""]) if diff else "The record equals the installed surface.\n")
    if "--write" in argv:
        RECORD.write_text(installed, encoding="utf-8")
        return 0
    return int(recorded != installed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
