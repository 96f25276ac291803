"""Reference log-probs on disk: computed once, in parts, and refused for anything they were not computed for.

A folder holds `reference.json`, which says what the numbers belong to, and one safetensors file for each part of the
rows. A part is written whole or not at all, so a run that was killed goes on with the first that is missing.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tulu_recipes.errors import Problem
from tulu_recipes.run import atomic_file

PART_ROWS = 4096
MARK = "reference.json"
LogProbs = dict[str, torch.Tensor]  # chosen, rejected: (rows,) float32, summed over the compared tokens

# What to say of a key of the identity that differs
_NAMES = {
    "rows": "the rows or their tokens",
    "chat_template": "the chat template",
    "weights": "the model's weights or revision",
    "dtype": "the dtype",
    "autocast": "mixed precision",
}


class RefCache:
    """One folder of reference log-probs for one set of rows.

    Args:
        identity: everything the numbers depend on, JSON; another one in the folder is refused.
        num_rows: rows of the set.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], num_rows: int) -> None:
        self.folder, self.identity, self.num_rows = folder, dict(identity), num_rows

    def problem(self, *, whole: bool = True) -> Problem | None:
        """Why this folder must not be used; None when it is empty or of the same reference.

        Args:
            whole: the identity says everything; otherwise what it says is compared.
        """
        mark = self.folder / MARK
        if not mark.is_file():
            if not any(self.folder.glob("rows-*.safetensors")):
                return None
            return self._other(f"{MARK} is missing, which says what the log-probs in this folder belong to.")
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))
            compared = self.identity.keys() | (found if whole else {})
            keys = sorted(key for key in compared if self.identity.get(key) != found.get(key))
        except (ValueError, AttributeError, TypeError):
            return self._other(f"{MARK} is damaged, which says what the log-probs in this folder belong to.")
        if not keys:
            return None
        changed = ", ".join(_NAMES.get(key, f"{key} ({found.get(key)} → {self.identity.get(key)})") for key in keys)
        return self._other(f"The reference log-probs in this folder were computed for something else: {changed}.")

    def _other(self, what: str) -> Problem:
        mend = "name another ref_log_probs_cache, or remove this folder to compute them anew."
        return Problem("ref-cache-other", str(self.folder), what, mend)

    def parts(self) -> list[range]:
        return [range(start, min(start + PART_ROWS, self.num_rows)) for start in range(0, self.num_rows, PART_ROWS)]

    def read(self, part: range) -> LogProbs | None:
        """A part's numbers; None when it is missing or not whole."""
        path = self._path(part)
        if not path.is_file():
            return None
        try:
            found: LogProbs = load_file(path)
            with safe_open(path, "pt") as file:
                digest = (file.metadata() or {}).get("sha256")
        except SafetensorError:  # cut short or overwritten: computed again
            return None
        whole = set(found) == {"chosen", "rejected"} and all(len(values) == len(part) for values in found.values())
        return found if whole and digest == _digest(found) else None

    def read_all(self) -> LogProbs:
        """Every part, in the order of the rows; raises OSError when one has gone since."""
        found = [load_file(self._path(part)) for part in self.parts()]
        return {side: torch.cat([values[side] for values in found]) for side in ("chosen", "rejected")}

    def is_damaged(self, part: range) -> bool:
        return self._path(part).is_file() and self.read(part) is None

    def write(self, part: range, values: LogProbs) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / MARK).is_file():
            with atomic_file(self.folder / MARK, shared=True) as neighbour:
                neighbour.write_text(json.dumps(self.identity, indent=2) + "\n")
        with atomic_file(self._path(part), shared=True) as neighbour:
            save_file(values, neighbour, {"sha256": _digest(values)})

    def _path(self, part: range) -> Path:
        return self.folder / f"rows-{part.start:08d}-{part.stop:08d}.safetensors"


def _digest(values: LogProbs) -> str:
    return hashlib.sha256(values["chosen"].numpy().tobytes() + values["rejected"].numpy().tobytes()).hexdigest()


def digest_rows(dataset: Dataset, columns: tuple[str, ...]) -> str:
    """A hash of list columns, value by value and in order; equal for equal rows, however they are stored."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=10_000):
        for name in columns:
            column = batch[name].combine_chunks()
            digest.update(np.asarray(column.value_lengths(), dtype=np.int64).tobytes())
            digest.update(np.asarray(column.flatten(), dtype=np.int32).tobytes())
    return digest.hexdigest()
