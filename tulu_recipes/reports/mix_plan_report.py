"""What a mix would take, as `plan` prints it: every source before its download, and how sure each number is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset
from rich.console import Console

from tulu_recipes.data.contamination.evals_file import load_evals
from tulu_recipes.data.layouts import BrokenRow, recognise, turns
from tulu_recipes.data.mix_plan import MixPlan, PlannedSource, plan_source
from tulu_recipes.data.mixing.build import check_own_filters
from tulu_recipes.data.mixing.mix_file import Mix, MixSource
from tulu_recipes.data.mixing.tokens import load_counter, resolve_tokenizer
from tulu_recipes.data.mixing.where import is_wanted
from tulu_recipes.data.statistics import CHARACTERS_PER_TOKEN
from tulu_recipes.errors import DataError, Problem, TuluError
from tulu_recipes.reports.mix_table import mix_table_from_plan, print_mix_table


def print_mix_plan(mix: Mix, console: Console) -> None:
    """Ask for every source what is there, and print what the mix would take of it; nothing large is downloaded.

    Raises:
        DataError: every source that cannot be read, after the table of the others.
    """
    plan = plan_mix(mix, console)
    console.print(f"{mix.path}: {len(mix.sources)} source{'s' if len(mix.sources) > 1 else ''} for {mix.target}.")
    if plan.sources:
        print_mix_table(mix_table_from_plan(plan.sources), console)
    steps = [str(call) for call in mix.filters]
    if mix.decontaminate is not None:
        evaluations = load_evals(mix.decontaminate["against"]).evaluations
        steps.append(f"decontaminate against {len(evaluations)} evaluations of {mix.decontaminate['against']}")
    if steps:
        console.print(f"Steps of all sources: {', '.join(steps)}.", soft_wrap=True)
    for caveat in plan.caveats if plan.sources else ():
        console.print(caveat, soft_wrap=True)
    if plan.problems:
        raise DataError(plan.problems, headline=f"{mix.path}: sources that cannot be read.")


def plan_mix(mix: Mix, console: Console) -> MixPlan:
    """Plan source by source, with its progress; one that cannot be read does not hide the next."""
    check_own_filters(mix)
    file, _ = resolve_tokenizer(mix)
    counter = load_counter(file) if file else None
    planned, problems = [], []
    with console.status("asking") as status:
        for number, source in enumerate(mix.sources, start=1):
            status.update(f"source {number} of {len(mix.sources)}: {source.title}")
            try:
                planned.append(_plan(mix, source, counter))
            except TuluError as error:
                problems += error.problems
                if "hub-unreachable" in error.slugs:
                    break  # the others would wait for the same answer
    whole = sum(source.tokens or 0 for source in planned)
    known = whole > 0 and not problems and all(source.tokens is not None for source in planned)
    shares = [source.tokens / whole if known and source.tokens is not None else None for source in planned]
    return MixPlan([replace(s, share=share) for s, share in zip(planned, shares, strict=True)], problems)


def _plan(mix: Mix, source: MixSource, counter: Any) -> PlannedSource:
    kept: list[float] = []

    def measure(rows: Sequence[Mapping[str, Any]]) -> list[int]:
        wanted = [row for row in rows if is_wanted(row, source.rows_where)]
        kept.append(len(wanted) / len(rows))
        return _lengths(mix, source, wanted or list(rows), counter)

    planned = plan_source(replace(source, rows=None, fraction_of_source=None, repeat=None), measure, source.place)
    return _with_amount(source, planned, kept[0])


def _lengths(mix: Mix, source: MixSource, rows: Sequence[Mapping[str, Any]], counter: Any) -> list[int]:
    """Tokens of each row as the mix converts it; a broken row has none.

    Raises:
        DataError: no layout fits the columns.
    """
    features = Dataset.from_list([dict(row) for row in rows]).features
    layout = recognise(features, mix.target, source.place, layout=source.layout, columns=source.columns)
    return [_length(mix, layout, row, counter) for row in rows]


def _length(mix: Mix, layout: Any, row: Mapping[str, Any], counter: Any) -> int:
    try:
        texts = [text for _, text in turns(layout.convert(row), mix.target)]
    except BrokenRow:
        return 0
    if counter is None:
        return round(sum(map(len, texts)) / CHARACTERS_PER_TOKEN)
    return sum(len(encoding.ids) for encoding in counter.encode_batch_fast(texts, add_special_tokens=False))


def _with_amount(source: MixSource, planned: PlannedSource, kept: float) -> PlannedSource:
    """The source with its amount taken, of the rows that `where` leaves."""
    available, notes = planned.rows_available, list(planned.notes)
    left: int | None
    if source.rows_where and available is not None:
        if source.stated_rows is not None:
            left, how = source.stated_rows, "as the publisher states"
        else:
            left, how = round(kept * available), "by the first rows"
        notes.append(f"`where` leaves about {left:,} of {available:,} rows, {how}")
    elif source.stated_rows not in (None, available):
        left = available if available is not None else source.stated_rows
        notes.append(f"{source.stated_rows:,} rows are stated")
    else:
        left = available
    if left is None:
        return replace(planned, name=source.title, rows_taken=source.rows, notes=tuple(notes))
    factor = source.fraction_of_source or source.repeat or 1.0
    taken = source.rows if source.rows is not None else math.floor(factor * left + 0.5)
    if taken == 0:
        what = f"{source.title}: {factor:g} of {left:,} rows is none."
        raise DataError(Problem("mix-amount", source.place, what, "take more, or remove the source."))
    if source.rows is not None and source.rows > left and planned.rows_exact and not source.rows_where:
        what = f"rows: {source.rows:,} is more than the {left:,} rows there are."
        mend = "lower it, or use `repeat` to take rows more than once."
        raise DataError(Problem("mix-amount", source.place, what, mend))
    per_row = (planned.tokens or 0) / (planned.rows_taken or 1)
    return replace(
        planned,
        name=source.title,
        rows_taken=taken,
        rows_exact=planned.rows_exact and not source.rows_where,
        repeats=taken / min(taken, left) if left else None,
        tokens=round(per_row * taken),
        notes=tuple(notes),
    )
