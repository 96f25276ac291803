"""TRL's trainers with the smallest change that yields the recipe's maths: drop-in subclasses, usable without a YAML.

Imported lazily, because TRL takes seconds to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tulu_recipes.trainers.sft import SFTConfig, SFTTrainer

__all__ = ["SFTConfig", "SFTTrainer"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from tulu_recipes.trainers import sft

        return getattr(sft, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
