"""What a mix would take of each source, before anything large is downloaded.

Rows are counted in Parquet footers and line ends where that is possible (exact), else taken from the dataset's card
or reckoned from file sizes (estimates). Lengths are those of the first rows, which need not be like the others.
"""

import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datasets import Dataset, DatasetDict, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tulu_recipes import hub
from tulu_recipes.data.layouts import BrokenRow, recognise, turns
from tulu_recipes.data.mixing.build import check_own_filters
from tulu_recipes.data.mixing.mix_file import Mix, MixSource
from tulu_recipes.data.mixing.tokens import load_counter, resolve_tokenizer
from tulu_recipes.data.mixing.where import is_wanted
from tulu_recipes.data.row_counts import count_rows, first_csv_rows, first_parquet_rows
from tulu_recipes.data.sources import FILE_TYPES, builder_of, is_saved, root_cause, split_of
from tulu_recipes.data.statistics import CHARACTERS_PER_TOKEN
from tulu_recipes.errors import DataError, Problem, TuluError
from tulu_recipes.hub_problems import Repo, explained

SAMPLE_ROWS = 100
HUB_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<path>.+))?")
CAVEATS = (
    "Rows that filters, duplicates and decontamination will remove are still counted: which, only the build knows.",
    f"Lengths are estimated from the first {SAMPLE_ROWS} rows of each source.",
)


@dataclass(frozen=True)
class PlannedSource:
    """One source as it stands now. `tokens` and `share` are always estimates, rows only where not rows_exact.

    revision: the commit the mix would be locked to; None for local files.
    share: of the tokens of all sources, 0-1; None while those of one source are not known.
    """

    name: str
    config: str | None
    split: str
    revision: str | None
    licence: str | None
    rows_available: int | None
    rows_exact: bool
    rows_taken: int | None
    repeats: float | None
    tokens: int | None
    share: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MixPlan:
    """sources: those that can be read, in the mix's order. problems: of all the others."""

    sources: list[PlannedSource]
    problems: list[Problem]
    caveats: tuple[str, ...] = CAVEATS


@dataclass(frozen=True)
class _Place:
    """Where the rows of a source are, once its revision is resolved. repo: None for local files."""

    where: str
    load: str  # the first argument of load_dataset
    options: dict[str, Any]
    split: str | None
    repo: Repo | None = None
    commit: str | None = None


def plan_mix(mix: Mix, begin: Callable[[int, MixSource], object] = lambda number, source: None) -> MixPlan:
    """Plan source by source; one that cannot be read does not hide the problems of the next.

    Args:
        begin: called with each source, counted from 1, before it is asked for.
    """
    check_own_filters(mix)
    file, _ = resolve_tokenizer(mix)
    counter = load_counter(file) if file else None
    planned, problems = [], []
    for number, source in enumerate(mix.sources, start=1):
        begin(number, source)
        try:
            planned.append(_plan_source(mix, source, counter))
        except TuluError as error:
            problems += error.problems
            if "hub-unreachable" in error.slugs:
                break  # the others would wait for the same answer
    whole = sum(source.tokens or 0 for source in planned)
    known = whole > 0 and not problems and all(source.tokens is not None for source in planned)
    shares = [source.tokens / whole if known and source.tokens is not None else None for source in planned]
    return MixPlan([replace(s, share=share) for s, share in zip(planned, shares, strict=True)], problems)


def _plan_source(mix: Mix, source: MixSource, counter: Any) -> PlannedSource:
    """One source, its share left open.

    Raises:
        DataError, HubError: it cannot be read, or does not hold what the mix asks of it.
    """
    where = f"{source.place}, source {source.name}".removeprefix(", ")
    place = _locate(source, where)
    files, stated, split = _files_of_split(place)
    with _explained(place):
        with closing(_first_rows(place, files, split)) as rows:  # else an open file is left to the garbage collector
            sample = list(islice(rows, SAMPLE_ROWS))
        count = count_rows(files, stated=stated, sample=sample, complete=len(sample) < SAMPLE_ROWS)
    if not sample:
        raise DataError(Problem("no-rows", where, "The source has no rows.", "name another split or dataset."))
    wanted = [row for row in sample if is_wanted(row, source.rows_where)]
    lengths = _lengths(mix, source, wanted or sample, counter)
    licence = source.licence or _licence(place)
    notes = () if count.exact else (f"rows {count.how}" if count.rows is not None else count.how,)
    left, note = _rows_left(source, count.rows, len(wanted) / len(sample))
    taken = rows_taken(source, left, exact=count.exact)
    return PlannedSource(
        name=source.title,
        config=source.config,
        split=split,
        revision=place.commit,
        licence=licence,
        rows_available=count.rows,
        rows_exact=count.exact and not source.rows_where,
        rows_taken=taken,
        repeats=taken / min(taken, left) if taken and left else None,
        tokens=None if taken is None else round(taken * sum(lengths) / len(lengths)),
        notes=(*notes, *note),
    )


def _rows_left(source: MixSource, available: int | None, kept: float) -> tuple[int | None, tuple[str, ...]]:
    """The rows that `where` leaves, of which it keeps this fraction of the first ones, and what to note of them."""
    if source.rows_where and available is not None:
        left, how = round(kept * available), "by the first rows"
        if source.stated_rows is not None:
            left, how = source.stated_rows, "as the publisher states"
        return left, (f"`where` leaves about {left:,} of {available:,} rows, {how}",)
    if source.stated_rows in (None, available):
        return available, ()
    return source.stated_rows if available is None else available, (f"{source.stated_rows:,} rows are stated",)


def rows_taken(source: MixSource, left: int | None, *, exact: bool) -> int | None:
    """Rows by the amount of a source, of those `left` before its filters; None when neither is known.

    Raises:
        DataError: more rows are asked for than there are for certain, or none come out.
    """
    if left is None:
        return source.rows
    factor = source.fraction_of_source or source.repeat or 1.0
    # rounded as data.mixing.keys does
    taken = source.rows if source.rows is not None else math.floor(factor * left + 0.5)
    if taken == 0:
        what = f"{source.title}: {factor:g} of {left:,} rows is none."
        raise DataError(Problem("mix-amount", source.place, what, "take more, or remove the source."))
    if source.rows is not None and source.rows > left and exact and not source.rows_where:
        what = f"rows: {source.rows:,} is more than the {left:,} rows there are."
        mend = "lower it, or use `repeat` to take rows more than once."
        raise DataError(Problem("mix-amount", source.place, what, mend))
    return taken


def _lengths(mix: Mix, source: MixSource, rows: Sequence[Mapping[str, Any]], counter: Any) -> list[int]:
    """Tokens of each row as the mix converts it; a broken row has none.

    Raises:
        DataError: no layout fits the columns.
    """
    features = Dataset.from_list([dict(row) for row in rows]).features
    layout = recognise(features, mix.target, source.place, layout=source.layout, columns=source.columns)
    return [_length(mix, layout, row, counter) for row in rows]


def _length(mix: Mix, layout: Any, row: Mapping[str, Any], counter: Any) -> int:
    try:
        texts = [text for _, text in turns(layout.convert(row), mix.target)]
    except BrokenRow:
        return 0
    if counter is None:
        return round(sum(map(len, texts)) / CHARACTERS_PER_TOKEN)
    return sum(len(encoding.ids) for encoding in counter.encode_batch_fast(texts, add_special_tokens=False))


# ---- where the rows are


def _locate(source: MixSource, where: str) -> _Place:
    path = Path(source.name)
    if path.is_file():
        builder = builder_of(path, where)
        return _Place(where, builder, {"data_files": str(path)}, split_of(["train"], source.split, where))
    if path.exists():
        return _Place(where, str(path), {"name": source.config}, source.split)
    address = HUB_ADDRESS.fullmatch(source.name)
    repo_id = address["repo"] if address else source.name
    revision = unquote(address["revision"]) if address and address["revision"] else source.revision
    problems = hub.check_readable(repo_id, repo_type="dataset", revision=revision, where=where)
    if problems:
        raise DataError(problems)
    commit = hub.resolve_revision(repo_id, repo_type="dataset", revision=revision)
    repo = Repo(repo_id, "dataset", revision, where)
    if address and address["path"]:
        if Path(address["path"]).suffix.lower() in FILE_TYPES:
            files = f"hf://datasets/{repo_id}@{commit}/{address['path']}"
            return _Place(where, builder_of(files), {"data_files": files}, "train", repo, commit)
        options = {"data_dir": address["path"], "name": source.config, "revision": commit}
        return _Place(where, repo_id, options, source.split, repo, commit)
    return _Place(where, repo_id, {"name": source.config, "revision": commit}, source.split, repo, commit)


def _files_of_split(place: _Place) -> tuple[list[str], int | None, str]:
    """Files of the split, its rows by the card, and its name."""
    if is_saved(place.load):
        return _saved_files(place)
    with _explained(place):
        builder = load_dataset_builder(place.load, **place.options)
    files = {str(split): list(names) for split, names in (builder.config.data_files or {}).items()}
    split = split_of(list(files), place.split, place.where)
    info = (builder.info.splits or {}).get(split)
    return [str(file) for file in files[split]], (info.num_examples if info else None), split


def _saved_files(place: _Place) -> tuple[list[str], int | None, str]:
    loaded = load_from_disk(place.load)
    split = place.split or "train"
    if isinstance(loaded, DatasetDict):
        split = split_of(list(loaded), place.split, place.where)
        loaded = loaded[split]
    return [file["filename"] for file in loaded.cache_files], None, split


def _first_rows(place: _Place, files: list[str], split: str) -> Generator[Mapping[str, Any], None, None]:
    suffixes = {Path(file).suffix.lower() for file in files}
    if is_saved(place.load):
        loaded = load_from_disk(place.load)
        yield from loaded[split] if isinstance(loaded, DatasetDict) else loaded
    elif suffixes == {".parquet"}:
        yield from first_parquet_rows(files, SAMPLE_ROWS)
    elif suffixes == {".csv"} and place.repo is None:
        yield from first_csv_rows(files)
    else:
        yield from load_dataset(place.load, split=split, streaming=True, **place.options)


def _licence(place: _Place) -> str | None:
    if place.repo is None:
        return hub.licence_of(place.load, repo_type="dataset") if Path(place.load).is_dir() else None
    return hub.licence_of(place.repo.id, repo_type="dataset", revision=place.commit)


@contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """Say of a source that cannot be read which one and why."""
    try:
        if place.repo is None:
            yield
        else:
            with explained(place.repo):
                yield
    except (DatasetNotFoundError, FileNotFoundError) as error:
        what = f"No rows are to be found there: {root_cause(error)}."
        mend = "check the name, the configuration and the revision, or whether the dataset holds data files."
        raise DataError(Problem("dataset-not-found", place.where, what, mend)) from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        what = f"The source cannot be read: {root_cause(error)}."
        mend = "name an existing configuration or another revision; copy a file anew that was cut on its way."
        raise DataError(Problem("dataset-unreadable", place.where, what, mend)) from error
