"""The supervision audit: what a run would train, per source, before its first step, and the limits that stop it."""

import hashlib
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
    sources: dict[str, SourceCounts]
    max_length: int | None
    over_length: str
    examples: dict[str, list[str]] = field(default_factory=dict)
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
    flags["dropped"] = flags["over_length"] & (over_length == "drop") & ~flags["broken"]
    flags["unsupervised"] = (flags["supervised_tokens"] == 0) & ~flags["broken"] & ~flags["dropped"]
    flags["trained"] = ~(flags["broken"] | flags["dropped"] | flags["unsupervised"])
    flags["cut"] = flags["over_length"] & flags["trained"]
    flags["answer_lost"] = flags["answer_cut"] & ~flags["dropped"]
    flags["duplicate"] = flags["trained"] & flags["key"].duplicated() & ~flags["broken"]
    sources = {str(name): _count(group) for name, group in flags.groupby("source", sort=True)}
    examples = {
        "broken": _name(flags[flags["broken"]], with_fault=True),
        "answers cut": _name(flags[flags["answer_lost"]]),
        "over length": _name(flags[flags["over_length"]]),
        "unsupervised": _name(flags[flags["unsupervised"]]),
        "EOS missing": _name(flags[flags["eos_missing"]]),
        "double BOS": _name(flags[flags["double_bos"]]),
    }
    digest = hashlib.blake2b(flags["key"].to_numpy().tobytes(), digest_size=16).hexdigest()
    return Audit(_count(flags), sources, max_length, over_length, {k: v for k, v in examples.items() if v}, digest)


def _count(flags: pd.DataFrame) -> SourceCounts:
    trained = flags[flags["trained"]]
    return SourceCounts(
        rows=len(flags),
        trained_rows=len(trained),
        tokens=int(trained["tokens"].sum()),
        supervised_tokens=int(trained["supervised_tokens"].sum()),
        over_length=int(flags["over_length"].sum()),
        rows_cut=int(flags["cut"].sum()),
        answers_cut=int(flags["answer_lost"].sum()),
        over_length_dropped=int(flags["dropped"].sum()),
        unsupervised=int(flags["unsupervised"].sum()),
        broken=int(flags["broken"].sum()),
        eos_missing=int(flags["eos_missing"].sum()),
        double_bos=int(flags["double_bos"].sum()),
        duplicates=int(flags["duplicate"].sum()),
        odd_order=int(flags["odd_order"].sum()),
    )


def _name(rows: pd.DataFrame, *, with_fault: bool = False) -> list[str]:
    return [
        f"row {row.row + 1:,} ({row.source})" + (f": {row.fault}" if with_fault else "")
        for row in rows.head(EXAMPLES).itertuples()
    ]


def check_limits(audit: Audit, limits: Limits, where: str) -> list[Problem]:
    """Every reason why these rows must not be trained on as the recipe stands."""
    total, rows = audit.total, max(audit.total.rows, 1)
    problems = []
    if total.trained_rows == 0:
        problems.append(
            Problem(
                "no-rows",
                where,
                f"None of the {total.rows:,} rows can be trained on ({total.broken:,} broken, "
                f"{total.unsupervised:,} without supervision, {total.over_length_dropped:,} over length).",
                "see the other problems, or name another dataset or split.",
            )
        )
    if audit.over_length == "stop" and "over length" in audit.examples:
        problems.append(
            Problem(
                "over-length",
                where,
                f"{total.over_length:,} of {total.rows:,} rows are longer than max_length: {audit.max_length} tokens: "
                f"{_examples(audit, 'over length')}.",
                "raise max_length, or write  over_length: drop  or  over_length: truncate.",
            )
        )
    if total.broken / rows > limits.broken:
        problems.append(
            Problem(
                "rows-broken",
                where,
                f"{total.broken:,} of {total.rows:,} rows are broken: {_examples(audit, 'broken')}.",
                f"mend the rows, or raise max_broken_fraction (now {limits.broken:g}) to drop them.",
            )
        )
    if total.unsupervised / rows > limits.unsupervised:
        problems.append(
            Problem(
                "rows-unsupervised",
                where,
                f"{total.unsupervised:,} of {total.rows:,} rows have no supervised token, because no assistant wrote "
                f"anything or the prompt alone fills max_length: {_examples(audit, 'unsupervised')}.",
                f"raise max_length, or max_unsupervised_fraction (now {limits.unsupervised:g}) to drop them.",
            )
        )
    if total.answers_cut / rows > limits.cut_answers:
        problems.append(
            Problem(
                "answers-cut",
                where,
                f"{total.answers_cut:,} of {total.rows:,} rows lose the end of an answer at max_length: "
                f"{audit.max_length} tokens, EOS included; the model would learn to stop mid-sentence.",
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
                f"{_examples(audit, 'EOS missing')}; the model would not learn to stop.",
                "use a chat template that puts EOS inside {% generation %}, for example  chat_template: tulu.",
            )
        )
    if total.double_bos:
        problems.append(
            Problem(
                "double-bos",
                where,
                f"{total.double_bos:,} rows start with two BOS tokens: {_examples(audit, 'double BOS')}.",
                "drop the BOS from the chat template, or from the text of the rows.",
            )
        )
    return problems


def _examples(audit: Audit, kind: str) -> str:
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


def print_audit(audit: Audit, console: Console) -> None:
    """The audit as a person reads it: one line a source, the total last; then the faults that nowhere occur."""
    total = asdict(audit.total)
    shown = [key for i, key in enumerate(COLUMNS) if i < ALWAYS_SHOWN or total[key]]
    absent = [COLUMNS[key] for key in COLUMNS if key not in shown]
    table = Table(title="Supervision audit", title_justify="left")
    table.add_column("source", overflow="fold")
    for key in shown:
        table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for name, counts in [*audit.sources.items(), ("total", audit.total)]:
        if name == "total":
            table.add_section()
        table.add_row(name, *[f"{asdict(counts)[key]:,}" for key in shown])
    console.print(table)
    if absent:
        console.print(f"No row is or has: {', '.join(absent)}.", highlight=False)
