"""From a source as written to rows at hand: its commit, its files with their hashes, its layout."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from tulu_recipes import hub
from tulu_recipes.config.surroundings import is_local, local_path
from tulu_recipes.data.layouts import recognise
from tulu_recipes.data.mixing.job import ResolvedSource
from tulu_recipes.data.mixing.mix_file import Mix, MixSource
from tulu_recipes.data.sources import check_named, load_with_files
from tulu_recipes.errors import DataError, HubError, Problem

HF = "hf://datasets/"


def resolve_sources(mix: Mix, pinned: Mapping[int, str] | None = None) -> tuple[ResolvedSource, ...]:
    """Every source of a mix, its rows downloaded or read.

    Args:
        pinned: commits to take in place of `revision`, by source number: a lock's.
    Raises:
        DataError: every source that cannot be read, or whose columns do not fit; nothing is downloaded when a
            source is missing or gated, or has no such configuration or split.
    """
    pins = pinned or {}
    # slices of one dataset by `where` are asked for and loaded once, so they are of one commit too
    first = {_rows_of(source, pins.get(number)): number for number, source in reversed(list(enumerate(mix.sources)))}
    problems = [
        problem for number in sorted(first.values()) for problem in _unreadable(mix.sources[number], pins.get(number))
    ]
    if problems:
        raise DataError(problems)
    resolved = []
    at_hand: dict[tuple[str | None, ...], _AtHand] = {}
    for number, source in enumerate(mix.sources):
        try:
            key = _rows_of(source, pins.get(number))
            if key not in at_hand:
                at_hand[key] = _load(source, pins.get(number))
            resolved.append(_resolve(mix, number, source, at_hand[key]))
        except (DataError, HubError) as error:
            problems += [_placed(problem, source) for problem in error.problems]
    if problems:
        raise DataError(problems)
    return tuple(resolved)


def _rows_of(source: MixSource, pin: str | None) -> tuple[str | None, ...]:
    """Equal for sources that are taken from the same rows."""
    return source.name, source.config, source.split, source.revision, pin


def hub_id(source: MixSource) -> str | None:
    """The Hub dataset a source is taken from; None for local files."""
    if source.name.startswith(HF):
        return "/".join(source.name.removeprefix(HF).split("/")[:2]).partition("@")[0]
    return None if is_local(source.name) else source.name


def _unreadable(source: MixSource, pin: str | None) -> list[Problem]:
    """What can be known of a Hub source without its rows."""
    repo = hub_id(source)
    if repo is None:
        return []
    revision = pin or _asked_revision(source)
    problems = hub.check_readable(repo, repo_type="dataset", revision=revision, where=source.place)
    if problems:
        return [_of_the_lock(problem, source, pin) for problem in problems]
    try:
        commit = pin or hub.resolve_revision(repo, repo_type="dataset", revision=revision)
        check_named(
            _at_commit(source.name, commit),
            config=source.config,
            split=source.split,
            revision=None if source.name.startswith(HF) else commit,
        )
    except (DataError, HubError) as error:
        return [_placed(problem, source) for problem in error.problems]
    return []


def _of_the_lock(problem: Problem, source: MixSource, pin: str | None) -> Problem:
    """A commit that nobody wrote but the lock: say so."""
    if pin is None or problem.slug not in ("hub-revision-not-found", "hub-repo-not-found"):
        return problem
    what = f"{source.title} is locked at commit {pin}, which is gone: the repo was deleted, rewritten or made private."
    mend = "build without --locked to lock what is there now, or name another source."
    return Problem("mix-source-moved", source.place, what, mend)


def _asked_revision(source: MixSource) -> str | None:
    """`revision`, or what stands behind the @ of an hf:// path."""
    if source.name.startswith(HF):
        owner_and_name = "/".join(source.name.removeprefix(HF).split("/")[:2])
        return owner_and_name.partition("@")[2] or source.revision
    return source.revision


def _placed(problem: Problem, source: MixSource) -> Problem:
    """A loader's problem, said of the line of the mix that led to it."""
    if source.place in problem.where:
        return problem
    return replace(problem, where=f"{source.place} ({problem.where})" if problem.where else source.place)


@dataclass(frozen=True)
class _AtHand:
    """Rows that are downloaded or read. licence: as the card has it. files: with their hashes."""

    rows: Dataset
    commit: str | None
    licence: str | None
    files: list[dict[str, Any]]


def _load(source: MixSource, pin: str | None) -> _AtHand:
    repo = hub_id(source)
    commit = None
    if repo is not None:
        commit = pin or hub.resolve_revision(repo, repo_type="dataset", revision=_asked_revision(source))
    loaded = load_with_files(
        _at_commit(source.name, commit),
        config=source.config,
        split=source.split,
        revision=None if source.name.startswith(HF) else commit,
    )
    if repo is None:
        return _AtHand(loaded.rows, None, None, _local_files(source.name, loaded.files))
    licence = hub.licence_of(repo, repo_type="dataset", revision=commit)
    return _AtHand(loaded.rows, commit, licence, _hub_files(repo, commit, loaded.files))


def _resolve(mix: Mix, number: int, source: MixSource, found: _AtHand) -> ResolvedSource:
    rows = found.rows
    layout = recognise(rows.features, mix.target, source.place, layout=source.layout, columns=source.columns)
    _check_columns(source, rows.column_names)
    licence = source.licence or found.licence
    return ResolvedSource(number, source, rows, layout, found.commit, licence, found.files)


def _at_commit(name: str, commit: str | None) -> str:
    """An hf:// path with its revision made a commit."""
    if not name.startswith(HF) or commit is None:
        return name
    owner, repo, *path = name.removeprefix(HF).split("/")
    return f"{HF}{owner}/{repo.partition('@')[0]}@{commit}/{'/'.join(path)}"


def _check_columns(source: MixSource, there: list[str]) -> None:
    asked = [*source.keep_columns, *source.rows_where]
    missing = [column for column in asked if column not in there]
    if missing:
        what = f"{source.name} has no column {', '.join(missing)}; it has {', '.join(sorted(there))}."
        raise DataError(Problem("mix-column", source.place, what, "name columns of the dataset."))


def _local_files(name: str, files: list[str]) -> list[dict[str, Any]]:
    root = local_path(name)
    found = [Path(file) for file in files] or ([root] if root.is_file() else sorted(root.rglob("*")))
    return [
        {
            "path": file.name if root.is_file() else file.resolve().relative_to(root.resolve()).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": hub.file_sha256(file),
        }
        for file in found
        if file.is_file()
    ]


def _hub_files(repo: str, commit: str | None, files: list[str]) -> list[dict[str, Any]]:
    """What the Hub says of the data files; their content is fixed by the commit."""
    paths = [file.partition(f"@{commit}/")[2] for file in files if f"@{commit}/" in file]
    return hub.file_hashes(repo, paths, revision=commit) if paths else []
