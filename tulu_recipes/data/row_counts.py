"""How many rows files hold, and the first of them, without reading the others.

Parquet has its number in the footer, Arrow at its batches; the lines of local files are counted.
"""

import csv
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem

READERS = 8  # files asked at once: each Hub file costs two short requests
MOST_FOOTERS = 64  # beyond, the number in the dataset's card is good enough


@dataclass(frozen=True)
class RowCount:
    """rows: None when only reading would tell. how: where the number comes from, for people."""

    rows: int | None
    exact: bool
    how: str


def count_rows(
    files: Sequence[str], *, stated: int | None, sample: Sequence[Mapping[str, Any]], complete: bool
) -> RowCount:
    """Rows of a split.

    Args:
        files: local paths or hf:// addresses.
        stated: rows by the dataset's card.
        sample: the first rows.
        complete: the sample is all there is.
    Raises:
        OSError, ValueError: a file is missing, cut or of another format than its name says.
    """
    suffixes = {PurePosixPath(file).suffix.lower() for file in files}
    if complete:
        return RowCount(len(sample), True, "all rows read")
    if suffixes == {".parquet"} and (len(files) <= MOST_FOOTERS or stated is None):
        return RowCount(_add(_parquet_rows, files), True, "Parquet footers")
    if suffixes == {".arrow"} and not _remote(files):
        return RowCount(_add(_arrow_rows, files), True, "Arrow batches")
    if suffixes == {".jsonl"} and not _remote(files):
        return RowCount(_add(_lines, files), True, "lines")
    if suffixes == {".csv"} and not _remote(files):
        return RowCount(_add(_csv_rows, files), True, "records")
    if stated is not None:
        return RowCount(stated, False, "stated by its card")
    if suffixes <= {".jsonl", ".json"} and sample:
        length = sum(len(json.dumps(row, ensure_ascii=False, default=str).encode()) + 1 for row in sample)
        return RowCount(
            round(_add(_bytes, files) * len(sample) / length), False, "reckoned from the size of its files"
        )
    kinds = ", ".join(sorted(suffix or "no suffix" for suffix in suffixes))
    return RowCount(None, False, f"rows of its files ({kinds}) are counted only when they are read")


def _remote(files: Sequence[str]) -> bool:
    return any("://" in file for file in files)


def _add(count: Any, files: Sequence[str]) -> int:
    with ThreadPoolExecutor(READERS) as pool:
        return sum(pool.map(count, files))


def first_parquet_rows(files: Sequence[str], batch_size: int) -> Generator[dict[str, Any], None, None]:
    """Rows of Parquet files in order. `datasets` would fetch many row groups ahead for the first row."""
    for file in files:
        # With pre_buffer, all row groups would be fetched at once.
        with _opened(file) as opened, pq.ParquetFile(opened, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size):
                yield from batch.to_pylist()


def first_csv_rows(files: Sequence[str]) -> Generator[dict[str, Any], None, None]:
    """Rows of local CSV files, every value text. `datasets` would leave the file open."""
    for file in files:
        with Path(file).open(encoding="utf-8", newline="") as opened:
            yield from csv.DictReader(opened)


def _opened(file: str) -> Any:
    return HfFileSystem().open(file, "rb") if _remote([file]) else Path(file).open("rb")


def _parquet_rows(file: str) -> int:
    with _opened(file) as opened:
        return int(pq.read_metadata(opened).num_rows)


def _arrow_rows(file: str) -> int:
    """Both of Arrow's containers: datasets writes streams, others write files."""
    with pa.memory_map(file) as mapped:
        try:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(mapped))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(mapped)
            return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))


def _lines(file: str) -> int:
    with Path(file).open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _csv_rows(file: str) -> int:
    return sum(1 for _ in first_csv_rows([file]))


def _bytes(file: str) -> int:
    return int(HfFileSystem().size(file)) if _remote([file]) else Path(file).stat().st_size
