"""The evaluations that a mix is held against: their index for the workers, the lock's entry, and what was found."""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tulu_recipes.data.contamination.evals_file import EvalsFile, describe, load_evals
from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.contamination.items import LoadedEvaluations, load_items
from tulu_recipes.data.contamination.report import pick_samples, settings_of, show_sample
from tulu_recipes.data.mixing.mix_file import Mix

EVALS = "evals.pickle"  # the list itself: a job elsewhere need not find its file


@dataclass(frozen=True)
class MixEvaluations:
    """An evaluation list with its items, before the build; `save` puts it where the passes look."""

    evals: EvalsFile
    loaded: LoadedEvaluations
    index: EvalIndex

    def entry(self) -> dict[str, Any]:
        """What the lock holds: the list by its meaning, each evaluation by its commit and its items' hash."""
        described = describe(self.evals, self.loaded.revisions, self.index.compared)
        for one, evaluation in zip(described, self.loaded.items, strict=True):
            one["items_sha256"] = hashlib.sha256(json.dumps(list(evaluation.items)).encode()).hexdigest()
        return {"evals_sha256": self.evals.sha256, "evaluations": described}

    def save(self, folder: Path) -> None:
        self.index.save(folder)
        items = [list(evaluation.items) for evaluation in self.loaded.items]
        (folder / EVALS).write_bytes(pickle.dumps(self.evals))
        (folder / "items.json").write_text(json.dumps(items), encoding="utf-8")
        settings = settings_of(self.evals, self.loaded, self.index.compared)
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


def load_evaluations(mix: Mix, locked: Mapping[str, Any] | None) -> MixEvaluations | None:
    """The evaluation list of a mix, its items downloaded; None when the mix does not decontaminate.

    Args:
        locked: a lock's entry, whose commits are taken in place of the list's revisions.
    Raises:
        DataError: the list is faulty, or evaluations cannot be read.
    """
    if mix.decontaminate is None:
        return None
    evals = load_evals(mix.decontaminate["against"])
    loaded = load_items(_pinned(evals, locked) if locked else evals)
    return MixEvaluations(evals, loaded, EvalIndex.build(loaded.items, evals.ngram_size, evals.match_threshold))


def _pinned(evals: EvalsFile, locked: Mapping[str, Any]) -> EvalsFile:
    commits = {entry["name"]: entry.get("revision") for entry in locked["evaluations"]}
    pinned = (
        replace(evaluation, revision=commits.get(evaluation.name) or evaluation.revision)
        for evaluation in evals.evaluations
    )
    return replace(evals, evaluations=tuple(pinned))


@dataclass(frozen=True)
class FoundInSource:
    """matches: of the rows that were compared. removed: positions in the source of the rows that went, sorted.

    turns_of: the user turns of a compared row, by its number in `matches`; position_of: its position in the source.
    """

    title: str
    rows: int
    dropped: bool
    removed: list[int]
    matches: pa.Table
    turns_of: Callable[[int], list[str]]
    position_of: Callable[[int], int]


def contamination_report(
    folder: Path, evals: EvalsFile, table: list[dict[str, Any]], found: Sequence[FoundInSource]
) -> dict[str, Any]:
    """contamination.json of a mix, in the form that `decontaminate` writes; rows are positions in their source."""
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    sources: dict[str, Any] = {}
    samples = []
    for source in found:
        counts = {"rows": source.rows, "dropped": source.dropped, "rows_removed": len(source.removed)}
        sources[source.title] = counts | ({} if source.dropped else {"removed_rows": source.removed})
        for number, evaluation in enumerate(evals.evaluations):
            for sample in pick_samples(source.matches, number):
                about = {"source": source.title, "evaluation": evaluation.name} | sample
                about["row"] = source.position_of(sample["row"])
                texts = items[number][sample["item"]], source.turns_of(sample["row"])
                samples.append(show_sample(about, *texts, n=evals.ngram_size, tokenization=evaluation.tokenization))
    return {
        "command": "tulu_recipes.mix",
        "settings": json.loads((folder / "settings.json").read_text(encoding="utf-8")),
        "table": table,
        "sources": sources,
        "samples": samples,
    }
