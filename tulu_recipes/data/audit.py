"""The supervision audit: what a run would train, per source, before its first step, and the limits that stop it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pandas as pd
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from tulu_recipes.errors import Problem

EXAMPLES = 10  # rows named in a message or kept in audit.json; the counts are always exact


@dataclass(frozen=True)
class SourceCounts:
    """Counts of one source, in rows unless the name says tokens. Dropped rows are in `rows`, not in `trained_rows`."""

    rows: int
    trained_rows: int
    tokens: int
    supervised_tokens: int
    over_length: int
    rows_cut: int
    answers_cut: int
    over_length_dropped: int
    unsupervised: int
    broken: int
    eos_missing: int
    double_bos: int
    duplicates: int
    odd_order: int


@dataclass(frozen=True)
class Audit:
    """Exact totals of a dataset as it will be trained; `tokens` count the rows that are trained, once each."""

    total: SourceCounts
    sources: Mapping[str, SourceCounts]
    max_length: int | None
    over_length: str
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    digest: str = ""  # of the tokens of all rows, in order: equal totals may hide other rows


@dataclass(frozen=True)
class Limits:
    """Largest fractions of rows (0-1) that a run accepts."""

    cut_answers: float
    unsupervised: float
    broken: float
    duplicates: float


def audit_rows(tokenized: Dataset, *, max_length: int | None, over_length: str) -> Audit:
    """Count what `data.supervision.tokenize_rows` found, per source and in all."""
    flags = tokenized.remove_columns(["input_ids", "labels"]).to_pandas()
    flags["broken"] = flags["fault"] != ""
    decide(flags, drops_long=over_length == "drop")
    sources = {str(name): SourceCounts(**count(group)) for name, group in flags.groupby("source", sort=True)}
    total = SourceCounts(**count(flags))
    return Audit(total, sources, max_length, over_length, examples_of(flags), digest_of(flags))


def decide(flags: pd.DataFrame, *, drops_long: bool) -> None:
    """Add what becomes of each row. `flags`: the columns of a tokenized dataset, and `broken`."""
    flags["dropped"] = flags["over_length"] & drops_long & ~flags["broken"]
    flags["unsupervised"] = (flags["supervised_tokens"] == 0) & ~flags["broken"] & ~flags["dropped"]
    flags["trained"] = ~(flags["broken"] | flags["dropped"] | flags["unsupervised"])
    flags["cut"] = flags["over_length"] & flags["trained"]
    flags["answer_lost"] = flags["answer_cut"] & ~flags["dropped"]
    flags["duplicate"] = flags["trained"] & flags["key"].duplicated() & ~flags["broken"]


def examples_of(flags: pd.DataFrame, **more: pd.Series) -> dict[str, list[str]]:
    """The first rows of each kind of fault; `more`: kinds of a stage's own, as masks."""
    marked = {
        "answers cut": flags["answer_lost"],
        "over length": flags["over_length"],
        "unsupervised": flags["unsupervised"],
        "EOS missing": flags["eos_missing"],
        "double BOS": flags["double_bos"],
    } | more
    found = {"broken": _name(flags[flags["broken"]], with_fault=True)}
    found |= {kind: _name(flags[rows]) for kind, rows in marked.items()}
    return {kind: names for kind, names in found.items() if names}


def digest_of(flags: pd.DataFrame) -> str:
    return hashlib.blake2b(flags["key"].to_numpy().tobytes(), digest_size=16).hexdigest()


def count(flags: pd.DataFrame) -> dict[str, int]:
    """The fields of `SourceCounts` over these rows, once `decide` has seen them."""
    trained = flags[flags["trained"]]
    return {
        "rows": len(flags),
        "trained_rows": len(trained),
        "tokens": int(trained["tokens"].sum()),
        "supervised_tokens": int(trained["supervised_tokens"].sum()),
        "over_length": int(flags["over_length"].sum()),
        "rows_cut": int(flags["cut"].sum()),
        "answers_cut": int(flags["answer_lost"].sum()),
        "over_length_dropped": int(flags["dropped"].sum()),
        "unsupervised": int(flags["unsupervised"].sum()),
        "broken": int(flags["broken"].sum()),
        "eos_missing": int(flags["eos_missing"].sum()),
        "double_bos": int(flags["double_bos"].sum()),
        "duplicates": int(flags["duplicate"].sum()),
        "odd_order": int(flags["odd_order"].sum()),
    }


def _name(rows: pd.DataFrame, *, with_fault: bool = False) -> list[str]:
    return [
        f"row {row.row + 1:,} ({row.source})" + (f": {row.fault}" if with_fault else "")
        for row in rows.head(EXAMPLES).itertuples()
    ]


def check_limits(audit: Audit, limits: Limits, where: str, more: str = "") -> list[Problem]:
    """Every reason why these rows must not be trained on as the recipe stands. more: what else is not trained."""
    total, rows = audit.total, max(audit.total.rows, 1)
    problems = []
    if total.trained_rows == 0:
        problems.append(
            Problem(
                "no-rows",
                where,
                f"None of the {total.rows:,} rows can be trained on ({total.broken:,} broken, "
                f"{total.unsupervised:,} without supervision, {total.over_length_dropped:,} over length"
                f"{more and ', '}{more}).",
                "see the other problems, or name another dataset or split.",
            )
        )
    if audit.over_length == "stop" and "over length" in audit.examples:
        problems.append(
            Problem(
                "over-length",
                where,
                f"{total.over_length:,} of {total.rows:,} rows are longer than max_length: {audit.max_length} tokens: "
                f"{shown_examples(audit, 'over length')}.",
                "raise max_length, or write  over_length: drop  or  over_length: truncate.",
            )
        )
    if total.broken / rows > limits.broken:
        problems.append(
            Problem(
                "rows-broken",
                where,
                f"{total.broken:,} of {total.rows:,} rows are broken: {shown_examples(audit, 'broken')}.",
                f"mend the rows, or raise max_broken_fraction (now {limits.broken:g}) to drop them.",
            )
        )
    if total.unsupervised / rows > limits.unsupervised:
        problems.append(
            Problem(
                "rows-unsupervised",
                where,
                f"{total.unsupervised:,} of {total.rows:,} rows have no supervised token, because no assistant wrote "
                f"anything or the prompt alone fills max_length: {shown_examples(audit, 'unsupervised')}.",
                f"raise max_length, or max_unsupervised_fraction (now {limits.unsupervised:g}) to drop them.",
            )
        )
    if total.answers_cut / rows > limits.cut_answers:
        problems.append(
            Problem(
                "answers-cut",
                where,
                f"{total.answers_cut:,} of {total.rows:,} rows lose the end of an answer at max_length: "
                f"{audit.max_length} tokens, EOS included ({shown_examples(audit, 'answers cut')}); "
                "the model would learn to stop mid-sentence.",
                f"raise max_length, write  over_length: drop, or raise max_cut_answer_fraction "
                f"(now {limits.cut_answers:g}).",
            )
        )
    if total.duplicates / rows > limits.duplicates:
        problems.append(
            Problem(
                "rows-duplicate",
                where,
                f"{total.duplicates:,} of {total.rows:,} rows repeat an earlier row.",
                f"remove the repeats, or raise max_duplicate_fraction (now {limits.duplicates:g}).",
            )
        )
    if total.eos_missing:
        problems.append(
            Problem(
                "eos-unsupervised",
                where,
                f"{total.eos_missing:,} rows have an assistant turn that does not end on EOS in its labels: "
                f"{shown_examples(audit, 'EOS missing')}; the model would not learn to stop.",
                "use a chat template that puts EOS inside {% generation %}, for example  chat_template: tulu.",
            )
        )
    if total.double_bos:
        problems.append(
            Problem(
                "double-bos",
                where,
                f"{total.double_bos:,} rows start with two BOS tokens: {shown_examples(audit, 'double BOS')}.",
                "drop the BOS from the chat template, or from the text of the rows.",
            )
        )
    return problems


def shown_examples(audit: Audit, kind: str) -> str:
    return ", ".join(audit.examples.get(kind, []))


COLUMNS = {
    "rows": "rows",
    "trained_rows": "trained",
    "tokens": "tokens",
    "supervised_tokens": "supervised",
    "over_length": "too long",
    "rows_cut": "cut",
    "answers_cut": "answers cut",
    "over_length_dropped": "dropped",
    "unsupervised": "no labels",
    "broken": "broken",
    "eos_missing": "EOS missing",
    "double_bos": "double BOS",
    "duplicates": "repeats",
    "odd_order": "odd order",
}
ALWAYS_SHOWN = 4


def print_audit(
    audit: Audit,
    console: Console,
    columns: Mapping[str, str] = COLUMNS,
    *,
    title: str = "Supervision audit",
    always: int = ALWAYS_SHOWN,
) -> None:
    """The audit as a person reads it: one line a source, the total last; then the faults that nowhere occur.

    Args:
        columns: field of the counts → heading. always: how many of them are shown even where they are 0.
    """
    total = asdict(audit.total)
    shown = [key for i, key in enumerate(columns) if i < always or total[key]]
    absent = [columns[key] for key in columns if key not in shown]
    table = Table(title=title, title_justify="left")
    table.add_column("source", overflow="fold", min_width=12)
    for key in shown:
        table.add_column(columns[key], justify="right", no_wrap=True)
    for name, counts in [*audit.sources.items(), ("total", audit.total)]:
        if name == "total":
            table.add_section()
        table.add_row(name, *[f"{asdict(counts)[key]:,}" for key in shown])
    console.print(table)
    if absent:
        console.print(f"No row is or has: {', '.join(absent)}.", highlight=False)
