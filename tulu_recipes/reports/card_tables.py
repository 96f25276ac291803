"""The parts of a mix's card: tables and lists in Markdown, from its lock."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tulu_recipes.data.licences import LicenceSummary, licence_class
from tulu_recipes.reports.shown_names import file_name, hub_repo, is_local, local_names, shown_label

SHORT_SHA = 8
LONGEST_CELL = 100  # characters
MOST_ROWS = 40  # of a table whose rows come from the data, such as labels
MOST_TURNS = 10  # numbers of turns above are counted together
MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


def cell(text: Any) -> str:
    """Text that Markdown and HTML leave alone, on one line."""
    shown = "".join(char if char.isprintable() else " " for char in str(text))
    shown = f"{shown[:LONGEST_CELL]}…" if len(shown) > LONGEST_CELL else shown
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKDOWN.sub(r"\\\1", " ".join(shown.split()))


def fenced(text: str, language: str) -> list[str]:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *text.splitlines(), fence]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> list[str]:
    """Cells are Markdown already. text_columns: how many from the left are no numbers."""
    marks = ["---" if i < text_columns else "---:" for i in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, marks, *rows)]


def sources_table(lock: Mapping[str, Any]) -> list[str]:
    unit = lock["statistics"]["unit"]
    whole = lock["result"][unit]
    rows = []
    for source in lock["sources"]:
        split = "/".join(part for part in (source["config"], source["split"]) if part)
        repeats = source["rows"] / source["distinct_rows"] if source["distinct_rows"] else 0
        rows.append(
            [
                _linked(source),
                f"`{source['revision'][:SHORT_SHA]}`" if source["revision"] else "local",
                cell(split),
                cell(source["licence"] or "not given"),
                f"{source['rows_available']:,}",
                f"{source['rows']:,}",
                f"{repeats:.3g}",
                _percent(source[unit] / whole if whole else None),
            ]
        )
    headings = ["source", "commit", "config/split", "licence", "rows there", "rows taken", "times", f"share of {unit}"]
    return table(headings, rows, text_columns=4)


def _linked(source: Mapping[str, Any]) -> str:
    repo = hub_repo(source)
    if repo is None:
        return cell(file_name(source["name"]))
    at = f"/tree/{source['revision']}" if source["revision"] else ""
    return f"[{cell(source['name'])}](https://huggingface.co/datasets/{repo}{at})"


def _shown_source(source: Mapping[str, Any]) -> str:
    return cell(file_name(source["name"]) if is_local(source) else source["name"])


def steps_table(lock: Mapping[str, Any]) -> list[str]:
    """Rows lost at every step, a line a source; the last step, the amount, may also repeat rows."""
    named = [_numbered(source["steps"]) for source in lock["sources"]]
    steps = list(dict.fromkeys(name for parts in named for name in parts if name != "amount"))
    rows = []
    for source, parts in zip(lock["sources"], named, strict=True):
        lost = [_lost(parts.get(name)) for name in steps]
        amount = "".join(f"{key} {value:,}" for key, value in source["amount"].items()) or "all"
        rows.append(
            [_shown_source(source), f"{source['rows_available']:,}", *lost, cell(amount), f"{source['rows']:,}"]
        )
    return table(["source", "rows there", *map(cell, steps), "amount", "rows taken"], rows)


def _numbered(steps: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Steps by name; the second of one name becomes `name (2)`."""
    found: dict[str, Mapping[str, Any]] = {}
    seen: Counter[str] = Counter()
    for step in steps:
        seen[step["step"]] += 1
        number = seen[step["step"]]
        found[step["step"] if number == 1 else f"{step['step']} ({number})"] = step
    return found


def _lost(step: Mapping[str, Any] | None) -> str:
    if step is None:
        return ""  # this source has no such step
    lost = step["rows_in"] - step["rows_out"]
    return f"−{lost:,}" if lost else "0"


def reasons_table(lock: Mapping[str, Any]) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    for source in lock["sources"]:
        for step in source["steps"]:
            for reason, count in step["reasons"].items():
                counts[step["step"], reason] += count
    if not counts:
        return ["No row was removed for a reason of its own."]
    rows = [[cell(step), cell(reason), f"{count:,}"] for (step, reason), count in _largest(counts)]
    return [*table(["step", "reason", "rows"], rows, text_columns=2), *_left_out(len(counts), "reasons")]


def licence_lines(licences: LicenceSummary) -> list[str]:
    """The strictest first; then who is bound by what, and who states nothing."""
    strictest = licences.most_restrictive
    lines = []
    if strictest == "unknown":
        lines.append("**None of the sources states a licence.**")
    else:
        kind = licence_class(strictest).words
        lines.append(f"The most restrictive licence stated by a source is **{cell(strictest)}** ({kind}).")
    if not licences.ordered:
        lines.append("No single licence among them covers all sources: the terms of each apply to its rows.")
    lists = {
        "Non-commercial": licences.non_commercial,
        "No derivatives, which a mix may well be": licences.no_derivatives,
        "Custom terms, to be read at their source": licences.custom,
        "Share-alike": licences.share_alike,
    }
    lines.append("")
    for title, found in lists.items():
        lines += [f"- {title}: **{cell(licence)}** ({_names(names)})" for licence, names in found.items()]
    if licences.unknown:
        lines.append(f"- No licence stated: {_names(licences.unknown)}. Ask their authors before passing them on.")
    rows = [
        [cell(licence), licence_class(licence).words, _names(names)] for licence, names in licences.by_licence.items()
    ]
    lines += ["", *table(["licence", "kind", "sources"], rows, text_columns=3)] if rows else []
    return [*lines, "", "Sorted by a program from what the datasets' cards say. This is not legal advice."]


def _names(names: Iterable[str]) -> str:
    return ", ".join(cell(name) for name in names)


def lengths_table(lock: Mapping[str, Any]) -> list[str]:
    """Rows and lengths by the `source` column, total last."""
    statistics, local = lock["statistics"], local_names(lock)
    unit = statistics["unit"]
    labels = list(statistics["labels"].items())
    rows = []
    for name, part in [*labels[:MOST_ROWS], ("**total**", statistics["total"])]:
        lengths = part[unit]
        numbers = [_number(lengths[key]) for key in ("sum", "mean", "median", "p95", "max")]
        shown = name if part is statistics["total"] else cell(shown_label(name, local))
        rows.append(
            [shown, f"{part['rows']:,}", _percent(part["row_share"]), *numbers, _percent(part["length_share"])]
        )
    headings = ["`source`", "rows", "of rows", unit, "mean", "median", "95 % within", "longest", f"of {unit}"]
    return [*table(headings, rows), *_left_out(len(labels), "labels; `mix.lock.json` has them all")]


def turns_table(turns: Mapping[str, Any]) -> list[str]:
    counts = {int(number): count for number, count in turns["counts"].items()}
    rows = [[str(number), f"{count:,}"] for number, count in counts.items() if number <= MOST_TURNS]
    above = sum(count for number, count in counts.items() if number > MOST_TURNS)
    rows += [[f"more than {MOST_TURNS}", f"{above:,}"]] if above else []
    return [f"Messages a row, {_number(turns['mean'])} on average.", "", *table(["messages", "rows"], rows)]


def languages_table(counts: Mapping[str, int] | None) -> list[str]:
    if counts is None:
        return ["Not determined for this mix."]
    rows = [[cell(code), f"{count:,}"] for code, count in _largest(Counter(counts))]
    note = (
        f"Of {sum(counts.values()):,} rows spread over the mix, as a detector (py3langid) sees them; short texts "
        "and code mislead it."
    )
    return [note, "", *table(["language", "rows"], rows), *_left_out(len(counts), "languages")]


def contamination_table(lock: Mapping[str, Any]) -> list[str]:
    """Every pair of source and evaluation with an overlap; the others are counted."""
    report, local = lock["decontamination"], local_names(lock)
    if report is None:
        return ["This mix was not compared with evaluations."]
    found = [row for row in report["table"] if row["overlapped"]]
    rows = [
        [
            cell(shown_label(row["source"], local)),
            cell(row["evaluation"]),
            f"{row['overlapped']:,} of {row['items']:,}",
            _percent(row["share"]),
            f"{row['rows_matched']:,}",
            "**contaminated**" if row["contaminated"] else "below the limit",
            cell(str(row["action"]).replace("_", " ")),
            f"{row['rows_removed']:,}",
        ]
        for row in found
    ]
    headings = ["source", "evaluation", "items found", "share", "rows with them", "verdict", "rule", "rows removed"]
    names = ", ".join(f"{cell(each['name'])} ({each['items']:,})" for each in report["evaluations"])
    clean = len(report["table"]) - len(found)
    return [
        f"Compared with these evaluations (items): {names}.",
        "",
        *([*table(headings, rows, text_columns=2), ""] if rows else []),
        f"No overlap: {clean:,} of {len(report['table']):,} pairs of source and evaluation.",
        f"Evaluations: sha256 `{report['evals_sha256']}`.",
    ]


def _largest(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_ROWS]


def _left_out(number: int, what: str) -> list[str]:
    return ["", f"And {number - MOST_ROWS:,} more {what}."] if number > MOST_ROWS else []


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
