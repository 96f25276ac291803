"""The sources of a mix as one table: estimated before the download, exact after the build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu_recipes.data.statistics import CHARACTERS_PER_TOKEN
from tulu_recipes.reports.shown_names import is_local

if TYPE_CHECKING:
    from tulu_recipes.data.mix_plan import PlannedSource

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
    """The exact table of a finished mix; only tokens are estimated where no tokenizer counted them."""
    unit = "tokens" if lock["result"]["tokens"] is not None else "characters"
    whole = lock["result"][unit]
    return [
        MixTableRow(
            source=source_name(source),
            rows_available=source["rows_available"],
            rows_taken=source["rows"],
            repeats=source["rows"] / source["distinct_rows"] if source["distinct_rows"] else None,
            tokens=source["tokens"] if unit == "tokens" else round(source["characters"] / CHARACTERS_PER_TOKEN),
            share=source[unit] / whole if whole else None,
            licence=source["licence"],
            revision=None if is_local(source) else source["revision"],
            estimated=frozenset() if unit == "tokens" else frozenset({"tokens"}),
        )
        for source in lock["sources"]
    ]


def mix_table_from_plan(planned: "Sequence[PlannedSource]") -> list[MixTableRow]:
    """The table of `data.mix_plan.plan_mix`."""
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
    footer = _total_cells(rows)
    table = Table(title=Text(title), title_justify="left", show_footer=True, box=box.SIMPLE_HEAD, padding=0)
    table.add_column("source", footer=footer[0], overflow="fold")
    for number, heading in enumerate(("rows", "taken", "×", "tokens", "share"), start=1):
        table.add_column(heading, footer=footer[number], justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    table.add_column("revision", no_wrap=True)
    for row in rows:
        table.add_row(*[Text(cell) for cell in _cells(row)])
    console.print(table)
    if any(row.estimated for row in rows):
        console.print("~ estimated", highlight=False)
    for row in rows:
        for note in row.notes:
            console.print(Text(f"{row.source}: {note}"))


def _cells(row: MixTableRow) -> list[str]:
    def marked(field: str, text: str | None) -> str:
        if text is None:
            return "?"
        return f"~{text}" if field in row.estimated else text

    return [
        row.source,
        marked("rows_available", _number(row.rows_available)),
        marked("rows_taken", _number(row.rows_taken)),
        marked("repeats", None if row.repeats is None else f"{row.repeats:.3g}"),
        marked("tokens", _number(row.tokens)),
        marked("share", None if row.share is None else f"{row.share:.1%}"),
        row.licence or "not given",
        row.revision[:SHORT_SHA] if row.revision else "local",
    ]


def _number(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _total_cells(rows: list[MixTableRow]) -> list[str]:
    """Sums of what can be added; not known as soon as one part is not known."""

    def added(field: str) -> int | None:
        values = [getattr(row, field) for row in rows]
        return None if None in values else sum(values)

    estimated = frozenset[str]().union(*(row.estimated for row in rows))
    available, taken, tokens = (added(field) for field in ("rows_available", "rows_taken", "tokens"))
    cells = _cells(MixTableRow("total", available, taken, None, tokens, None, None, None, estimated))
    return [*cells[:3], "", cells[4], "", "", ""]
