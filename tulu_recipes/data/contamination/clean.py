"""One dataset or one mix: what is compared, the verdict, and the folder that is left behind."""

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from tulu_recipes.data.contamination.decide import Decision, decide
from tulu_recipes.data.contamination.evals_file import EvalsFile
from tulu_recipes.data.contamination.items import LoadedEvaluations
from tulu_recipes.data.contamination.report import pick_samples, render_markdown, settings_of, show_sample
from tulu_recipes.data.contamination.scan import by_source, scan
from tulu_recipes.data.contamination.texts import holds_turns, text_columns, user_texts
from tulu_recipes.data.contamination.tokens import Ints
from tulu_recipes.data.layouts import recognise
from tulu_recipes.data.mixing.mix_file import Mix, MixSource, load_mix
from tulu_recipes.data.mixing.where import positions_where
from tulu_recipes.data.sources import load_dataset_rows
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import naming_full_disk, write_json, write_text

COMMAND = "tulu_recipes.decontaminate"
SHARD_ROWS = 50_000
BATCH_ROWS = 5_000
# of the layouts in data.layouts, those that hold what users say
USER_COLUMNS = ("messages", "conversations", "chosen", "prompt", "instruction", "input", "question")


@dataclass(frozen=True)
class Target:
    """Rows that are compared together. groups: sources in them, each with its sorted row numbers."""

    name: str
    rows: Dataset
    columns: tuple[str, ...]
    groups: dict[str, Ints]


@dataclass(frozen=True)
class Verdict:
    """matches, decision: by source; row numbers count within the source."""

    matches: dict[str, pa.Table]
    decision: Decision


def open_targets(
    name: str, *, config: str | None, split: str | None, revision: str | None, columns: Sequence[str]
) -> list[Target]:
    """The sources of a mix file, or one dataset; a built mix is judged by its `source` column.

    Raises:
        DataError: every source that cannot be read or has no text to compare.
    """
    if Path(name).suffix not in (".yaml", ".yml"):
        return [_target(name, columns, config=config, split=split, revision=revision)]
    mix = load_mix(name)
    targets: list[Target] = []
    problems: list[Problem] = []
    for source in mix.sources:
        try:
            rows, chosen = _source_rows(mix, source, columns)
        except DataError as error:
            problems += error.problems
            continue
        key = _unused(source.title, {t.name for t in targets})
        targets.append(Target(key, rows, chosen, {key: np.arange(len(rows))}))
    if problems:
        raise DataError(problems)
    return targets


def _source_rows(mix: Mix, source: MixSource, columns: Sequence[str]) -> tuple[Dataset, tuple[str, ...]]:
    """The rows that a mix takes its source from, as they are there, and the columns with what users say."""
    rows = load_dataset_rows(source.name, config=source.config, split=source.split, revision=source.revision)
    schema = rows.features.arrow_schema
    if not columns:
        layout = recognise(rows.features, mix.target, source.place, layout=source.layout, columns=source.columns)
        named = [layout.columns[column] for column in USER_COLUMNS if column in layout.columns]
        columns = [column for column in named if holds_turns(schema, column)] or named
    if source.rows_where:
        rows = rows.select(positions_where(rows, range(len(rows)), source.rows_where))
    return rows, text_columns(schema, source.place, columns)


def _target(
    name: str, columns: Sequence[str], *, config: str | None, split: str | None, revision: str | None
) -> Target:
    rows = load_dataset_rows(name, config=config, split=split, revision=revision)
    chosen = text_columns(rows.features.arrow_schema, name, columns)
    groups = {name: np.arange(len(rows))}
    if (Path(name) / "mix.lock.json").is_file() and "source" in rows.column_names and len(rows):
        labels = rows.select_columns(["source"]).with_format("arrow")[:]["source"].to_numpy()
        names, codes = np.unique(labels.astype(str), return_inverse=True)
        groups = {str(label): np.flatnonzero(codes == code) for code, label in enumerate(names)}
    return Target(name, rows, chosen, groups)


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    key = name
    while key in taken:
        key, number = f"{name} ({number})", number + 1
    return key


def judge(
    targets: Sequence[Target],
    evals: EvalsFile,
    compared: Mapping[str, int],
    index_folder: Path,
    *,
    workers: int,
    advance: Callable[[int], object],
) -> Verdict:
    """Compare every row with every item, then apply the rules. `compared`: `EvalIndex.compared`."""
    matches: dict[str, pa.Table] = {}
    for target in targets:
        found = scan(target.rows, target.columns, index_folder, workers=workers, advance=advance)
        matches |= by_source(found, target.groups)
    rows = {key: len(members) for target in targets for key, members in target.groups.items()}
    return Verdict(matches, decide(matches, evals, compared, rows))


def check_output_dir(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier answer of this command.

    Raises:
        DataError: it is a file, or a folder with other things in it.
    """
    about = folder / "contamination.json"
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if folder.is_dir() and about.is_file() and f'"command": "{COMMAND}"' in about.read_text(encoding="utf-8")[:200]:
        return
    raise DataError(
        Problem(
            "output-foreign",
            str(folder),
            "There is something else than an earlier answer of decontaminate, and it would be replaced.",
            "name a new or empty --output_dir.",
        )
    )


def write_output(
    folder: Path,
    targets: Sequence[Target],
    evals: EvalsFile,
    loaded: LoadedEvaluations,
    compared: Mapping[str, int],
    verdict: Verdict,
) -> None:
    """Write the report and the remaining rows beside `folder`, then put them in its place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with naming_full_disk(folder):
            report = build_report(targets, evals, loaded, compared, verdict)
            write_json(new / "contamination.json", report)
            write_text(new / "contamination.md", render_markdown(report))
            for number, target in enumerate(targets):
                place = new / "data" if len(targets) == 1 else new / "data" / f"{number:02d}-{_plain(target.name)}"
                _write_rows(place, target.rows, _kept(target, verdict.decision))
        check_output_dir(folder)  # somebody may have written there in the meantime
        new.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            folder.replace(old)
            new.replace(folder)
            shutil.rmtree(old)
        else:
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def build_report(
    targets: Sequence[Target],
    evals: EvalsFile,
    loaded: LoadedEvaluations,
    compared: Mapping[str, int],
    verdict: Verdict,
) -> dict[str, Any]:
    """contamination.json: settings, table, removed rows of each source (with ids, where there are any), samples."""
    sources: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    for target in targets:
        for key, members in target.groups.items():
            gone = verdict.decision.removed[key]
            dropped = key in verdict.decision.dropped_sources
            about = {"rows": len(members), "dropped": dropped, "rows_removed": len(gone)}
            sources[key] = about | ({} if dropped else {"removed_rows": gone.tolist()} | _ids(target, members[gone]))
            samples += _samples(target, key, evals, loaded, verdict.matches[key])
    settings = settings_of(evals, loaded, compared)
    return {
        "command": COMMAND,
        "settings": settings,
        "table": verdict.decision.table,
        "sources": sources,
        "samples": samples,
    }


def _ids(target: Target, rows: Ints) -> dict[str, Any]:
    if "id" not in target.rows.column_names:
        return {}
    return {"removed_ids": list(target.rows.select_columns(["id"]).select(rows)["id"])}


def _samples(
    target: Target, key: str, evals: EvalsFile, loaded: LoadedEvaluations, matches: pa.Table
) -> list[dict[str, Any]]:
    shown = []
    for number, evaluation in enumerate(evals.evaluations):
        for sample in pick_samples(matches, number):
            row = int(target.groups[key][sample["row"]])
            turns = user_texts(target.rows.with_format("arrow")[row : row + 1], target.columns)[0].as_py()
            item = loaded.items[number].items[sample["item"]]
            sample = {"source": key, "evaluation": evaluation.name} | sample
            shown.append(show_sample(sample, item, turns, n=evals.ngram_size, tokenization=evaluation.tokenization))
    return shown


def _kept(target: Target, decision: Decision) -> Ints:
    kept = np.ones(len(target.rows), bool)
    for key, members in target.groups.items():
        kept[members[decision.removed[key]]] = False
    return np.flatnonzero(kept)


def _write_rows(folder: Path, rows: Dataset, kept: Ints) -> None:
    """The kept rows in the dataset's own columns; a dataset of which nothing is kept is one file without rows."""
    folder.mkdir(parents=True)
    shards = max(-(-len(kept) // SHARD_ROWS), 1)
    source = rows.with_format("arrow")
    schema = rows.features.arrow_schema
    for shard in range(shards):
        mine = kept[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS]
        with pq.ParquetWriter(folder / f"train-{shard:05d}-of-{shards:05d}.parquet", schema) as writer:
            for start in range(0, len(mine), BATCH_ROWS):
                writer.write_table(source[mine[start : start + BATCH_ROWS]].cast(schema))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "source"
