"""TRL's trainers with the smallest change that yields the recipe's maths: drop-in subclasses, usable without a YAML.

Imported lazily, because TRL takes seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tulu_recipes.trainers.dpo import DPOConfig, DPOTrainer
    from tulu_recipes.trainers.grpo import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
    from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer
    from tulu_recipes.trainers.reward import RewardConfig, RewardTrainer
    from tulu_recipes.trainers.sft import SFTConfig, SFTTrainer

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "PPOConfig",
    "PPOTrainer",
    "RLOOConfig",
    "RLOOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
]
_ELSEWHERE = {"rloo": "grpo"}  # all others are in the module of their name


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = name.removesuffix("Config").removesuffix("Trainer").lower()
        return getattr(import_module(f"tulu_recipes.trainers.{_ELSEWHERE.get(module, module)}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
