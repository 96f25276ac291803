"""Rows by name: a Hub dataset, a local file or a local folder; every failure says which name and what to do."""

import glob
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import (
    DataFilesNotFoundError,
    DatasetGenerationError,
    DatasetNotFoundError,
)
from datasets.table import CastError
from pyarrow import ArrowInvalid

from tulu_recipes.data.file_faults import SHOWN_LINES, RowFault, check_utf8, column_changes, faulty_lines
from tulu_recipes.data.rows import check_columns, row_fault
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.hub_problems import Repo, explain, lost_connection

FILE_TYPES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
# In folders of datasets and mixes, but no rows of them
NO_ROWS = {"dataset_infos.json", "mix.lock.json", "contamination.json"}
ROW_GROUP_READ = 1000


@dataclass(frozen=True)
class LoadedRows:
    """files: paths of the data files of the split, hf:// ones with their commit; empty for `save_to_disk` folders."""

    rows: Dataset
    files: list[str]


def load_rows(
    name: str, *, config: str | None = None, split: str | None = None, revision: str | None = None
) -> Dataset:
    """All rows of one dataset, with a layout that `data.rows` knows.

    Args:
        name: Hub id, a file (JSONL, JSON, Parquet, CSV, Arrow; also by hf:// path), or a folder of them or of
            `save_to_disk`.
        split: split to take; None takes `train`, or the only one there is.
    Raises:
        DataError: the name, split or revision does not exist, a file cannot be read, the columns are unknown, or the
            folder is a mix that was never finished.
    """
    rows = load_with_files(name, config=config, split=split, revision=revision, row_fault=row_fault).rows
    check_columns(rows.column_names, name)
    return rows


def load_dataset_rows(
    name: str, *, config: str | None = None, split: str | None = None, revision: str | None = None
) -> Dataset:
    """All rows of one dataset, whatever its columns. Arguments and errors as for `load_rows`."""
    return load_with_files(name, config=config, split=split, revision=revision).rows


def load_with_files(
    name: str,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    row_fault: RowFault = lambda row: None,
) -> LoadedRows:
    """As `load_dataset_rows`, with the files that the rows are from.

    Args:
        row_fault: says what is wrong with a row of a JSON file that cannot be read, None when nothing is.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if split is not None:
            split_of(["train"], split, name)
        return _load_file(path, row_fault)
    if name.startswith("hf://") and Path(name).suffix:
        return _load_named(builder_of(name), None, "train", None, data_files=name)
    if path.is_dir():
        _refuse_unfinished(path)
        if is_saved(path):
            return LoadedRows(_pick_split(load_from_disk(str(path)), split, name), [])
        return _load_folder(path, config, split, row_fault)
    return _load_named(name, config, split, revision)


def check_named(name: str, *, config: str | None, split: str | None, revision: str | None) -> None:
    """Look for configuration, split and files of a Hub dataset or hf:// path; no rows are downloaded.

    Raises:
        DataError: as `load_rows`.
    """
    data_files = name if name.startswith("hf://") else None
    with _explained(name), _silent():
        _open(builder_of(name) if data_files else name, config, "train" if data_files else split, revision, data_files)


def first_rows(name: str, count: int, *, config: str | None, split: str, revision: str | None) -> list[dict[str, Any]]:
    """The first rows of a split on the Hub, without the rest of it."""
    with _explained(name):
        stream = load_dataset(name, name=config, split=split, revision=revision, streaming=True)
        return list(stream.take(count))


def config_names(name: str, *, revision: str | None = None) -> list[str]:
    """The configurations of a dataset, sorted."""
    with _explained(name):
        return sorted(get_dataset_config_names(name, revision=revision))


def _refuse_unfinished(folder: Path) -> None:
    if (folder / ".build").is_dir() and not (folder / "mix.lock.json").is_file():
        raise DataError(
            Problem(
                "mix-unfinished",
                str(folder),
                "A mix was being built here and was never finished.",
                "run the same  python -m tulu_recipes.mix  again: it goes on where it stopped.",
            )
        )


def is_saved(folder: Path | str) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((Path(folder) / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json"))


def builder_of(path: Path | str, where: str = "") -> str:
    """What `datasets` calls the type of a file.

    Args:
        where: what a problem is said of, in place of the path.
    Raises:
        DataError: files of this type are not read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in FILE_TYPES:
        return FILE_TYPES[suffix]
    raise DataError(
        Problem(
            "file-type-unknown",
            where or str(path),
            f"Files of type {suffix or '(none)'} are not read.",
            f"convert it to one of {', '.join(FILE_TYPES)}.",
        )
    )


def _load_file(path: Path, row_fault: RowFault) -> LoadedRows:
    builder = builder_of(path)
    if path.stat().st_size == 0:
        raise DataError(Problem("file-unreadable", str(path), "The file is empty.", "write at least one row into it."))
    try:
        if builder == "json":
            check_utf8(path)
        return _prepare(builder, None, "train", None, data_files=glob.escape(str(path)))
    except (DatasetGenerationError, UnicodeDecodeError, ValueError, RecursionError) as error:
        found = "; ".join(faulty_lines(path, row_fault)) if builder == "json" else ""
        raise DataError(
            Problem(
                "file-unreadable",
                str(path),
                f"The file cannot be read as {builder}: {found or root_cause(error)}.",
                "mend or remove these rows; every row needs the same columns and types."
                if builder in ("json", "csv")
                else "copy or write the file anew: it was cut, is of another format, or holds no rows.",
            )
        ) from error


def _load_folder(folder: Path, config: str | None, split: str | None, row_fault: RowFault) -> LoadedRows:
    if glob.has_magic(str(folder)):
        what = "The name of the folder holds * ? or [, which `datasets` takes for wildcards."
        raise DataError(Problem("dataset-unreadable", str(folder), what, "rename the folder."))
    try:
        loaded = _load_named(str(folder), config, split, None)
        for file in loaded.files:
            if FILE_TYPES.get(Path(file).suffix) == "json":
                check_utf8(Path(file))
    except UnicodeDecodeError as error:
        raise DataError(_faulty_files(folder, row_fault)) from error
    except DataError as error:
        unreadable = isinstance(error.__cause__, (DatasetGenerationError, ArrowInvalid))
        raise DataError((_faulty_files(folder, row_fault) if unreadable else []) or error.problems) from error
    return loaded


def _data_files(folder: Path) -> list[Path]:
    """Files that hold rows by their names; hidden ones are passed over, as `datasets` does."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in FILE_TYPES and path.name not in NO_ROWS)
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def _faulty_files(folder: Path, row_fault: RowFault) -> list[Problem]:
    """Which files of a folder cannot be read, or which one has other columns than the first."""
    problems, columns = [], {}
    for path in _data_files(folder):
        if path.stat().st_size == 0:
            continue
        try:
            types = _load_file(path, row_fault).rows.features.arrow_schema
            columns[path] = {field.name: str(field.type) for field in types}
        except DataError as error:
            problems += error.problems
    first, *others = columns.items() if columns else [(folder, {})]
    for path, found in [] if problems else others:
        if found != first[1]:
            what = f"Its columns are not those of {first[0].name}: {column_changes(first[1], found)}."
            mend = "bring the files to the same columns and types, or name each as a source of its own."
            problems.append(Problem("file-unreadable", str(path), what, mend))
    return problems[:SHOWN_LINES]


def _refuse_left_out(folder: Path, files: Mapping[str, Sequence[Any]]) -> None:
    """`datasets` reads files of one type, and only those named after a split where one is: nothing is lost silently.

    A card that names the files of each configuration is taken at its word.
    """
    card = folder / "README.md"
    if card.is_file() and re.search(r"^(configs|data_files):", card.read_text("utf-8", "replace"), re.MULTILINE):
        return
    taken = {Path(str(file)).resolve() for split in files.values() for file in split}
    left = [path for path in _data_files(folder) if path.resolve() not in taken and path.stat().st_size]
    if left:
        shown = ", ".join(path.relative_to(folder).as_posix() for path in left[:3]) + (", …" if len(left) > 3 else "")
        splits = ", ".join(f"{name}: {len(paths)}" for name, paths in files.items())
        what = f"Some files of the folder would not be read: {shown} (files by split: {splits})."
        mend = "name the files one by one, or move those that do not belong together into folders of their own."
        raise DataError(Problem("dataset-unreadable", str(folder), what, mend))


def _load_named(
    name: str, config: str | None, split: str | None, revision: str | None, *, data_files: str | None = None
) -> LoadedRows:
    with _explained(data_files or name):
        return _prepare(name, config, split, revision, data_files=data_files)


def _prepare(
    name: str, config: str | None, split: str | None, revision: str | None, *, data_files: str | None = None
) -> LoadedRows:
    """Download and convert once, then read from the cache. An unknown split is refused before the download."""
    with _silent():
        builder, files, chosen = _open(name, config, split, revision, data_files)
        if getattr(builder.config, "batch_size", 0) is None:  # Parquet's: that of the first row group, which may be 0
            builder.config.batch_size = ROW_GROUP_READ
        builder.download_and_prepare()
        rows = builder.as_dataset(split=chosen) if chosen else _pick_split(builder.as_dataset(), split, name)
    return LoadedRows(rows, [str(file) for file in files.get(chosen, ())] if chosen else [])


def _open(
    name: str, config: str | None, split: str | None, revision: str | None, data_files: str | None
) -> tuple[DatasetBuilder, Mapping[str, Sequence[Any]], str | None]:
    """The builder, its files by split, and the split to take (None when that is only known with the rows)."""
    builder = load_dataset_builder(name, name=config, revision=revision, data_files=data_files)
    files: Mapping[str, Sequence[Any]] = builder.config.data_files or {}
    if Path(name).is_dir():
        _refuse_left_out(Path(name), files)
    return builder, files, split_of(list(files), split, data_files or name) if files else None


@contextmanager
def _silent() -> Iterator[None]:
    """Without what the libraries log of a file before they raise it, and of a card without metadata."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub.repocard")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What `datasets` and the Hub raise about a dataset, as a DataError."""
    try:
        yield
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        what = f"There are no files with rows in it ({', '.join(FILE_TYPES)})."
        raise DataError(
            Problem("dataset-unreadable", name, what, "name a dataset, a folder or a file that holds rows.")
        ) from error
    except (DatasetNotFoundError, FileNotFoundError, *lost_connection()) as error:
        raise DataError(_outage(name, error) or _not_found(name, error)) from error
    except (DatasetGenerationError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            Problem(
                "dataset-unreadable",
                name,
                f"The dataset cannot be read: {root_cause(error)}.",
                "name an existing configuration (dataset_config; in a mix config), or another revision.",
            )
        ) from error


def _not_found(name: str, error: Exception) -> Problem:
    what = f"No such dataset or no right to read it: {root_cause(error)}."
    mend = "check the name and revision, accept the terms of a gated dataset, or log in with `hf auth login`."
    return Problem("dataset-not-found", name, what, mend)


def _outage(name: str, error: Exception) -> Problem | None:
    """The problem with the connection, or with a Hub that answers 5xx; None when it answered no."""
    from huggingface_hub import is_offline_mode

    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", 500)
    if not isinstance(cause, lost_connection()) or status < 500:
        return None
    if is_offline_mode():
        what = f"HF_HUB_OFFLINE is set, and {name} cannot be found in the local cache without the Hub."
        mend = "unset HF_HUB_OFFLINE, or name the dataset by its Hub id: hf:// paths need the Hub."
        return Problem("hub-offline", name, what, mend)
    return explain(cause, Repo(name, "dataset"))


def _pick_split(loaded: Dataset | DatasetDict, split: str | None, name: str) -> Dataset:
    return loaded if isinstance(loaded, Dataset) else loaded[split_of(list(loaded), split, name)]


def split_of(names: list[Any], split: str | None, dataset: str) -> str:
    """The split to take: the one asked for, the only one, or train."""
    there = [str(name) for name in names]
    if split is None and len(there) == 1:
        return there[0]
    if (split or "train") not in there:
        raise DataError(
            Problem(
                "split-unknown",
                dataset,
                f"There is no split {split or 'train'!r}; the dataset has {', '.join(map(repr, there))}.",
                "name one of these splits.",
            )
        )
    return split or "train"


def root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    if "corresponds to no data" in text:
        return "it has no rows"
    if isinstance(error, CastError):
        return "its files have different columns or types"
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
