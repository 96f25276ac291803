"""First pass, one task a part: rows of any layout become canonical rows with the columns that selection needs.

A part's folder holds
    rows.arrow       canonical rows in the order of their order keys
    keys.npz         per row: digest, order, sample, position, tokens (-1: not counted), characters, turns, bytes,
                     label, and the keys of each duplicate filter
    matches.arrow    overlaps with evaluations (row, evaluation, item, score), when the mix decontaminates
    counts.json      per step: rows in, rows out, reasons; and the labels that `label` counts into
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.contamination.match import find_matches
from tulu_recipes.data.filters import GLOBAL_FILTERS, RowFilter, make_filter
from tulu_recipes.data.layouts import BrokenRow, turns, user_texts
from tulu_recipes.data.mixing.columns import json_columns
from tulu_recipes.data.mixing.distinct import duplicate_keys
from tulu_recipes.data.mixing.job import Job, Part, ResolvedSource, atomic_folder, load_job
from tulu_recipes.data.mixing.keys import content_digest, digest_halves, keyed
from tulu_recipes.data.mixing.tokens import load_counter
from tulu_recipes.data.mixing.where import positions_where
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import write_json

SLICE_ROWS = 1000
Step = tuple[str, RowFilter]


@dataclass
class Counts:
    """Rows in and out of each step of a part, and why rows went."""

    steps: list[str]
    rows_in: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def drop(self, step: str, reason: str, rows: int = 1) -> None:
        if rows:
            self.reasons.setdefault(step, Counter())[reason] += rows

    def as_dict(self) -> list[dict[str, Any]]:
        return [
            {
                "step": step,
                "rows_in": self.rows_in[step],
                "rows_out": self.rows_in[step] - sum(self.reasons.get(step, Counter()).values()),
                "reasons": dict(sorted(self.reasons.get(step, {}).items())),
            }
            for step in self.steps
        ]


def convert_part(folder: Path, part: Part) -> int:
    """Do one part, unless it is done already; returns its rows before filters."""
    done = folder / "parts" / part.name
    if not done.is_dir():
        job = load_job(folder)
        source = job.sources[part.source]
        with atomic_folder(done) as writing:
            _convert(job, source, part, writing, _tools(folder, part.source, job.identity))
    return part.stop - part.start


@dataclass(frozen=True)
class _Tools:
    """What a source's rows are converted with, made once a process."""

    row_filters: list[Step]
    tokenizer: Tokenizer | None
    index: EvalIndex | None


@lru_cache(maxsize=4)
def _tools(folder: Path, number: int, identity: str) -> _Tools:
    job = load_job(folder)
    tokenizer = load_counter(job.tokenizer_file) if job.tokenizer_file else None
    filters = [
        (name, make_filter(call.name, call.params, target=job.mix.target, tokenizer=tokenizer))
        for name, call in job.filters_of(job.sources[number])
        if call.name not in GLOBAL_FILTERS
    ]
    return _Tools(filters, tokenizer, EvalIndex.load(folder / "evaluations") if job.evaluations else None)


def _convert(job: Job, source: ResolvedSource, part: Part, writing: Path, tools: _Tools) -> None:
    where = ["where"] if source.source.rows_where else []
    counts = Counts([*where, "broken", *(name for name, _ in tools.row_filters)])
    tables, columns, texts = [], [], []
    for rows, positions in _slices(job, source, part, tools, counts):
        tables.append(pa.Table.from_pylist(rows, schema=job.schema))
        columns.append(_row_columns(job, source, rows, positions, tools.tokenizer))
        if tools.index is not None:
            texts += [user_texts(row, job.mix.target) for row in rows]
    table, keys = pa.concat_tables(tables), _keys(job, source, columns)
    order = np.lexsort((keys["position"], keys["order"]))
    if tools.index is not None:
        _write_rows(writing / "matches.arrow", find_matches(tools.index, [texts[row] for row in order]))
    table = table.take(pa.array(order)) if len(order) else table
    keys = {name: values[order] for name, values in keys.items()}
    labels, keys["label"] = np.unique(table.column("source").to_numpy(), return_inverse=True)
    _write_rows(writing / "rows.arrow", table.combine_chunks())
    np.savez(writing / "keys.npz", **keys)  # type: ignore[arg-type]  # numpy's stub takes the arrays for a flag
    write_json(writing / "counts.json", {"steps": counts.as_dict(), "labels": labels.tolist()})


def _slices(
    job: Job, source: ResolvedSource, part: Part, tools: _Tools, counts: Counts
) -> Iterator[tuple[list[dict[str, Any]], list[int]]]:
    """Kept rows and their positions in the source, a thousand read at a time."""
    names = [name for name in job.schema.names if name != "source"]
    as_text = json_columns(source.rows) & set(source.source.keep_columns)
    for start in range(part.start, part.stop, SLICE_ROWS):
        here = range(start, min(start + SLICE_ROWS, part.stop))
        with _naming_other_encodings(source, here):
            wanted = _rows_where(source, here, counts)
            columns = source.rows[wanted]
        kept, positions = [], []
        for position, values in zip(wanted, zip(*columns.values(), strict=True), strict=True):
            raw = dict(zip(columns, values, strict=True))
            row = _one_row(source, raw, tools.row_filters, counts)
            if row is not None:
                row |= {name: json.dumps(raw[name], ensure_ascii=False) for name in as_text if raw[name] is not None}
                label = source.source.label or raw.get("source") or source.source.own_label
                kept.append({name: row.get(name) for name in names} | {"source": str(label)})
                positions.append(position)
        yield kept, positions


@contextmanager
def _naming_other_encodings(source: ResolvedSource, positions: range) -> Iterator[None]:
    """Arrow reads text that is not UTF-8 without a word, and fails on the first access to the row."""
    try:
        yield
    except UnicodeDecodeError as error:
        row = next(position for position in positions if not _is_utf8(source, position))
        what = f"Row {row + 1:,} of {source.title} is not UTF-8."
        mend = "write the file in UTF-8, or name another revision."
        raise DataError(Problem("file-unreadable", source.source.place, what, mend)) from error


def _is_utf8(source: ResolvedSource, position: int) -> bool:
    try:
        return source.rows[position] is not None
    except UnicodeDecodeError:
        return False


def _rows_where(source: ResolvedSource, positions: range, counts: Counts) -> range | list[int]:
    asked = source.source.rows_where
    wanted = positions_where(source.rows, positions, asked)
    if asked:
        counts.rows_in["where"] += len(positions)
        counts.drop("where", "another value", len(positions) - len(wanted))
    return wanted


def _one_row(
    source: ResolvedSource, raw: dict[str, Any], row_filters: list[Step], counts: Counts
) -> dict[str, Any] | None:
    """The converted row with the dataset's other columns beside it, or None when a step drops it."""
    counts.rows_in["broken"] += 1
    try:
        row = raw | source.layout.convert(raw)
    except BrokenRow as broken:
        counts.drop("broken", str(broken))
        return None
    for name, keep in row_filters:
        counts.rows_in[name] += 1
        reason = keep(row)
        if reason is not None:
            counts.drop(name, reason)
            return None
    return row


def _row_columns(
    job: Job, source: ResolvedSource, rows: list[dict[str, Any]], positions: list[int], tokenizer: Tokenizer | None
) -> dict[str, npt.NDArray[Any]]:
    """Numbers of each row that need its text."""
    target = job.mix.target
    spoken = [turns(row, target) for row in rows]
    # what is null here may be a column that only another source has
    said = [{key: value for key, value in row.items() if key != "source" and value is not None} for row in rows]
    return {
        "digest": digest_halves([content_digest(row) for row in said]),
        "position": np.array(positions, dtype=np.int64),
        "characters": np.array([sum(len(text) for _, text in turn) for turn in spoken], dtype=np.int64),
        "bytes": np.array(
            [sum(len(text.encode("utf-8", "replace")) for _, text in turn) for turn in spoken], np.int64
        ),
        "turns": np.array([len(turn) for turn in spoken], dtype=np.int64),
        "tokens": _token_counts(spoken, tokenizer),
    } | {
        f"duplicates:{name}": duplicate_keys(call.name, call.params, rows, target, job.mix.seed)
        for name, call in job.filters_of(source)
        if call.name in GLOBAL_FILTERS
    }


def _token_counts(spoken: list[list[tuple[str, str]]], tokenizer: Tokenizer | None) -> npt.NDArray[np.int64]:
    """Tokens of all contents of each row, without those a chat template adds; -1 without a tokenizer."""
    if tokenizer is None:
        return np.full(len(spoken), -1, dtype=np.int64)
    texts = [text for turn in spoken for _, text in turn]
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    ends = np.cumsum([0, *(len(turn) for turn in spoken)])
    running = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return np.asarray(running[ends[1:]] - running[ends[:-1]], dtype=np.int64)


def _keys(job: Job, source: ResolvedSource, columns: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    mix = job.mix
    keys = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    keys["sample"] = keyed(keys["digest"], "sample", mix.seed, source.source.name, source.source.config)
    shuffled = mix.order == "shuffled"
    keys["order"] = keyed(keys["digest"], "order", mix.seed) if shuffled else keys["position"].astype(np.uint64)
    return keys


def _write_rows(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=SLICE_ROWS)


def read_arrow(path: Path) -> pa.Table:
    """A table whose data stays on disk until it is touched."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def labels_of(counts: Mapping[str, Any]) -> list[str]:
    return [str(label) for label in counts["labels"]]
