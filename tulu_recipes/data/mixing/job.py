"""One build of a mix, as every task of it sees it: the resolved sources, their parts, and the folders between passes.

    .build/job.pickle        this file's Job
    .build/job.json          its fingerprint: a build with another one starts afresh
    .build/evaluations/      the index that decontamination looks things up in
    .build/parts/003-00007/  converted rows of one part, with the columns that selection needs
    .build/selection/        which rows make which shard
    .build/shards/           finished parquet files

Everything below .build is written whole or not at all, so a task whose output exists is done.
"""

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from tulu_recipes.data.layouts import Layout
from tulu_recipes.data.mixing.mix_file import FilterCall, Mix, MixSource
from tulu_recipes.run import atomic_file, read_json, write_json

BUILD = ".build"
PART_ROWS = 20_000
PART_BYTES = 64 << 20


@dataclass(frozen=True)
class ResolvedSource:
    """A source whose rows are at hand.

    revision: commit of a Hub dataset; None for local files.
    files: path, bytes and sha256 (or the Hub's blob id) of each data file.
    """

    number: int
    source: MixSource
    rows: Dataset
    layout: Layout
    revision: str | None = None
    licence: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.source.title

    def provenance(self) -> dict[str, Any]:
        """What the lock compares to tell whether a source has moved."""
        written = self.source
        return {
            "name": written.name,
            "label": written.label,
            "config": written.config,
            "split": written.split,
            "asked_revision": written.revision,
            "revision": self.revision,
            "licence": self.licence,
            "layout": self.layout.name,
            "files": self.files,
            "rows_available": len(self.rows),
        }


@dataclass(frozen=True)
class Part:
    """Rows start..stop of a source: what one convert task does."""

    source: int
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.source:03}-{self.number:05}"


@dataclass(frozen=True)
class Job:
    """schema: of the finished rows. evaluations: whether .build/evaluations holds an index.

    part_rows: rows of a part at most; the finished mix does not depend on it.
    """

    mix: Mix
    sources: tuple[ResolvedSource, ...]
    schema: pa.Schema
    tokenizer_file: str | None
    evaluations: bool
    identity: str  # hash of all that the build is made from
    part_rows: int = PART_ROWS

    @cached_property
    def parts(self) -> list[Part]:
        return [part for source in self.sources for part in _parts_of(source, self.part_rows)]

    def filters_of(self, source: ResolvedSource) -> list[tuple[str, FilterCall]]:
        """The filters a source goes through, each with its name in the lock (numbered when it stands twice)."""
        named: list[tuple[str, FilterCall]] = []
        for call in (*source.source.filters, *self.mix.filters):
            before = sum(other.name == call.name for _, other in named)
            named.append((f"{call.name} ({before + 1})" if before else call.name, call))
        return named


def _parts_of(source: ResolvedSource, part_rows: int) -> Iterator[Part]:
    """Cut by rows and by bytes, never by the number of workers."""
    total = len(source.rows)
    mean_bytes = max(1, source.rows.data.nbytes // max(1, len(source.rows.data)))
    size = max(1, min(part_rows, PART_BYTES // mean_bytes))
    for number, start in enumerate(range(0, total, size)):
        yield Part(source.number, number, start, min(start + size, total))


def save_job(folder: Path, job: Job, fingerprint: dict[str, Any]) -> None:
    """Open .build for a job; what an earlier build of another job left there is removed."""
    kept = folder / "job.json"
    if not kept.is_file() or read_json(kept) != fingerprint:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "job.pickle") as writing:
        writing.write_bytes(pickle.dumps(job))
    write_json(kept, fingerprint)
    load_job.cache_clear()


@lru_cache(maxsize=1)
def load_job(folder: Path) -> Job:
    """The job of a .build folder, read once a process."""
    job: Job = pickle.loads((folder / "job.pickle").read_bytes())
    return job


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has filled it."""
    neighbour = path.with_name(f".{path.name}.writing")
    shutil.rmtree(neighbour, ignore_errors=True)
    neighbour.mkdir(parents=True)
    yield neighbour
    shutil.rmtree(path, ignore_errors=True)
    neighbour.rename(path)
