"""TRL's trainers with the smallest change that yields the recipe's maths: drop-in subclasses, usable without a YAML.

Imported lazily, because TRL takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tulu_recipes.trainers.dpo import DPOConfig, DPOTrainer
    from tulu_recipes.trainers.reward import RewardConfig, RewardTrainer
    from tulu_recipes.trainers.sft import SFTConfig, SFTTrainer

__all__ = ["DPOConfig", "DPOTrainer", "RewardConfig", "RewardTrainer", "SFTConfig", "SFTTrainer"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = name.removesuffix("Config").removesuffix("Trainer").lower()
        return getattr(import_module(f"tulu_recipes.trainers.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
