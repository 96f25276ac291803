"""mix.lock.json: what a mix was built from and what came out, so that it can be proven or refused."""

import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tulu_recipes.config.surroundings import local_path
from tulu_recipes.data.contamination.evals_file import load_evals
from tulu_recipes.data.filters.user import source_sha256
from tulu_recipes.data.mixing.job import Job
from tulu_recipes.data.mixing.mix_file import Mix
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.hub import file_sha256
from tulu_recipes.run import read_json, write_json

LOCK = "mix.lock.json"
# Raised when the same YAML and sources would give other rows than the release before.
SEMANTICS = 1
# Libraries whose version can change rows; pyarrow alone shapes the bytes of a file.
TOOLS = ("tulu-recipes", "datasets", "pyarrow", "tokenizers", "rensa", "py3langid", "math-verify")

Lock = dict[str, Any]


def make_lock(
    job: Job, summary: Mapping[str, Any], shards: list[dict[str, Any]], made_from: Mapping[str, Any]
) -> Lock:
    """The lock of a finished build.

    Args:
        summary: what selection wrote. shards: path, rows, bytes, sha256 of each file.
        made_from: what identified the build before it began: mix, sources, tools, tokenizer, evaluations.
    """
    pairs = zip(made_from["sources"], summary["sources"], strict=True)
    evaluations = made_from["decontamination"]
    totals = ("rows", "tokens", "characters", "content_sha256")
    own_filters = {"own_filters": made_from["own_filters"]} if "own_filters" in made_from else {}
    return {
        "semantics": SEMANTICS,
        "name": job.mix.name,
        "mix_sha256": job.mix.sha256,
        "mix": made_from["mix"],
        "target": job.mix.target,
        "seed": job.mix.seed,
        "tokenizer": made_from["tokenizer"],
        "tools": made_from["tools"],
        **own_filters,
        "sources": [provenance | counted for provenance, counted in pairs],
        "decontamination": None if evaluations is None else evaluations | {"table": summary["contamination"]},
        "result": {key: summary[key] for key in totals} | {"shards": shards},
        "statistics": summary["statistics"],
    }


def own_filter_hashes(mix: Mix) -> dict[str, str]:
    """Hash of the file of each filter that is the user's own."""
    return {call.name: source_sha256(call.name) for call in mix.own_filters()}


def _moved_filters(mix: Mix, lock: Lock, where: Path) -> list[Problem]:
    before, after = lock.get("own_filters", {}), own_filter_hashes(mix)
    what = "The file of the filter {} has changed since the mix was locked."
    mend = f"undo the change, or build it anew:  {rebuild_command(mix)}"
    changed = [name for name in after if before.get(name) != after[name]]
    return [Problem("mix-source-moved", str(where), what.format(name), mend) for name in changed]


def tool_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def lock_beside(mix_path: str | Path) -> Path:
    """The lock that is kept with a mix file: NAME.lock.json."""
    return Path(mix_path).with_suffix(".lock.json")


def keep_beside(mix: Mix, lock: Lock) -> Path:
    """Write the lock beside its mix file, unless one that says the same is there; its path.

    Raises:
        OSError: it cannot be written there.
    """
    path = lock_beside(mix.path)
    if path.is_file():
        try:
            there = read_lock(path)
        except DataError:
            there = {}  # cut or no lock at all: the new one takes its place
        if there and says_the_same(there, lock):
            return path
    write_json(path, lock)
    return path


def says_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two locks agree on all but tools, the bytes these write, and what nobody can be asked for offline."""
    return _rows_of(one) == _rows_of(other)


def _rows_of(lock: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in lock["result"].items() if key != "shards"}
    return _without_files(lock) | {"tools": None, "result": result}


def _without_files(lock: Mapping[str, Any]) -> dict[str, Any]:
    sources = [source | {"files": None} if source["revision"] else source for source in lock["sources"]]
    return dict(lock) | {"sources": sources}


def same_build(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of one build, tools included."""
    return _without_files(one) == _without_files(other)


def read_lock(path: Path) -> Lock:
    """A lock from its file.

    Raises:
        DataError: the file is missing, cut or no lock.
    """
    try:
        lock = read_json(path)
        complete = {"semantics", "mix_sha256", "mix", "sources", "result"} <= lock.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(_unreadable(path, str(error) or type(error).__name__)) from error
    if not complete:
        raise DataError(_unreadable(path, "keys are missing"))
    found: Lock = lock
    return found


def _unreadable(path: Path, said: str) -> Problem:
    return Problem("mix-lock-unreadable", str(path), f"This is no lock of a mix ({said}).", "build the mix again.")


def check_mix_is_locked(mix: Mix, lock: Lock, where: Path) -> None:
    """Refuse a mix file that says something else than its lock.

    Raises:
        DataError: mix-lock-stale, naming the keys that differ.
    """
    if lock["semantics"] != SEMANTICS:
        what = (
            f"The lock has semantics {lock['semantics']}; this version of tulu_recipes builds semantics {SEMANTICS}."
        )
        raise DataError(Problem("mix-lock-stale", str(where), what, f"build it anew: {rebuild_command(mix)}"))
    if lock["mix_sha256"] != mix.sha256:
        changes = "; ".join(list(_differences(lock["mix"], mix.meaning()))[:8])
        what = f"{mix.path} says something else than its lock: {changes}."
        mend = f"build it anew:  {rebuild_command(mix)}  or undo the change."
        raise DataError(Problem("mix-lock-stale", str(where), what, mend))
    if mix.decontaminate is not None:
        against = mix.decontaminate["against"]
        if load_evals(against).sha256 != lock["decontamination"]["evals_sha256"]:
            what = f"{against} says something else than when {mix.path} was locked."
            mend = f"build it anew:  {rebuild_command(mix)}  or undo the change."
            raise DataError(Problem("mix-lock-stale", str(where), what, mend))


def check_local_sources(mix: Mix, lock: Lock) -> None:
    """Refuse to go on with rows whose local files have changed since.

    Raises:
        DataError: mix-source-moved, naming each file.
    """
    problems = _moved_filters(mix, lock, lock_beside(mix.path))
    for source, locked in zip(mix.sources, lock["sources"], strict=True):
        root = local_path(source.name)
        if locked["revision"] is not None or not root.exists():
            continue
        found = [file | {"sha256": _sha256_or_gone(root, file)} for file in locked["files"]]
        changes = "; ".join(_moves(locked, locked | {"files": [file for file in found if file["sha256"]]}))
        if changes:
            what = f"{source.title} has changed since the mix was built: {changes}."
            problems.append(Problem("mix-source-moved", source.place, what, f"build it anew:  {rebuild_command(mix)}"))
    if problems:
        raise DataError(problems)


def _sha256_or_gone(root: Path, file: Mapping[str, Any]) -> str | None:
    path = root if root.is_file() else root / file["path"]
    return file_sha256(path) if path.is_file() else None


def rebuild_command(mix: Mix) -> str:
    return f"python -m tulu_recipes.mix {mix.path}"


def check_sources_are_locked(
    job: Job, made_from: Mapping[str, Any], lock: Lock, where: Path, *, byte_for_byte: bool
) -> None:
    """Refuse sources, evaluations and tools that are not those of the lock; names each and what changed.

    Raises:
        DataError: mix-source-moved, mix-tool-moved.
    """
    problems = []
    problems += _moved_filters(job.mix, lock, where)
    accept = f"restore it, or accept it:  {rebuild_command(job.mix)}"
    for source, locked in zip(job.sources, lock["sources"], strict=True):
        changes = "; ".join(list(_moves(locked, source.provenance()))[:5])
        if changes:
            what = f"{source.title} is not what the lock holds: {changes}."
            problems.append(Problem("mix-source-moved", f"{where}, {source.source.place}", what, accept))
    for key in ("tokenizer", "decontamination"):
        before = {name: value for name, value in (lock[key] or {}).items() if name != "table"}
        changes = "; ".join(list(_differences(before, made_from[key] or {}))[:5])
        if changes:
            problems.append(Problem("mix-source-moved", f"{where}, {key}", f"{key} has moved: {changes}.", accept))
    here = made_from["tools"]["pyarrow"]
    if byte_for_byte and lock["tools"]["pyarrow"] != here:
        what = f"The lock was written with pyarrow {lock['tools']['pyarrow']}; this is {here}, whose files differ."
        mend = f"install pyarrow=={lock['tools']['pyarrow']}, or build without --locked."
        problems.append(Problem("mix-tool-moved", str(where), what, mend))
    if problems:
        raise DataError(problems)


def _moves(locked: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for key in ("revision", "rows_available", "layout"):
        if locked[key] != found[key]:
            yield f"{key.replace('_', ' ')} {locked[key]} → {found[key]}"
    if found["revision"] and not found["files"]:
        return  # read from the cache, offline: the commit vouches
    before = {file["path"]: file for file in locked["files"]}
    after = {file["path"]: file for file in found["files"]}
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            yield f"{path} is gone"
        elif path not in before:
            yield f"{path} is new"
        elif _hash(before[path]) != _hash(after[path]) and None not in (_hash(before[path]), _hash(after[path])):
            old, new = before[path]["bytes"], after[path]["bytes"]
            sizes = f" ({old:,} → {new:,} bytes)" if old != new else ""
            yield f"{path} has another content{sizes}"


def _hash(file: Mapping[str, Any]) -> Any:
    """None where the Hub was not asked; then the commit alone vouches for the file."""
    return file.get("sha256") or file.get("blob_id")


def check_result(lock: Lock, built: Lock, where: Path, *, byte_for_byte: bool) -> None:
    """Refuse a build whose rows, or files, are not the lock's.

    Raises:
        DataError: mix-lock-mismatch.
    """
    before, after = lock["result"], built["result"]
    tools = ", ".join(
        f"{name} {lock['tools'].get(name)} → {version}"
        for name, version in built["tools"].items()
        if lock["tools"].get(name) != version
    )
    because = f" Changed since: {tools}." if tools else ""
    if before["content_sha256"] != after["content_sha256"]:
        steps = "; ".join(_step_changes(lock, built)) or "the same number of rows, but other ones or in another order"
        what = f"The rows are not those of the lock: {steps}.{because}"
    elif byte_for_byte and [s["sha256"] for s in before["shards"]] != [s["sha256"] for s in after["shards"]]:
        what = f"The rows are those of the lock, the bytes of the files are not.{because}"
    else:
        return
    mend = "install the tools of the lock, or build anew without --locked."
    raise DataError(Problem("mix-lock-mismatch", str(where), what, mend))


def _step_changes(lock: Lock, built: Lock) -> Iterator[str]:
    for before, after in zip(lock["sources"], built["sources"], strict=True):
        for old, new in zip(before["steps"], after["steps"], strict=False):
            if old["rows_out"] != new["rows_out"]:
                yield f"{after['label'] or after['name']}, {new['step']}: {old['rows_out']:,} → {new['rows_out']:,}"
                break


def _differences(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """Where two nested values differ, as  key: old → new."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True), start=1):
            yield from _differences(one, other, f"{key} {number}")
    elif before != after:
        yield f"{key}: {_short(before)} → {_short(after)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_files(folder: Path, lock: Lock) -> None:
    """Refuse a built mix whose files are not those its lock lists.

    Raises:
        DataError: mix-files-changed.
    """
    problems = []
    mend = f"build {lock['name']} again, with  --output_dir {folder}"
    listed = {folder / shard["path"] for shard in lock["result"]["shards"]}
    for path in sorted(set((folder / "data").rglob("*.parquet")) - listed):
        what = f"{path.relative_to(folder)} is not in the lock."
        problems.append(Problem("mix-files-changed", str(path), what, f"move it away, or {mend}"))
    for shard in lock["result"]["shards"]:
        path = folder / shard["path"]
        if not path.is_file():
            fault = "is missing"
        elif path.stat().st_size != shard["bytes"]:
            fault = f"has {path.stat().st_size:,} bytes, the lock says {shard['bytes']:,}"
        elif file_sha256(path) != shard["sha256"]:
            fault = "has another content than the lock says"
        else:
            continue
        problems.append(Problem("mix-files-changed", str(path), f"{shard['path']} {fault}.", mend))
    if problems:
        raise DataError(problems)
