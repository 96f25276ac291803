"""What a mix would take of each source, before anything large is downloaded.

Rows are counted in Parquet footers and line ends where that is possible (exact), else taken from the dataset's card
or reckoned from file sizes (estimates). Lengths are those of the first rows, which need not be like the others.
"""

import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from datasets import DatasetDict, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tulu_recipes import hub
from tulu_recipes.data.row_counts import RowCount, count_rows, first_csv_rows, first_parquet_rows
from tulu_recipes.data.sources import FILE_TYPES
from tulu_recipes.data.statistics import CHARACTERS_PER_TOKEN
from tulu_recipes.errors import DataError, Problem, TuluError
from tulu_recipes.hub_problems import Repo, explained

SAMPLE_ROWS = 100
HUB_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<path>.+))?")
CAVEATS = (
    "Rows that filters, duplicates and decontamination will remove are still counted: which, only the build knows.",
    f"Lengths are estimated from the first {SAMPLE_ROWS} rows of each source.",
)

Measure = Callable[[Sequence[Mapping[str, Any]]], Sequence[int]]  # rows → tokens a row; DataError: unknown columns


class PlannableSource(Protocol):
    """What is read of a source of a mix; None where the mix does not say."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> str | None: ...
    @property
    def split(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def fraction_of_source(self) -> float | None: ...
    @property
    def repeat(self) -> float | None: ...
    @property
    def licence(self) -> str | None: ...


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


def plan_sources(
    sources: Iterable[PlannableSource],
    *,
    tokenizer: Any | None = None,
    measure: Measure | None = None,
    where: str = "",
) -> MixPlan:
    """Plan every source; one that cannot be read does not hide the problems of the next.

    Args:
        tokenizer: counts the tokens of the sample; without one a token is taken for 4 characters.
        measure: counts tokens of rows as the mix will convert them, instead of `text_lengths`.
        where: the mix's file, for messages.
    """
    planned, problems = [], []
    for source in sources:
        try:
            planned.append(plan_source(source, measure or text_lengths(tokenizer), where))
        except TuluError as error:
            problems += error.problems
    whole = sum(source.tokens or 0 for source in planned)
    known = whole > 0 and not problems and all(source.tokens is not None for source in planned)
    shares = [source.tokens / whole if known and source.tokens is not None else None for source in planned]
    return MixPlan([replace(s, share=share) for s, share in zip(planned, shares, strict=True)], problems)


def plan_source(source: PlannableSource, measure: Measure, where: str = "") -> PlannedSource:
    """One source, its share left open.

    Raises:
        DataError, HubError: it cannot be read, or does not hold what the mix asks of it.
    """
    where = f"{where}, source {source.name}".removeprefix(", ")
    place = _locate(source, where)
    files, stated, split = _files_of_split(place)
    with _explained(place):
        with closing(_first_rows(place, files, split)) as rows:  # else an open file is left to the garbage collector
            sample = list(islice(rows, SAMPLE_ROWS))
        count = count_rows(files, stated=stated, sample=sample, complete=len(sample) < SAMPLE_ROWS)
    if not sample:
        raise DataError(Problem("no-rows", where, "The source has no rows.", "name another split or dataset."))
    taken = rows_taken(source, count, where)
    lengths = measure(sample)
    licence = source.licence or _licence(place)
    notes = () if count.exact else (f"rows {count.how}" if count.rows is not None else count.how,)
    return PlannedSource(
        name=source.name,
        config=source.config,
        split=split,
        revision=place.commit,
        licence=licence,
        rows_available=count.rows,
        rows_exact=count.exact,
        rows_taken=taken,
        repeats=taken / count.rows if taken is not None and count.rows else None,
        tokens=None if taken is None else round(taken * sum(lengths) / len(lengths)),
        notes=notes,
    )


def rows_taken(source: PlannableSource, count: RowCount, where: str) -> int | None:
    """Rows by the amount of a source, filters left out of account; None when the rows there are is not known.

    Raises:
        DataError: more rows are asked for than there are.
    """
    if source.rows is not None:
        if count.exact and count.rows is not None and source.rows > count.rows:
            what = f"rows: {source.rows:,} is more than the {count.rows:,} rows there are."
            mend = "lower it, or use `repeat` to take rows more than once."
            raise DataError(Problem("mix-amount", where, what, mend))
        return source.rows
    if count.rows is None:
        return None
    factor = source.fraction_of_source if source.fraction_of_source is not None else source.repeat
    return count.rows if factor is None else math.floor(factor * count.rows + 0.5)  # as data.mixing.keys rounds


def text_lengths(tokenizer: Any | None) -> Measure:
    """Tokens of the text in a row, whatever its layout: special tokens of a chat template are left out."""

    def measure(rows: Sequence[Mapping[str, Any]]) -> list[int]:
        texts = [row_texts(row) for row in rows]
        if tokenizer is None:
            return [round(sum(map(len, parts)) / CHARACTERS_PER_TOKEN) for parts in texts]
        return [sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in parts) for parts in texts]

    return measure


def row_texts(row: Mapping[str, Any]) -> list[str]:
    """What of a row would be trained on, by its column names: both answers of a pair, else messages, else all."""
    for columns in (("chosen", "rejected"), ("messages",), ("conversations",)):
        if all(row.get(column) for column in columns):
            return [text for column in columns for text in _texts(row[column])]
    return [
        text for column, value in row.items() if column not in ("id", "source", "dataset") for text in _texts(value)
    ]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        message = value.get("content", value.get("value"))
        return _texts(message) if message is not None else [t for item in value.values() for t in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


# ---- where the rows are


def _locate(source: PlannableSource, where: str) -> _Place:
    path = Path(source.name)
    if path.is_file():
        builder = FILE_TYPES.get(path.suffix.lower())
        if builder is None:
            what = f"Files of type {path.suffix or '(none)'} are not read."
            raise DataError(
                Problem("file-type-unknown", where, what, f"convert it to one of {', '.join(FILE_TYPES)}.")
            )
        if source.split not in (None, "train"):
            what = f"There is no split {source.split!r}; the dataset has 'train'."
            raise DataError(Problem("split-unknown", where, what, "name one of these splits."))
        return _Place(where, builder, {"data_files": str(path)}, "train")
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
        builder = FILE_TYPES.get(Path(address["path"]).suffix.lower())
        if builder is not None:
            files = f"hf://datasets/{repo_id}@{commit}/{address['path']}"
            return _Place(where, builder, {"data_files": files}, "train", repo, commit)
        options = {"data_dir": address["path"], "name": source.config, "revision": commit}
        return _Place(where, repo_id, options, source.split, repo, commit)
    return _Place(where, repo_id, {"name": source.config, "revision": commit}, source.split, repo, commit)


def _files_of_split(place: _Place) -> tuple[list[str], int | None, str]:
    """Files of the split, its rows by the card, and its name."""
    if _is_saved(place.load):
        return _saved_files(place)
    with _explained(place):
        builder = load_dataset_builder(place.load, **place.options)
    files = {str(split): list(names) for split, names in (builder.config.data_files or {}).items()}
    split = _pick_split(list(files), place)
    info = (builder.info.splits or {}).get(split)
    return [str(file) for file in files[split]], (info.num_examples if info else None), split


def _pick_split(splits: list[str], place: _Place) -> str:
    split = place.split or (splits[0] if len(splits) == 1 else "train")
    if split not in splits:
        there = ", ".join(map(repr, splits))
        what = f"There is no split {split!r}; the dataset has {there}."
        raise DataError(Problem("split-unknown", place.where, what, "name one of these splits."))
    return split


def _is_saved(folder: str) -> bool:
    return any((Path(folder) / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json"))


def _saved_files(place: _Place) -> tuple[list[str], int | None, str]:
    loaded = load_from_disk(place.load)
    split = _pick_split(list(loaded), place) if isinstance(loaded, DatasetDict) else place.split or "train"
    rows = loaded[split] if isinstance(loaded, DatasetDict) else loaded
    return [file["filename"] for file in rows.cache_files], None, split


def _first_rows(place: _Place, files: list[str], split: str) -> Generator[Mapping[str, Any], None, None]:
    suffixes = {Path(file).suffix.lower() for file in files}
    if _is_saved(place.load):
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
        what = f"No rows are to be found there: {_first_line(error)}."
        mend = "check the name, the configuration and the revision, or whether the dataset holds data files."
        raise DataError(Problem("dataset-not-found", place.where, what, mend)) from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        what = f"The source cannot be read: {_first_line(error)}."
        mend = "name an existing configuration or another revision; copy a file anew that was cut on its way."
        raise DataError(Problem("dataset-unreadable", place.where, what, mend)) from error


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
