"""A folder of scored rows: written in parts, each whole or not at all, and refused for anything else than it was begun
with.

    scores.json                       what was scored with what; once finished, what came out
    README.md                         dataset card
    data/part-00000-of-00003.parquet  rows with their scores
    .parts/                           why rows of a part have no score
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from filelock import FileLock, Timeout

from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import atomic_file, read_json, write_json

RECORD, LOCK = "scores.json", "_score.lock"
STARTED, FINISHED = "started", "finished"
Faults = dict[int, str]  # row of the dataset, from 0 → why it has no score


@dataclass(frozen=True)
class Part:
    number: int
    rows: range


class ScoreFolder:
    """The folder of one scoring.

    Args:
        made_of: everything the scores depend on; another one in the folder is refused.
        named: how model and dataset were called, to say what differs and for whoever reads scores.json.
    """

    def __init__(
        self, folder: Path, made_of: Mapping[str, Any], named: Mapping[str, Any], num_rows: int, part_rows: int
    ) -> None:
        self.folder, self.made_of, self.named = folder, dict(made_of), dict(named)
        starts = range(0, num_rows, part_rows)
        self.parts = [Part(n, range(start, min(start + part_rows, num_rows))) for n, start in enumerate(starts)]
        self._lock: FileLock | None = None

    def problem(self) -> Problem | None:
        """Why this folder must not be used; None when it is new, empty or of the same scoring."""
        try:
            record = read_json(self.folder / RECORD)
            differing = self._differing(record["made_of"], record)
        except NotADirectoryError:
            return self._refused("It is a file.", "name a folder.")
        except FileNotFoundError:
            names = sorted(path.name for path in self.folder.glob("*") if path.name != LOCK)[:3]
            foreign = f"It holds {', '.join(names)} and no {RECORD}, so no scoring was begun here."
            return self._refused(foreign, "name a new folder, or empty this one.") if names else None
        except (ValueError, KeyError, TypeError):
            return self._refused(f"Its {RECORD} cannot be read.", "remove the folder, and score again.")
        if not differing:
            return None
        return self._refused(
            f"It holds another scoring; what differs: {', '.join(differing)}.",
            "name another --output_dir, or remove this folder to score anew.",
        )

    def _refused(self, what: str, mend: str) -> Problem:
        return Problem("score-folder", f"--output_dir {self.folder}", what, mend)

    def _differing(self, before: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
        keys = [key for key in self.made_of | dict(before) if self.made_of.get(key) != before.get(key)]
        shown = []
        for key in keys:
            named = {"weights": "model", "content": "dataset"}.get(key)
            old, new = (record.get(named), self.named[named]) if named else (before.get(key), self.made_of.get(key))
            words = {"weights": "the model", "content": "the rows", "chat_template": "the chat template"}.get(key, key)
            digests = key == "chat_template" or old == new  # the name is the same, what it stands for has changed
            shown.append(words if digests else f"{words} ({old} then, {new} now)")
        return shown

    def open(self, *, main: bool) -> bool:
        """Begin or go on; whether it is finished already. The main process marks the folder and keeps others out.

        Raises:
            DataError: it must not be used, or somebody works in it.
        """
        if found := self.problem():
            raise DataError(found)
        finished = self.record.get("status") == FINISHED and all(self.is_done(part) for part in self.parts)
        if finished or not main:
            return finished
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            busy = self._refused("Another process is scoring into it.", "wait for it, or name another folder.")
            raise DataError(busy) from None
        self._write({"status": STARTED})
        return False

    @property
    def record(self) -> dict[str, Any]:
        path = self.folder / RECORD
        return dict(read_json(path)) if path.is_file() else {}

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Note what came out, and remove what a kill left behind."""
        for left in self._data.glob(".*.writing"):
            left.unlink()
        self._write({"status": FINISHED, **outcome})

    def _write(self, more: Mapping[str, Any]) -> None:
        write_json(self.folder / RECORD, {**more, **self.named, "made_of": self.made_of})

    # ---- parts

    def is_done(self, part: Part) -> bool:
        """Whether a part is there and whole."""
        try:
            rows: int = pq.read_metadata(self._path(part)).num_rows
            read_json(self._notes(part))
        except (OSError, pa.ArrowInvalid, ValueError):  # missing, cut short or overwritten: made again
            return False
        return rows == len(part.rows)

    def write(self, part: Part, rows: Dataset, faults: Faults) -> None:
        path, notes = self._path(part), self._notes(part)
        for file in (path, notes):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_json(notes, faults)
        with atomic_file(path) as neighbour:
            rows.to_parquet(str(neighbour))

    def faults(self) -> Faults:
        """Rows without a score, in order."""
        found: Faults = {}
        for part in self.parts:
            found |= {int(row): why for row, why in read_json(self._notes(part)).items()}
        return found

    def columns(self, names: list[str]) -> dict[str, list[float | None]]:
        """Columns of all parts, in the order of the rows."""
        tables = [pq.read_table(self._path(part), columns=names, partitioning=None) for part in self.parts]
        found: dict[str, list[float | None]] = pa.concat_tables(tables).to_pydict()
        return found

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _path(self, part: Part) -> Path:
        return self._data / f"{self._stem(part)}.parquet"

    def _notes(self, part: Part) -> Path:
        return self.folder / ".parts" / f"{self._stem(part)}.json"

    def _stem(self, part: Part) -> str:
        return f"part-{part.number:05d}-of-{len(self.parts):05d}"


def files_to_keep_home() -> list[str]:
    """Globs of what is not pushed."""
    return [LOCK, ".parts/*", "data/.*"]
