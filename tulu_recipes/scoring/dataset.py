"""Scores for every row of a dataset: each process takes its share of the parts, and the same command goes on."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset, Value
from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tulu_recipes.data.conversion import BrokenRow
from tulu_recipes.data.layouts import Layout, recognise
from tulu_recipes.data.pairs import SIDES
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.scoring.folder import Faults, Part, ScoreFolder
from tulu_recipes.scoring.model import encode, score_tokens
from tulu_recipes.scoring.progress import ScoreProgress

PAIR_COLUMNS, ROW_COLUMNS = ["chosen_score", "rejected_score"], ["score"]
SHOWN = 10  # rows named in scores.json and in the card


@dataclass(frozen=True)
class ScoredRows:
    """A dataset, its layout, and the columns its scores go to."""

    rows: Dataset
    layout: Layout
    columns: list[str]

    def conversations(self, row: Mapping[str, Any]) -> list[list[dict[str, str]]]:
        """What is scored of a row, one for each column. Raises BrokenRow."""
        converted = self.layout.convert(row)
        found = [converted[side] for side in SIDES] if self.layout.target == "preference" else [converted["messages"]]
        if any(messages[-1]["role"] != "assistant" for messages in found):
            raise BrokenRow("it does not end with an assistant turn")
        return found


def rows_to_score(rows: Dataset, name: str) -> ScoredRows:
    """How the rows of a dataset are scored.

    Raises:
        DataError: no layout of pairs or of conversations fits, there are no rows, or the columns are taken.
    """
    pairs = any(set(columns) <= set(rows.features) for columns in (SIDES, ("instruction", "completions")))
    layout = recognise(rows.features, "preference" if pairs else "sft", name)
    columns = PAIR_COLUMNS if pairs else ROW_COLUMNS
    problems = []
    if len(rows) == 0:
        problems.append(Problem("no-rows", name, "The dataset has no rows.", "name another split or dataset."))
    if taken := [column for column in columns if column in rows.features]:
        what = f"The rows have {' and '.join(taken)} already; scoring would overwrite what is there."
        mend = "rename or remove the columns first, or score the dataset they were added to."
        problems.append(Problem("score-columns", name, what, mend))
    if problems:
        raise DataError(problems)
    # earlier scores say nothing against scoring again, also where they contradict the order of a pair
    read = {name: column for name, column in layout.columns.items() if not name.startswith("score_")}
    return ScoredRows(rows, replace(layout, columns=read), columns)


def content_digest(rows: Dataset) -> str:
    """A hash of all rows and columns, equal for equal content in whatever files it is."""
    digest = hashlib.blake2b(str(rows.features).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(batch_size=1000):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()


def score_parts(
    data: ScoredRows,
    folder: ScoreFolder,
    load: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    batch_size: int,
) -> None:
    """Score and write the parts of this process that are not there yet; returns when all processes have."""
    state = PartialState()
    missing = [part for part in folder.parts if not folder.is_done(part)]
    state.wait_for_everyone()  # so that all divide the same parts
    share = missing[state.process_index :: state.num_processes]
    total = sum(len(part.rows) for part in share)
    kept = sum(len(part.rows) for part in folder.parts) - sum(len(part.rows) for part in missing)
    with ScoreProgress(total, kept, shown=state.is_main_process, processes=state.num_processes) as progress:
        model = load() if share else None
        for part in share:
            assert model is not None
            _score_part(data, part, folder, model, tokenizer, max_length, batch_size, progress)
    state.wait_for_everyone()


def _score_part(
    data: ScoredRows,
    part: Part,
    folder: ScoreFolder,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    batch_size: int,
    progress: ScoreProgress,
) -> None:
    rows = data.rows.select(part.rows)
    tokens: dict[int, list[list[int]]] = {}  # row within the part → one conversation for each column
    faults: Faults = {}
    for i, row in enumerate(rows):
        try:
            found = [encode(tokenizer, messages) for messages in data.conversations(row)]
        except BrokenRow as broken:
            faults[part.rows[i]] = str(broken)
        except TemplateError as error:
            faults[part.rows[i]] = f"the chat template refuses it: {error}"
        else:
            if max_length is not None and max(map(len, found)) > max_length:
                faults[part.rows[i]] = f"longer than {max_length:,} tokens"
            else:
                tokens[i] = found
    progress.advance(len(rows) - len(tokens))
    width = len(data.columns)
    flat = [ids for found in tokens.values() for ids in found]
    scores = score_tokens(model, flat, batch_size=batch_size, advance=lambda n: progress.advance(n / width))
    columns: list[list[float | None]] = [[None] * len(rows) for _ in data.columns]
    for place, i in enumerate(tokens):
        own = scores[place * width : (place + 1) * width]
        if not all(map(isfinite, own)):
            faults[part.rows[i]] = "its score is no finite number"
            continue
        for column, score in zip(columns, own, strict=True):
            column[i] = score
    for name, column in zip(data.columns, columns, strict=True):
        rows = rows.add_column(name, column, feature=Value("float32"))
    folder.write(part, rows, faults)


def outcome_of(data: ScoredRows, folder: ScoreFolder) -> dict[str, Any]:
    """What scores.json says of finished scores: how many, which rows have none and why, and their spread."""
    faults = folder.faults()
    columns = folder.columns(data.columns)
    outcome: dict[str, Any] = {
        "rows": len(data.rows),
        "scored": len(data.rows) - len(faults),
        "unscored": len(faults),
        "reasons": dict(Counter(faults.values()).most_common()),
        "examples": [f"row {row + 1:,}: {why}" for row, why in sorted(faults.items())[:SHOWN]],
        "scores": {name: _spread([v for v in values if v is not None]) for name, values in columns.items()},
    }
    if data.columns == PAIR_COLUMNS:
        pairs = [(c, r) for c, r in zip(*columns.values(), strict=True) if c is not None and r is not None]
        outcome["accuracy"] = sum(c > r for c, r in pairs) / len(pairs) if pairs else None
    return outcome


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
