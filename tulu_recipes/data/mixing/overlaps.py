"""Decontamination as a step of selection: each evaluation's rule applied to the rows that are left."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tulu_recipes.data.contamination.decide import Decision, decide
from tulu_recipes.data.contamination.evals_file import EvalsFile
from tulu_recipes.data.contamination.index import EvalIndex
from tulu_recipes.data.layouts import user_texts
from tulu_recipes.data.mixing.convert import read_arrow
from tulu_recipes.data.mixing.evaluations import EVALS, FoundInSource, contamination_report
from tulu_recipes.data.mixing.job import Job, ResolvedSource
from tulu_recipes.data.mixing.pool import Pool


def drop_overlaps(folder: Path, job: Job, pool: Pool) -> dict[str, Any] | None:
    """Take contaminated rows out of the pool; contamination.json as a dict, None when the mix does not ask for it."""
    if not job.evaluations:
        return None
    evals: EvalsFile = pickle.loads((folder / "evaluations" / EVALS).read_bytes())
    index = EvalIndex.load(folder / "evaluations")
    rows_of = {str(source.number): pool.rows_of(source.number) for source in job.sources}
    living = {key: pool.alive[rows] for key, rows in rows_of.items()}
    matches = {str(source.number): _living_matches(folder, job, source, pool) for source in job.sources}
    decision = decide(matches, evals, index.compared, {key: int(rows.sum()) for key, rows in living.items()})
    gone = np.zeros(len(pool.alive), dtype=np.bool_)
    for key, rows in rows_of.items():
        gone[rows if key in decision.dropped_sources else rows[decision.removed[key]]] = True
    found = [_found(folder, job, source, pool, matches, decision, gone) for source in job.sources]
    pool.drop("decontaminate", gone, [source.number for source in job.sources], "overlaps an evaluation")
    titles = {str(source.number): source.title for source in job.sources}
    table = [line | {"source": titles[line["source"]]} for line in decision.table]
    return contamination_report(folder / "evaluations", evals, table, found)


def _living_matches(folder: Path, job: Job, source: ResolvedSource, pool: Pool) -> pa.Table:
    """Matches of the source's rows that are still in; `row` counts all converted rows of the source."""
    rows = pool.rows_of(source.number)
    tables, start = [], 0
    for number, part in enumerate(job.parts):
        if part.source != source.number:
            continue
        table = read_arrow(folder / "parts" / part.name / "matches.arrow")
        tables.append(table.set_column(0, "row", pc.add(table.column("row"), start)))
        start += int((pool["part"][rows] == number).sum())
    joined = pa.concat_tables(tables).combine_chunks()
    return joined.filter(pa.array(pool.alive[rows][joined.column("row").to_numpy()]))


def _found(
    folder: Path,
    job: Job,
    source: ResolvedSource,
    pool: Pool,
    matches: dict[str, pa.Table],
    decision: Decision,
    gone: npt.NDArray[np.bool_],
) -> FoundInSource:
    rows, key = pool.rows_of(source.number), str(source.number)
    leaving = rows[gone[rows] & pool.alive[rows]]

    def turns_of(row: int) -> list[str]:
        part, place = pool["part"][rows[row]], int(pool["row"][rows[row]])
        table = read_arrow(folder / "parts" / job.parts[part].name / "rows.arrow")
        return user_texts(table.slice(place, 1).to_pylist()[0], job.mix.target)

    return FoundInSource(
        title=source.title,
        rows=int(pool.alive[rows].sum()),
        dropped=key in decision.dropped_sources,
        removed=sorted(pool["position"][leaving].tolist()),
        matches=matches[key],
        turns_of=turns_of,
        position_of=lambda row: int(pool["position"][rows[row]]),
    )
