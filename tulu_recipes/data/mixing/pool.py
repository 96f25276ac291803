"""Every converted row of a mix as arrays of what selection looks at, and the books of each step."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.mixing.convert import labels_of
from tulu_recipes.data.mixing.job import Job
from tulu_recipes.run import read_json

Numbers = npt.NDArray[Any]


@dataclass
class Pool:
    """Every converted row of the mix; arrays of N, in the order of parts.

    alive: not yet dropped by a step. steps: per source, as the lock holds them.
    """

    columns: dict[str, Numbers]
    duplicates: list[dict[str, Numbers]]  # per source, by step
    labels: list[str]
    alive: npt.NDArray[np.bool_]
    steps: list[list[dict[str, Any]]]

    def __getitem__(self, name: str) -> Numbers:
        return self.columns[name]

    def rows_of(self, source: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self["source"] == source)

    def drop(self, step: str, gone: npt.NDArray[np.bool_], sources: list[int], reason: str) -> None:
        """Take rows out and note it for each of `sources`."""
        for source in sources:
            rows = self.rows_of(source)
            before, leaving = int(self.alive[rows].sum()), int((self.alive[rows] & gone[rows]).sum())
            reasons = {reason: leaving} if leaving else {}
            self.steps[source].append(
                {"step": step, "rows_in": before, "rows_out": before - leaving, "reasons": reasons}
            )
        self.alive &= ~gone


def load_pool(folder: Path, job: Job) -> Pool:
    columns: dict[str, list[Numbers]] = {}
    duplicates: list[dict[str, list[Numbers]]] = [{} for _ in job.sources]
    steps: list[list[dict[str, Any]]] = [[] for _ in job.sources]
    labels: dict[str, int] = {}
    for number, part in enumerate(job.parts):
        counts = read_json(folder / "parts" / part.name / "counts.json")
        steps[part.source] = _add_steps(steps[part.source], counts["steps"])
        ids = np.array([labels.setdefault(label, len(labels)) for label in labels_of(counts)], dtype=np.int64)
        with np.load(folder / "parts" / part.name / "keys.npz") as keys:
            size = len(keys["order"])
            own = {"part": np.full(size, number), "row": np.arange(size), "source": np.full(size, part.source)}
            own |= {name: keys[name] for name in keys.files if not name.startswith(("duplicates:", "label"))}
            own["label"] = ids[keys["label"]] if size else np.zeros(0, dtype=np.int64)
            for name in (name for name in keys.files if name.startswith("duplicates:")):
                duplicates[part.source].setdefault(name.removeprefix("duplicates:"), []).append(keys[name])
        for name, values in own.items():
            columns.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    names = sorted(labels)  # and not in the order met, which depends on where rows stand in files
    joined["label"] = np.array([names.index(label) for label in labels], dtype=np.int64)[joined["label"]]
    joined_duplicates = [{name: np.concatenate(values) for name, values in own.items()} for own in duplicates]
    return Pool(joined, joined_duplicates, names, np.ones(len(joined["order"]), dtype=np.bool_), steps)


def _add_steps(total: list[dict[str, Any]], part: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts of parts added up, step by step."""
    if not total:
        return [dict(step) for step in part]
    return [
        {
            "step": a["step"],
            "rows_in": a["rows_in"] + b["rows_in"],
            "rows_out": a["rows_out"] + b["rows_out"],
            "reasons": dict(sorted((Counter(a["reasons"]) + Counter(b["reasons"])).items())),
        }
        for a, b in zip(total, part, strict=True)
    ]
