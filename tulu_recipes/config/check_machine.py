"""Checks of the machine: packages, network switches, and room for the checkpoints."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.surroundings import Surroundings, is_local, local_path
from tulu_recipes.config.values import nearest
from tulu_recipes.errors import Problem

# transformers' trackers and the package that each needs
REPORTERS = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def check_reporters(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    asked = recipe["report_to"] or []
    for name in [asked] if isinstance(asked, str) else asked:
        if name in ("none", "all"):
            continue
        if name not in REPORTERS:
            near = nearest(name, list(REPORTERS))
            mend = f"write  report_to: {near}" if near else f"write one of {', '.join(REPORTERS)}, none."
            yield Problem(
                "unknown-choice", recipe.where("report_to"), f"report_to names {name}, no known tracker.", mend
            )
        elif not surroundings.has_module(REPORTERS[name]):
            yield _library_missing(recipe, "report_to", name, REPORTERS[name])


def check_libraries(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    needs = {
        "use_peft": (recipe["use_peft"], "peft"),
        "load_in_4bit": (recipe["load_in_4bit"], "bitsandbytes"),
        "load_in_8bit": (recipe["load_in_8bit"], "bitsandbytes"),
        "use_vllm": (recipe.values.get("use_vllm"), "vllm"),
        "use_liger_kernel": (recipe["use_liger_kernel"], "liger_kernel"),
        "attn_implementation": (recipe["attn_implementation"] == "flash_attention_2", "flash_attn"),
        "optim": _optimizer_package(recipe["optim"]),
    }
    for key, (asked, module) in needs.items():
        if asked and not surroundings.has_module(module):
            yield _library_missing(recipe, key, str(recipe[key]).lower(), module)


# Packages of optimizers that torch does not bring, by the beginning of their names; the first match counts.
_OPTIMIZER_PACKAGES = (
    ("adamw_torch_4bit", "torchao"),
    ("adamw_torch_8bit", "torchao"),
    ("galore", "galore_torch"),
    ("apollo", "apollo_torch"),
    ("lomo", "lomo_optim"),
    ("adalomo", "lomo_optim"),
    ("grokadamw", "grokadamw"),
    ("schedule_free", "schedulefree"),
    ("stable_adamw", "optimi"),
    ("paged_", "bitsandbytes"),
    ("adamw_bnb", "bitsandbytes"),
    ("adamw_8bit", "bitsandbytes"),
    ("ademamix", "bitsandbytes"),
    ("lion", "bitsandbytes"),
    ("rmsprop_bnb", "bitsandbytes"),
)


def _optimizer_package(optimizer: str) -> tuple[bool, str]:
    package = next((package for prefix, package in _OPTIMIZER_PACKAGES if optimizer.startswith(prefix)), "")
    return bool(package), package


def _library_missing(recipe: Recipe, key: str, value: str, module: str) -> Problem:
    package = {"flash_attn": "flash-attn --no-build-isolation", "liger_kernel": "liger-kernel"}.get(module, module)
    return Problem(
        "library-missing",
        recipe.where(key),
        f"{key}: {value} needs the package {module}, which is not installed.",
        f"pip install {package}, or remove {key}.",
    )


def check_hub_offline(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if recipe["push_to_hub"] and surroundings.switched_on("HF_HUB_OFFLINE"):
        yield Problem(
            "hub-offline",
            recipe.where("push_to_hub"),
            "push_to_hub: true while HF_HUB_OFFLINE is set: the push at the end would fail.",
            "unset HF_HUB_OFFLINE, or remove push_to_hub.",
        )


def count_parameters(folder: Path) -> int:
    """Parameters of a local model, read from the headers of its safetensors files; 0 when there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            prefix = stream.read(8)
            size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            # the format caps the header at 100 MB; a larger figure is a broken or other file
            if not 0 < size <= 100_000_000:
                continue
            try:
                header = json.loads(stream.read(size))
            except ValueError:
                continue
        for name, tensor in header.items():
            if name != "__metadata__":
                total += _product(tensor["shape"])
    return total


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def optimizer_bytes_per_parameter(optimizer: str) -> int:
    """Bytes of saved optimizer state per parameter: two fp32 moments for AdamW, two 8-bit ones where named."""
    if optimizer in ("sgd", "lomo", "adalomo", "adafactor"):
        return 0
    moments = 1 if "lion" in optimizer or "adagrad" in optimizer or "rmsprop" in optimizer else 2
    return moments * (1 if "8bit" in optimizer else 4)


@dataclass(frozen=True)
class Written:
    """Bytes that a run writes: `copies` checkpoints of weights and optimizer state, and the final weights."""

    copies: int
    weights: int
    state: int

    @property
    def total(self) -> int:
        return self.copies * (self.weights + self.state) + self.weights

    def describe(self) -> str:
        weights = _size(self.weights)
        return (
            f"{_size(self.total)}: {self.copies} checkpoints of {weights} weights and {_size(self.state)} optimizer "
            f"state, and {weights} final weights"
        )


def written_bytes(recipe: Recipe, parameters: int) -> Written:
    """What a run of so many saved and trained parameters writes: (weights + state) × (save_total_limit + 1), weights.

    One more than the limit: a checkpoint is written before the oldest is removed. Without a limit the
    number is not known here (it depends on the steps), and two are counted.
    """
    state = 0 if recipe["save_only_model"] else parameters * optimizer_bytes_per_parameter(recipe["optim"])
    limit = recipe["save_total_limit"]
    copies = 0 if recipe["save_strategy"] == "no" else 2 if limit is None else limit + 1
    return Written(copies, parameters * _BYTES.get(recipe["dtype"], 4), state)


def check_disk(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Room for what `written_bytes` counts."""
    name = recipe["model_name_or_path"]
    if not name or not is_local(name) or recipe["use_peft"]:
        return
    parameters = count_parameters(local_path(name))
    if recipe.values.get("algorithm") == "ppo":  # checkpoints hold the value model too
        parameters += count_parameters(local_path(recipe["value_model_name_or_path"] or name))
    written = written_bytes(recipe, parameters)
    free = surroundings.free_bytes(recipe["output_dir"])
    if parameters and written.total > free:
        yield Problem(
            "no-disk",
            recipe.where("output_dir"),
            f"{recipe['output_dir']} has {_size(free)} free; the run writes {written.describe()}.",
            "write  output_dir: on a larger disk,  save_total_limit: 1,  or  save_only_model: true  (then no resume).",
        )


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


CHECKS = (check_reporters, check_libraries, check_hub_offline, check_disk)
