"""Second pass, on keys alone: duplicates, contamination and amounts decide which rows are in, and in what order.

selection/part.npy, row.npy   where each finished row lies, in the finished order
selection/bounds.npy          first row of each shard, and the end
selection/summary.json        per source steps and totals, the contamination table, statistics, content hash
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.filters import GLOBAL_FILTERS
from tulu_recipes.data.mixing.distinct import keep_distinct
from tulu_recipes.data.mixing.job import Job, atomic_folder, load_job
from tulu_recipes.data.mixing.keys import copies_for, order_of_copies
from tulu_recipes.data.mixing.mix_file import FilterCall
from tulu_recipes.data.mixing.overlaps import drop_overlaps
from tulu_recipes.data.mixing.pool import Pool, load_pool
from tulu_recipes.data.statistics import mix_statistics
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import write_json

SHARD_BYTES = 256 << 20  # of text; a larger shard is hard to push and to view


def select_rows(folder: Path) -> None:
    """Decide on every row of a job whose parts are all converted.

    Raises:
        DataError: a source has too many broken rows, too few rows for its amount, or none left.
    """
    job = load_job(folder)
    if (folder / "selection").is_dir():
        return
    pool = load_pool(folder, job)
    _check_broken(job, pool)
    _drop_duplicates(job, pool)
    contamination = drop_overlaps(folder, job, pool)
    _check_left(job, pool)
    chosen, copy = _take_amounts(job, pool)
    order = _final_order(job, pool, chosen, copy)
    chosen = chosen[order]
    with atomic_folder(folder / "selection") as writing:
        np.save(writing / "part.npy", pool["part"][chosen])
        np.save(writing / "row.npy", pool["row"][chosen])
        np.save(writing / "bounds.npy", _shard_bounds(pool["bytes"][chosen], job.mix.shard_rows))
        if contamination is not None:
            write_json(writing / "contamination.json", contamination)
        table = None if contamination is None else contamination["table"]
        write_json(writing / "summary.json", _summary(job, pool, chosen) | {"contamination": table})


def _check_broken(job: Job, pool: Pool) -> None:
    problems = []
    for source in job.sources:
        step = next(step for step in pool.steps[source.number] if step["step"] == "broken")
        broken = step["rows_in"] - step["rows_out"]
        if broken > job.mix.max_broken_fraction * step["rows_in"]:
            reasons = sorted(step["reasons"].items(), key=lambda item: -item[1])[:5]
            problems.append(
                Problem(
                    "mix-broken-rows",
                    source.source.place,
                    f"{broken:,} of {step['rows_in']:,} rows of {source.title} are broken "
                    f"({', '.join(f'{reason}: {count:,}' for reason, count in reasons)}); "
                    f"max_broken_fraction is {job.mix.max_broken_fraction:g}.",
                    "mend the rows, name another layout, or raise max_broken_fraction to leave them out.",
                )
            )
    if problems:
        raise DataError(problems)


def _drop_duplicates(job: Job, pool: Pool) -> None:
    # of equal rows the one that stays does not depend on where it stood: first by source, then by content
    rank = np.empty(len(pool.alive), dtype=np.int64)
    rank[np.lexsort((pool["position"], pool["digest"][:, 1], pool["digest"][:, 0], pool["source"]))] = np.arange(
        len(pool.alive)
    )
    everyone = [source.number for source in job.sources]
    for source in job.sources:
        own = job.filters_of(source)[: len(source.source.filters)]
        for name, call in own:
            if call.name in GLOBAL_FILTERS:
                _keep_distinct(pool, call, {source.number: name}, rank, [[source.number]])
    for index, call in enumerate(job.mix.filters):
        if call.name in GLOBAL_FILTERS:
            names = {s.number: job.filters_of(s)[len(s.source.filters) + index][0] for s in job.sources}
            scopes = [everyone] if call.params.get("scope", "mix") == "mix" else [[number] for number in everyone]
            _keep_distinct(pool, call, names, rank, scopes)


def _keep_distinct(
    pool: Pool, call: FilterCall, names: dict[int, str], rank: npt.NDArray[np.int64], scopes: list[list[int]]
) -> None:
    """Drop duplicates within each scope, a list of sources; names: the step's name for each source."""
    gone = np.zeros(len(pool.alive), dtype=np.bool_)
    for scope in scopes:
        rows = np.concatenate([pool.rows_of(source) for source in scope])
        keys = np.concatenate([pool.duplicates[source][names[source]] for source in scope])
        living = pool.alive[rows]
        kept = keep_distinct(call.name, keys[living], rank[rows[living]])
        gone[rows[living][~kept]] = True
    for source in names:
        only = gone & (pool["source"] == source)
        pool.drop(names[source], only, [source], call.name.replace("_", " ").rstrip("s"))


def _check_left(job: Job, pool: Pool) -> None:
    """Every source must have rows left: an empty one is a mistake in its filters, not a smaller mix."""
    problems = []
    for source in job.sources:
        steps = pool.steps[source.number]
        if pool.alive[pool.rows_of(source.number)].any():
            continue
        if len(source.rows) == 0:
            what, mend = f"{source.title} has no rows.", "name another split, or remove the source."
        else:
            last = next(step for step in steps if step["rows_out"] == 0)
            what = f"No row of {source.title} is left: {last['step']} dropped the last {last['rows_in']:,}."
            mend = "loosen that step, or remove the source."
        problems.append(Problem("mix-source-empty", source.source.place, what, mend))
    if problems:
        raise DataError(problems)


def _take_amounts(job: Job, pool: Pool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, copy): an entry for each time that a row is taken."""
    copies = np.zeros(len(pool.alive), dtype=np.int64)
    problems = []
    for source in job.sources:
        rows = pool.rows_of(source.number)
        rows = rows[pool.alive[rows]]
        amount: dict[str, float] = dict(source.source.amount)
        if job.mix.limit is not None:
            asked = amount.get("rows", job.mix.limit)
            amount = {"rows": min(asked, job.mix.limit, len(rows))}
        try:
            copies[rows] = copies_for(pool["sample"][rows], amount)
        except ValueError:
            problems.append(_too_few(source.source.place, source.title, int(amount["rows"]), len(rows), source.rows))
            continue
        taken = int(copies[rows].sum())
        if taken == 0:
            what = f"{source.title}: {_say(amount)} of {len(rows):,} rows is none."
            problems.append(Problem("mix-amount", source.source.place, what, "take more, or remove the source."))
        pool.steps[source.number].append({"step": "amount", "rows_in": len(rows), "rows_out": taken, "reasons": {}})
    if problems:
        raise DataError(problems)
    chosen = np.repeat(np.arange(len(copies)), copies)
    first = np.cumsum(copies) - copies
    return chosen, np.arange(len(chosen)) - first[chosen]


def _too_few(place: str, title: str, wanted: int, left: int, rows: Any) -> Problem:
    lost = f", after {len(rows) - left:,} were dropped by the steps before" if left < len(rows) else ""
    what = f"rows: {wanted:,} is more than the {left:,} rows of {title} that there are{lost}."
    return Problem("mix-amount", place, what, f"write  rows: {left}  or less, or use `repeat` to take rows twice.")


def _say(amount: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in amount.items())


def _final_order(
    job: Job, pool: Pool, chosen: npt.NDArray[np.int64], copy: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    source, keys = pool["source"][chosen], pool["order"][chosen]
    given = job.mix.order == "as_given"
    order = np.lexsort((keys, copy, source) if given else (copy, source, order_of_copies(keys, copy)))
    return np.asarray(order, dtype=np.int64)


def _shard_bounds(row_bytes: npt.NDArray[np.int64], shard_rows: int) -> npt.NDArray[np.int64]:
    """First row of each shard and the end: at most `shard_rows` rows, and SHARD_BYTES unless one row is larger."""
    ends = np.cumsum(row_bytes)
    bounds = [0]
    while bounds[-1] < len(row_bytes):
        start = bounds[-1]
        before = ends[start - 1] if start else 0
        by_bytes = int(np.searchsorted(ends, before + SHARD_BYTES, side="right"))
        bounds.append(min(start + shard_rows, max(by_bytes, start + 1), len(row_bytes)))
    return np.array(bounds, dtype=np.int64)


def _summary(job: Job, pool: Pool, chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
    counted = job.tokenizer_file is not None
    tokens = pool["tokens"][chosen] if counted else None
    return {
        "rows": len(chosen),
        "tokens": int(tokens.sum()) if tokens is not None else None,
        "characters": int(pool["characters"][chosen].sum()),
        "content_sha256": _content_hash(pool, chosen),
        "sources": list(_source_totals(job, pool, chosen)),
        "statistics": mix_statistics(
            pool["label"][chosen], pool.labels, tokens, pool["characters"][chosen], pool["turns"][chosen]
        ),
    }


def _source_totals(job: Job, pool: Pool, chosen: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    for source in job.sources:
        own = chosen[pool["source"][chosen] == source.number]
        labels = Counter(pool["label"][own].tolist())
        yield {
            "steps": pool.steps[source.number],
            "amount": source.source.amount,
            "rows": len(own),
            "distinct_rows": len(np.unique(own)),
            "tokens": int(pool["tokens"][own].sum()) if job.tokenizer_file else None,
            "characters": int(pool["characters"][own].sum()),
            "labels": {pool.labels[label]: rows for label, rows in sorted(labels.items())},
        }


def _content_hash(pool: Pool, chosen: npt.NDArray[np.int64]) -> str:
    """Of every row's content and source, in the finished order; whatever the parquet files look like."""
    digest = hashlib.sha256(pool["digest"][chosen].astype("<u8").tobytes())
    digest.update(json.dumps(pool.labels).encode())
    digest.update(pool["label"][chosen].astype("<i8").tobytes())
    return digest.hexdigest()
