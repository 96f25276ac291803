"""contamination.json for programs, contamination.md for people: what matched, what went, and samples side by side."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from tulu_recipes.data.contamination.evals_file import EvalsFile, describe
from tulu_recipes.data.contamination.explain import explain
from tulu_recipes.data.contamination.items import LoadedEvaluations

SAMPLES = 5  # a source and evaluation, in the report
SHOWN_CHARACTERS = 1500  # of a text
TOOLS = ("tulu_recipes", "datasets", "huggingface_hub", "pyarrow", "numpy")


def settings_of(evals: EvalsFile, loaded: LoadedEvaluations, compared: Mapping[str, int]) -> dict[str, Any]:
    """What decides the result: the evals file by its meaning, every evaluation at its commit, the tools."""
    evaluations = describe(evals, loaded.revisions, compared)
    for evaluation, items in zip(evaluations, loaded.items, strict=True):
        evaluation["empty_items"] = len(items.items) - evaluation["items"]
    return {
        "evals_sha256": evals.sha256,
        "ngram_size": evals.ngram_size,
        "match_threshold": evals.match_threshold,
        "evaluations": evaluations,
        "tools": {name: metadata.version(name) for name in TOOLS} | {"python": platform.python_version()},
    }


def pick_samples(matches: pa.Table, number: int, count: int = SAMPLES) -> list[dict[str, Any]]:
    """The strongest matches of an evaluation, each item once, ties by row: {row, item, score}."""
    of_evaluation = matches.filter(pa.array(matches["evaluation"].to_numpy() == number))
    row, item, score = (of_evaluation[name].to_numpy() for name in ("row", "item", "score"))
    order = np.lexsort((item, row, -score))
    first = np.sort(np.unique(item[order], return_index=True)[1])[:count]
    return [{"row": int(row[i]), "item": int(item[i]), "score": float(score[i])} for i in order[first]]


def show_sample(
    sample: Mapping[str, Any], item: Sequence[str], turns: Sequence[str], *, n: int, tokenization: str
) -> dict[str, Any]:
    """A sample with both texts, what they share between ⟦ and ⟧."""
    marked = explain(item, turns, n=n, tokenization=tokenization)
    return {
        **sample,
        "item_text": "\n".join(_shorten(field.render()) for field in marked.fields),
        "row_text": "\n".join(_shorten(turn.render()) for turn in marked.turns),
    }


def _shorten(text: str) -> str:
    """The text around its first mark, where it is long."""
    if len(text) <= SHOWN_CHARACTERS:
        return text
    start = max(min(text.find("⟦") - 200, len(text) - SHOWN_CHARACTERS), 0)
    piece = text[start : start + SHOWN_CHARACTERS]
    if piece.count("⟦") > piece.count("⟧"):
        piece += "⟧"
    return ("… " if start else "") + piece + (" …" if start + SHOWN_CHARACTERS < len(text) else "")


COLUMNS = (
    "source",
    "evaluation",
    "items",
    "overlapped",
    "share",
    "rows_matched",
    "contaminated",
    "action",
    "rows_removed",
)


def cells(line: Mapping[str, Any]) -> list[str]:
    """A line of the table as text."""
    shown = dict(line) | {"share": f"{line['share']:.2%}", "contaminated": "yes" if line["contaminated"] else "no"}
    return [f"{shown[key]:,}" if isinstance(shown[key], int) else str(shown[key]) for key in COLUMNS]


def rich_table(table: Sequence[Mapping[str, Any]]) -> Table:
    """The source × evaluation table for a terminal; pairs without a match are left to the files."""
    shown = Table(title="Contamination", title_justify="left")
    for key in COLUMNS:
        left = key in ("source", "evaluation", "contaminated", "action")
        shown.add_column(key.replace("_", " "), justify="left" if left else "right", overflow="fold")
    for line in table:
        if line["overlapped"]:
            shown.add_row(*cells(line))
    return shown


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    settings = report["settings"]
    limit = f"{settings['match_threshold']:.0%}"
    rule = f"{settings['ngram_size']}-grams; an item overlaps a row that covers more than {limit} of its tokens."
    lines = [
        "# Contamination",
        "",
        f"{rule} Rows and items count from 0.",
        "",
        "| " + " | ".join(key.replace("_", " ") for key in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells(line)) + " |" for line in report["table"]),
        "",
        "## Evaluations",
        "",
        "| name | dataset | commit | tokenisation | items | without text |",
        "|---|---|---|---|---|---|",
    ]
    for one in settings["evaluations"]:
        lines.append(
            f"| {one['name']} | {one['dataset']} | {one['revision'] or 'local'} | {one['tokenization']} | "
            f"{one['items']:,} | {one['empty_items']:,} |"
        )
    lines += ["", "## Sources", ""]
    for name, source in report["sources"].items():
        gone = "dropped as a whole" if source["dropped"] else f"{source['rows_removed']:,} removed"
        lines.append(f"- {name}: {source['rows']:,} rows, {gone}")
    if report["samples"]:
        lines += ["", "## Samples", "", "⟦…⟧ is what both share."]
    for sample in report["samples"]:
        where = f"{sample['source']} row {sample['row']:,}, {sample['evaluation']} item {sample['item']:,}"
        lines += [
            "",
            f"### {where}, score {sample['score']:.2f}",
            "",
            "| item | row |",
            "|---|---|",
            f"| {_cell(sample['item_text'])} | {_cell(sample['row_text'])} |",
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text as it is, in a cell: nothing in it may become Markdown or HTML."""
    for character in "\\`*_[]|<>#~$":
        text = text.replace(character, f"&#{ord(character)};")
    return text.replace("\r", "").replace("\n", "<br>")
