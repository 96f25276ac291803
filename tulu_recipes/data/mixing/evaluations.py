"""The evaluations that a mix is held against: their index for the workers, and the lock's entry."""

from typing import Any

from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.mixing.mix_file import Mix


def index_evaluations(mix: Mix, locked: dict[str, Any] | None) -> tuple[EvalIndex | None, dict[str, Any] | None]:
    if mix.decontaminate is None:
        return None, None
    raise NotImplementedError
