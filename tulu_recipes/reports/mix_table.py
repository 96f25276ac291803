"""The sources of a mix as one table: estimated before the download, exact after the build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu_recipes.data.mix_plan import PlannedSource
from tulu_recipes.reports.shown_names import is_local

SHORT_SHA = 8


@dataclass(frozen=True)
class MixTableRow:
    """One source. None: not known. `estimated` names the fields that are estimates."""

    source: str
    rows_available: int | None
    rows_taken: int | None
    repeats: float | None  # rows taken / rows that could be taken
    tokens: int | None
    share: float | None  # of all tokens, 0-1; of all characters or rows where tokens are not known
    licence: str | None
    revision: str | None  # a commit, or None for a local file
    estimated: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def mix_table_from_lock(lock: Mapping[str, Any]) -> list[MixTableRow]:
    """The exact table of a finished mix."""
    unit = "tokens" if lock["result"]["tokens"] is not None else "characters"
    whole = lock["result"][unit]
    return [
        MixTableRow(
            source=source_name(source),
            rows_available=source["rows_available"],
            rows_taken=source["rows"],
            repeats=source["rows"] / source["distinct_rows"] if source["distinct_rows"] else None,
            tokens=source["tokens"],
            share=source[unit] / whole if whole else None,
            licence=source["licence"],
            revision=None if is_local(source) else source["revision"],
        )
        for source in lock["sources"]
    ]


def mix_table_from_plan(planned: Sequence[PlannedSource]) -> list[MixTableRow]:
    """The table of `data.mix_plan.plan_sources`."""
    rows = []
    for source in planned:
        uncertain = set() if source.rows_exact else {"rows_available", "rows_taken"}
        rows.append(
            MixTableRow(
                source=source_name({"name": source.name, "config": source.config, "split": source.split}),
                rows_available=source.rows_available,
                rows_taken=source.rows_taken,
                repeats=source.repeats,
                tokens=source.tokens,
                share=source.share,
                licence=source.licence,
                revision=source.revision,
                estimated=frozenset(uncertain | {"tokens", "share"}),
                notes=source.notes,
            )
        )
    return rows


def source_name(source: Mapping[str, Any]) -> str:
    """Name, with configuration and split where they are not the usual ones."""
    split = source["split"] if source["split"] not in (None, "train") else None
    more = [part for part in (source["config"], split) if part]
    return f"{source['name']} ({', '.join(more)})" if more else str(source["name"])


def print_mix_table(rows: list[MixTableRow], console: Console, *, title: str = "Sources") -> None:
    """Print the table, its totals and its notes; `~` marks estimates. Long names are folded, numbers never."""
    table = Table(title=Text(title), title_justify="left", show_footer=True, padding=(0, 0), pad_edge=False)
    total = _total(rows)
    texts = [_cells(row) for row in rows]
    footer = _cells(total)
    table.add_column("source", footer="total", overflow="fold", ratio=None, min_width=12)
    for number, heading in enumerate(("rows", "taken", "×", "tokens", "share"), start=1):
        table.add_column(heading, footer=footer[number], justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold", min_width=7)
    table.add_column("revision", no_wrap=True)
    for cells in texts:
        table.add_row(*[Text(cell) for cell in cells])
    console.print(table)
    if any(row.estimated for row in rows):
        console.print("~ estimated", highlight=False)
    for row in rows:
        for note in row.notes:
            console.print(Text(f"{row.source}: {note}"))


def _cells(row: MixTableRow) -> list[str]:
    def marked(field: str, text: str) -> str:
        return f"~{text}" if field in row.estimated and text != "?" else text

    return [
        row.source,
        marked("rows_available", _number(row.rows_available)),
        marked("rows_taken", _number(row.rows_taken)),
        "?" if row.repeats is None else f"{row.repeats:.3g}",
        marked("tokens", _number(row.tokens)),
        marked("share", "?" if row.share is None else f"{row.share:.1%}"),
        row.licence or "not given",
        row.revision[:SHORT_SHA] if row.revision else "local",
    ]


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _total(rows: list[MixTableRow]) -> MixTableRow:
    """Sums; not known as soon as one part is not known."""

    def added(field: str) -> int | None:
        values = [getattr(row, field) for row in rows]
        return None if None in values else sum(values)

    estimated = frozenset[str]().union(*(row.estimated for row in rows))
    taken, tokens = added("rows_taken"), added("tokens")
    return MixTableRow("total", added("rows_available"), taken, None, tokens, None, None, None, estimated)
