"""A recipe that has been read: every key with its value, and where each value came from."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu_recipes.config.batch import BatchPlan
from tulu_recipes.config.keys import OURS, Key
from tulu_recipes.config.schema import NOT_SCIENCE, keys_for
from tulu_recipes.config.surroundings import recipe_that_writes
from tulu_recipes.config.values import show

COMMAND_LINE = "command line"

# The machine's part of the batch; global_batch_size is the recipe's.
_MACHINE_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")

# Evaluation changes the weights only when it picks the checkpoint or steers the learning rate.
_SCHEDULERS_ON_METRIC = ("reduce_lr_on_plateau", "greedy")
_EVALUATION = (
    "eval_strategy",
    "eval_steps",
    "eval_dataset_name",
    "dataset_test_split",
    "save_strategy",
    "save_steps",
)


class UnresolvedKey(KeyError):
    """A key whose value is itself a problem was asked for: what depends on it cannot be judged yet."""


@dataclass(frozen=True)
class Recipe:
    """
    stage: sft | reward | dpo | rlvr.   path, text: the file as given.
    values: every key of the stage's schema; defaults and derived values filled in.
    given: key -> "recipes/x.yaml line 12" or "command line", for keys that somebody wrote.
    overrides: key -> value, of those from the command line.
    derived: key -> value that was worked out here (output_dir, the batch); part of `values` too.
    batch: how the global batch is divided; None only while problems are being collected.
    broken: keys whose values were refused; empty in every recipe that load_recipe returns.
    """

    stage: str
    path: str
    text: str
    values: Mapping[str, Any]
    given: Mapping[str, str]
    overrides: Mapping[str, Any]
    derived: Mapping[str, Any]
    batch: BatchPlan | None = None
    broken: frozenset[str] = field(default_factory=frozenset)

    def __getitem__(self, key: str) -> Any:
        if key in self.broken:
            raise UnresolvedKey(key)
        return self.values[key]

    def where(self, key: str) -> str:
        """Where the key's value was written, for messages; the file alone when it is a default."""
        return self.given.get(key, self.path)

    def trl_values(self, origin: str | tuple[str, ...]) -> dict[str, Any]:
        """Arguments for the TRL dataclasses named: keys that were given, derived or are set by the stage.

        `origin` is one or more of SFTConfig, TrainingArguments, ModelConfig, ScriptArguments. Everything
        else keeps TRL's default. A ours_sets key without a value (None) is left to TRL too.
        """
        origins = (origin,) if isinstance(origin, str) else origin
        return {
            key.name: self.values[key.name]
            for key in keys_for(self.stage).values()
            if key.source in origins and self._is_passed(key)
        }

    def _is_passed(self, key: Key) -> bool:
        if key.use == "ours_sets":
            return self.values[key.name] is not None
        return key.name in self.given or key.name in self.derived

    def science(self) -> dict[str, Any]:
        """Every value that can change the trained weights, by key; two runs with equal ones train alike."""
        keys = keys_for(self.stage)
        science = {name: self.values[name] for name in keys if keys[name].changes_weights}
        if self.values["load_best_model_at_end"] or self.values["lr_scheduler_type"] in _SCHEDULERS_ON_METRIC:
            science |= {name: self.values[name] for name in _EVALUATION}
        if self.values.get("loss_reduction") == "microbatch_mean" or self._per_microbatch():
            science |= {name: self.values[name] for name in _MACHINE_BATCH}
        return science

    def _per_microbatch(self) -> bool:
        """Whether the loss itself depends on how the batch is divided."""
        if self.stage == "rlvr" and (self["loss_type"] == "bnpo" or self["whiten_advantages"] == "per_rank"):
            return True
        return bool({"aot", "aot_unpaired"} & set(self.loss_types()))

    def untrained(self, key: str = "model_name_or_path") -> Path | None:
        """The recipe beside this one that trains the model of `key`, as long as it has not; else None."""
        name = self[key]
        built = key == "model_name_or_path" and self["model_builder"]
        return recipe_that_writes(name, self.path) if name and not built else None

    def is_simpo(self) -> bool:
        """Whether the loss is that of TRL's CPOTrainer, which has no reference model."""
        return self.loss_types() == ["simpo"]

    def loss_types(self) -> list[str]:
        """`loss_type` as the list it may be."""
        value = self.values.get("loss_type") or []
        return [value] if isinstance(value, str) else list(value)

    def fingerprint(self) -> str:
        """sha256 over the stage and `science`.

        Equal for the same recipe under another name, output folder, tracker or division of the batch;
        different as soon as anything in schema.NOT_SCIENCE's complement differs.
        """
        text = json.dumps({"stage": self.stage, "values": self.science()}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved recipe: loads again, on the same number of processes, to the same values.

        Holds our keys, everything given or derived, and every key that can change the weights. The comment
        says where each value came from.
        """
        lines = [f"# {self.stage} recipe, resolved from {self.path}", f"# fingerprint {self.fingerprint()}"]
        group = ""
        for key in keys_for(self.stage).values():
            line = self._resolved_line(key)
            if line is None:
                continue
            if key.group != group:
                group = key.group
                lines += ["", f"# {group}"]
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _resolved_line(self, key: Key) -> str | None:
        name, value = key.name, self.values[key.name]
        if key.use == "refused":
            return None
        if key.use == "ours_sets":
            return f"{name}: {show(value)}  # set by the stage" if value in key.fixed_values else None
        if name in _MACHINE_BATCH and name in self.derived and "global_batch_size" in self.given:
            processes = self.batch.num_processes if self.batch else 1
            return f"# {name}: {show(value)}  for {processes} processes; solved from global_batch_size"
        if name in self.given:
            note = "overridden on the command line" if name in self.overrides else f"given, {self.given[name]}"
        elif name in self.derived:
            note = "derived"
        elif key.source == OURS or name not in NOT_SCIENCE:
            note = "default"
        else:
            return None
        return f"{name}: {show(value)}  # {note}"

    def command(self) -> str:
        """The command that runs this recipe again on one process, overrides included."""
        overrides = [f"--{key} {shlex.quote(show(value))}" for key, value in self.overrides.items()]
        return " ".join([f"python -m tulu_recipes.{self.stage} {shlex.quote(self.path)}", *overrides])
