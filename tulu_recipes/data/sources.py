"""Rows by name: a Hub dataset, a local file or a local folder; every failure says which name and what to do."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError

from tulu_recipes.data.rows import check_columns, row_fault
from tulu_recipes.errors import DataError, Problem

FILE_TYPES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
SHOWN_LINES = 10
RowFault = Callable[[dict[str, Any]], str | None]


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
        return _load_file(path, row_fault)
    if name.startswith("hf://") and Path(name).suffix:
        return _load_named(_builder_of(name), None, "train", None, data_files=name)
    if path.is_dir():
        _refuse_unfinished(path)
        if any((path / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json")):
            return LoadedRows(_pick_split(load_from_disk(str(path)), split, name), [])
    return _load_named(str(path) if path.is_dir() else name, config, split, revision)


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


def _builder_of(path: Path | str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in FILE_TYPES:
        return FILE_TYPES[suffix]
    raise DataError(
        Problem(
            "file-type-unknown",
            str(path),
            f"Files of type {suffix or '(none)'} are not read.",
            f"convert it to one of {', '.join(FILE_TYPES)}.",
        )
    )


def _load_file(path: Path, row_fault: RowFault) -> LoadedRows:
    builder = _builder_of(path)
    if path.stat().st_size == 0:
        raise DataError(Problem("file-unreadable", str(path), "The file is empty.", "write at least one row into it."))
    try:
        if builder == "json":
            _check_utf8(path)
        return _prepare(builder, None, "train", None, data_files=str(path))
    except (DatasetGenerationError, UnicodeDecodeError, ValueError) as error:
        found = "; ".join(_faulty_lines(path, row_fault)) if builder == "json" else ""
        raise DataError(
            Problem(
                "file-unreadable",
                str(path),
                f"The file cannot be read as {builder}: {found or _root_cause(error)}.",
                "mend or remove these rows; every row needs the same columns and types.",
            )
        ) from error


def _check_utf8(path: Path) -> None:
    """Arrow reads other encodings without a word, and fails on the first access to the row."""
    with path.open(encoding="utf-8") as file:
        while file.read(1 << 20):
            pass


def _faulty_lines(path: Path, row_fault: RowFault) -> Iterator[str]:
    """The first lines of a JSONL file that are no rows, each with what is wrong."""
    shown = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            fault = _line_fault(line, row_fault)
            if fault:
                yield f"line {number}: {fault}"
                shown += 1
            if shown == SHOWN_LINES:
                return


def _line_fault(line: bytes, row_fault: RowFault) -> str | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at column {error.colno})" if line.strip() else "empty line"
    return row_fault(row) if isinstance(row, dict) else "not an object"


def _load_named(
    name: str, config: str | None, split: str | None, revision: str | None, *, data_files: str | None = None
) -> LoadedRows:
    with _explained(data_files or name):
        return _prepare(name, config, split, revision, data_files=data_files)


def _prepare(
    name: str, config: str | None, split: str | None, revision: str | None, *, data_files: str | None = None
) -> LoadedRows:
    """Download and convert once, then read from the cache. An unknown split is refused before the download."""
    builder = load_dataset_builder(name, name=config, revision=revision, data_files=data_files)
    files: Mapping[str, Sequence[Any]] = builder.config.data_files or {}
    chosen = _split_of(list(files), split, data_files or name) if files else None
    builder.download_and_prepare()
    rows = builder.as_dataset(split=chosen) if chosen else _pick_split(builder.as_dataset(), split, name)
    return LoadedRows(rows, [str(file) for file in files.get(chosen, ())] if chosen else [])


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What `datasets` and the Hub raise about a dataset, as a DataError."""
    try:
        yield
    except (DatasetNotFoundError, FileNotFoundError, HfHubHTTPError) as error:
        raise DataError(
            Problem(
                "dataset-not-found",
                name,
                f"No such dataset or no right to read it: {_root_cause(error)}.",
                "check the name and revision, accept the terms of a gated dataset, or log in with `hf auth login`.",
            )
        ) from error
    except (DatasetGenerationError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            Problem(
                "dataset-unreadable",
                name,
                f"The dataset cannot be read: {_root_cause(error)}.",
                "name an existing configuration (dataset_config) or another revision.",
            )
        ) from error


def _pick_split(loaded: Dataset | DatasetDict, split: str | None, name: str) -> Dataset:
    return loaded if isinstance(loaded, Dataset) else loaded[_split_of(list(loaded), split, name)]


def _split_of(names: list[Any], split: str | None, dataset: str) -> str:
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


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
