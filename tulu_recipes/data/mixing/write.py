"""Third pass, one task a shard: gather the chosen rows in their order and write them as parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tulu_recipes.data.mixing.convert import read_arrow
from tulu_recipes.data.mixing.job import load_job
from tulu_recipes.run import atomic_file

ROW_GROUP_ROWS = 1000


def shard_count(folder: Path) -> int:
    return len(np.load(folder / "selection" / "bounds.npy")) - 1


def shard_name(number: int, count: int) -> str:
    return f"train-{number:05}-of-{count:05}.parquet"


def write_shard(folder: Path, number: int) -> int:
    """Write one shard, unless it is there; returns its rows."""
    bounds = np.load(folder / "selection" / "bounds.npy")
    start, stop = int(bounds[number]), int(bounds[number + 1])
    done = folder / "shards" / shard_name(number, len(bounds) - 1)
    if not done.is_file():
        done.parent.mkdir(exist_ok=True)
        with atomic_file(done) as writing:
            _write_parquet(writing, _gather(folder, start, stop))
    return stop - start


def _gather(folder: Path, start: int, stop: int) -> pa.Table:
    """Rows start..stop of the finished mix. A part is opened for the rows it gives, so memory holds one shard."""
    names = [part.name for part in load_job(folder).parts]
    parts = np.load(folder / "selection" / "part.npy", mmap_mode="r")[start:stop]
    rows = np.load(folder / "selection" / "row.npy", mmap_mode="r")[start:stop]
    tables, places = [], []
    for part in np.unique(parts):
        here = np.flatnonzero(parts == part)
        wanted = rows[here]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        near = read_arrow(folder / "parts" / names[part] / "rows.arrow").slice(low, high - low)
        tables.append(near.combine_chunks().take(pa.array(wanted - low)))
        places.append(here)
    order = np.empty(stop - start, dtype=np.int64)
    order[np.concatenate(places)] = np.arange(stop - start)
    return pa.concat_tables(tables).combine_chunks().take(pa.array(order))


def _write_parquet(path: Path, table: pa.Table) -> None:
    """Everything that shapes the bytes is written out here; content-defined pages let the Hub store changes alone."""
    pq.write_table(
        table,
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="1.0",
        write_statistics=True,
        write_page_index=True,
        use_content_defined_chunking=True,
    )
