"""Building a mix: resolve, convert, select, write, then put the whole folder in place at once.

    <output_dir>/data/train-00000-of-00003.parquet
    <output_dir>/mix.lock.json          written last: a folder without it is no finished mix
    <output_dir>/README.md …            from `describe`, which the caller gives

A build that was killed goes on at the part or shard where it stopped, when nothing it is made from has changed.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console

from tulu_recipes.data.filters import make_filter
from tulu_recipes.data.mixing.cluster import LOGS, refuse_queued
from tulu_recipes.data.mixing.columns import mix_schema
from tulu_recipes.data.mixing.convert import convert_part
from tulu_recipes.data.mixing.evaluations import MixEvaluations, load_evaluations
from tulu_recipes.data.mixing.job import BUILD, Job, atomic_folder, load_job, save_job
from tulu_recipes.data.mixing.languages import count_languages
from tulu_recipes.data.mixing.lock import (
    LOCK,
    SEMANTICS,
    Lock,
    check_files,
    check_mix_is_locked,
    check_result,
    check_sources_are_locked,
    keep_beside,
    make_lock,
    own_filter_hashes,
    read_lock,
    same_build,
    tool_versions,
)
from tulu_recipes.data.mixing.mix_file import Mix
from tulu_recipes.data.mixing.resolve import resolve_sources
from tulu_recipes.data.mixing.select import select_rows
from tulu_recipes.data.mixing.tokens import resolve_tokenizer
from tulu_recipes.data.mixing.workers import run_tasks
from tulu_recipes.data.mixing.write import shard_count, shard_name, write_shard
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.hub import file_sha256
from tulu_recipes.run import naming_full_disk, read_json, write_json

T = TypeVar("T")
Describe = Callable[[Path, Lock], None]
LITTLE_ROWS = 1000  # done sooner than processes start
BUSY = "_build.lock"
OURS = (
    BUSY,
    LOCK,
    "data",
    "README.md",
    "length_histogram.png",
    "contamination.json",
    "contamination.md",
)  # of a mix's folder


class RunPasses(Protocol):
    """Does the three passes of a job that is saved in a .build folder.

    Returns False when it only submitted them, with `finish` to be called after the last.
    """

    def __call__(self, build: Path, finish: Callable[[], object]) -> bool: ...


@dataclass(frozen=True)
class LocalPasses:
    """The passes on this machine, in `workers` processes."""

    workers: int
    console: Console

    def __call__(self, build: Path, finish: Callable[[], object]) -> bool:
        rows_of = {part: part.stop - part.start for part in load_job(build).parts}
        left = [part for part in rows_of if not (build / "parts" / part.name).is_dir()]
        self._run(partial(convert_part, build), left, rows_of, "Converting")
        select_rows(build)
        count = shard_count(build)
        sizes = dict(enumerate(np.diff(np.load(build / "selection" / "bounds.npy")).tolist()))
        missing = [number for number in sizes if not (build / "shards" / shard_name(number, count)).is_file()]
        self._run(partial(write_shard, build), missing, sizes, "Writing")
        return True

    def _run(self, work: Callable[[T], int], left: Sequence[T], rows_of: Mapping[T, int], title: str) -> None:
        """Do the tasks that an earlier start of the build has left."""
        total, to_do = sum(rows_of.values()), sum(rows_of[task] for task in left)
        workers = self.workers if to_do > LITTLE_ROWS else 1
        done = total - to_do
        run_tasks(work, left, total_rows=total, done_rows=done, title=title, workers=workers, console=self.console)


@dataclass(frozen=True)
class Built:
    """lock: None while the work is only submitted. new: False when the folder held this mix already."""

    lock: Lock | None
    new: bool


def build_mix(
    mix: Mix,
    output_dir: Path,
    *,
    passes: RunPasses,
    describe: Describe,
    locked: Path | None = None,
    byte_for_byte: bool = True,
    keep: bool = False,
    wait: bool = False,
) -> Built:
    """Build a mix into a folder, or find it built there already.

    Args:
        passes: where the work is done.
        describe: adds the card and whatever else explains the rows to the finished folder.
        locked: a lock whose sources are taken and whose rows must come out again.
        byte_for_byte: with `locked`, the parquet files must be the same too.
        keep: the last of submitted jobs also writes the lock beside the mix file.
        wait: for another process that builds in this folder, in place of refusing.
    Raises:
        DataError: a source cannot be read, rows do not suffice, or the lock does not hold; what was there before in
            `output_dir` is as it was.
    """
    lock = read_lock(locked) if locked else None
    if lock is not None and locked is not None:
        check_mix_is_locked(mix, lock, locked)
    _refuse_foreign(output_dir)
    with naming_full_disk(output_dir), _alone_in(output_dir, wait):
        refuse_queued(output_dir)
        job, fingerprint, evaluations = _resolve(mix, lock)
        if lock is not None and locked is not None:
            check_sources_are_locked(job, fingerprint, lock, locked, byte_for_byte=byte_for_byte)
        finished = _finished_already(output_dir, fingerprint)
        if finished is not None:
            return Built(finished, new=False)
        build = output_dir / BUILD
        save_job(build, job, fingerprint)
        if evaluations is not None and not (build / "evaluations").is_dir():
            with atomic_folder(build / "evaluations") as writing:
                evaluations.save(writing)
        finish = partial(
            finish_build, output_dir.resolve(), describe, locked=locked, byte_for_byte=byte_for_byte, keep=keep
        )
        return Built(finish(keep=False), new=True) if passes(build, finish) else Built(None, new=True)


def _resolve(mix: Mix, lock: Lock | None) -> tuple[Job, dict[str, Any], MixEvaluations | None]:
    """The job, all that identifies it, and its evaluations."""
    pins = {} if lock is None else {n: s["revision"] for n, s in enumerate(lock["sources"]) if s["revision"]}
    check_own_filters(mix)
    sources = resolve_sources(mix, pins)
    tokenizer_file, tokenizer = resolve_tokenizer(mix, ((lock or {}).get("tokenizer") or {}).get("revision"))
    evaluations = load_evaluations(mix, (lock or {}).get("decontamination"))
    fingerprint: dict[str, Any] = {
        "semantics": SEMANTICS,
        "mix": mix.meaning(),
        "sources": [source.provenance() for source in sources],
        "tools": tool_versions(),
        "tokenizer": tokenizer,
        "decontamination": None if evaluations is None else evaluations.entry(),
    }
    if mix.own_filters():
        fingerprint["own_filters"] = own_filter_hashes(mix)
    text = json.dumps(fingerprint)
    identity = hashlib.sha256(text.encode()).hexdigest()
    job = Job(mix, sources, mix_schema(sources, mix.target), tokenizer_file, evaluations is not None, identity)
    return job, json.loads(text), evaluations


def check_own_filters(mix: Mix) -> None:
    """Import the functions that a mix names as module:function, before anything is downloaded."""
    for call in mix.own_filters():
        make_filter(call.name, call.params, target=mix.target, tokenizer=None)


def finish_build(
    output_dir: Path,
    describe: Describe,
    *,
    locked: Path | None = None,
    byte_for_byte: bool = True,
    keep: bool = False,
) -> Lock:
    """Write lock and card of a job whose passes are done, and put everything in place."""
    build = output_dir / BUILD
    job, summary = load_job(build), read_json(build / "selection" / "summary.json")
    shards = list(_shards(build))
    summary["statistics"]["total"]["languages"] = count_languages(build / "shards", job.mix.target)
    lock = make_lock(job, summary, shards, read_json(build / "job.json"))
    if locked is not None:
        check_result(read_lock(locked), lock, locked, byte_for_byte=byte_for_byte)
    with atomic_folder(build / "finished") as writing:
        (writing / "data").mkdir()
        for shard in shards:
            (build / "shards" / Path(shard["path"]).name).replace(writing / shard["path"])
        if (build / "selection" / "contamination.json").is_file():
            shutil.copy(build / "selection" / "contamination.json", writing)
        describe(writing, lock)
        write_json(writing / LOCK, lock)
    _publish(build / "finished", output_dir)
    if keep:
        keep_beside(job.mix, lock)
    return lock


def _shards(build: Path) -> Iterator[dict[str, Any]]:
    count = shard_count(build)
    bounds = np.load(build / "selection" / "bounds.npy")
    for number in range(count):
        path = build / "shards" / shard_name(number, count)
        yield {
            "path": f"data/{path.name}",
            "rows": int(bounds[number + 1] - bounds[number]),
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }


def _publish(finished: Path, output_dir: Path) -> None:
    """Rename everything into place, the lock last; a kill in between leaves no lock, and so no finished mix."""
    (output_dir / LOCK).unlink(missing_ok=True)
    for entry in sorted(finished.iterdir(), key=lambda path: path.name == LOCK):
        target = output_dir / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
    shutil.rmtree(finished.parent)


def _finished_already(output_dir: Path, fingerprint: Mapping[str, Any]) -> Lock | None:
    """The lock of a finished build of the same mix, sources and tools, if its files are whole."""
    path = output_dir / LOCK
    if not path.is_file():
        return None
    lock = read_lock(path)
    provenance = [{key: source[key] for key in fingerprint["sources"][0]} for source in lock["sources"]]
    evaluations = dict(lock["decontamination"] or {})
    evaluations.pop("table", None)
    same = {
        "semantics": lock["semantics"],
        "mix": lock["mix"],
        "sources": provenance,
        "tools": lock["tools"],
        "tokenizer": lock["tokenizer"],
        "decontamination": evaluations or None,
    }
    if "own_filters" in lock:
        same["own_filters"] = lock["own_filters"]
    if not same_build(same, fingerprint):
        return None
    try:
        check_files(output_dir, lock)
    except DataError:
        return None  # built again, which mends it
    return lock


def _refuse_foreign(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        what = "The output folder is a file."
        raise DataError(Problem("mix-folder-foreign", str(output_dir), what, "name another  --output_dir."))
    there = {entry.name for entry in output_dir.iterdir()} if output_dir.is_dir() else set()
    strangers = {name for name in there if name not in OURS and not name.startswith(".")}
    # mix.lock.json alone proves nothing: the lock beside a mix.yaml has that name too
    if there <= {BUSY, LOGS} or (there & {LOCK, BUILD} and not strangers):
        return
    shown = ", ".join(sorted(strangers or there)[:5])
    what = f"The folder holds files that are no mix ({shown}); a build would replace some of them."
    raise DataError(Problem("mix-folder-foreign", str(output_dir), what, "name a new  --output_dir."))


@contextmanager
def _alone_in(output_dir: Path, wait: bool) -> Iterator[None]:
    """Keep a second build out of the folder; a new folder that nothing came into is taken away again."""
    made = not output_dir.exists()
    lock = _acquire(output_dir, wait)
    try:
        yield
    finally:
        if made and [entry.name for entry in output_dir.iterdir()] == [BUSY]:
            shutil.rmtree(output_dir)
        lock.release()


def _acquire(output_dir: Path, wait: bool) -> FileLock:
    lock = FileLock(output_dir / BUSY)
    while not lock.is_locked:
        output_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except FileNotFoundError:
            continue  # the build that was waited for was refused, and took the folder away
        except Timeout:
            what = "Another process is building a mix in this folder."
            mend = "wait for it, stop it, or name another  --output_dir."
            raise DataError(Problem("mix-folder-busy", str(output_dir), what, mend)) from None
    return lock
