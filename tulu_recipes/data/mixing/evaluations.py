"""The evaluations that a mix is held against: their index for the workers, and the lock's entry on them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tulu_recipes.data.contamination.evals_file import EvalsFile, describe, load_evals
from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.contamination.items import load_items
from tulu_recipes.data.mixing.mix_file import Mix


def index_evaluations(mix: Mix, locked: Mapping[str, Any] | None) -> tuple[EvalIndex | None, dict[str, Any] | None]:
    """The index of a mix's evaluation list and what the lock holds of it; Nones when the mix does not decontaminate.

    Args:
        locked: a lock's entry, whose commits are taken in place of the list's revisions.
    Raises:
        DataError: the list is faulty, or evaluations cannot be read.
    """
    if mix.decontaminate is None:
        return None, None
    evals = load_evals(mix.decontaminate["against"])
    loaded = load_items(_pinned(evals, locked) if locked else evals)
    index = EvalIndex.build(loaded.items, n=evals.ngram_size, match_threshold=evals.match_threshold)
    described = describe(evals, loaded.revisions, index.compared)
    for entry, evaluation in zip(described, loaded.items, strict=True):
        entry["items_sha256"] = hashlib.sha256(json.dumps(list(evaluation.items)).encode()).hexdigest()
    return index, {"evals_sha256": evals.sha256, "evaluations": described}


def _pinned(evals: EvalsFile, locked: Mapping[str, Any]) -> EvalsFile:
    commits = {entry["name"]: entry.get("revision") for entry in locked["evaluations"]}
    pinned = (
        replace(evaluation, revision=commits.get(evaluation.name) or evaluation.revision)
        for evaluation in evals.evaluations
    )
    return replace(evals, evaluations=tuple(pinned))
