"""How long the rows of a mix are, as one PNG: bars by length, stacked by the largest labels."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tulu_recipes.reports.shown_names import shown_label

matplotlib.use("Agg")  # no screen where mixes are built

SHOWN_LABELS = 7  # more colours than that cannot be told apart
LONGEST_NAME = 48
DRAWN_BELOW = "\u0530"  # Latin, Greek and Cyrillic are in the font that matplotlib ships


def draw_length_histogram(statistics: dict[str, Any], path: Path, title: str) -> Path:
    """Write the histogram of `data.statistics.mix_statistics`; equal statistics give equal bytes.

    The horizontal axis is logarithmic; median and 95th percentile are marked.
    """
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, statistics["length_histogram"])
    unit = statistics["unit"]
    for name, style in (("median", "-"), ("p95", "--")):
        value = statistics["total"][unit][name]
        if value is not None:
            shown = "95 % of rows" if name == "p95" else name
            axes.axvline(max(value, 1), color="black", linestyle=style, linewidth=1, label=f"{shown}: {value:,.0f}")
    axes.set_title(_plain(title))
    axes.set_xlabel(f"{unit} a row (logarithmic)")
    axes.set_ylabel("rows")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=110, metadata={"Software": None})  # a version there would change the bytes
    return path


def _draw_bars(axes: Axes, histogram: dict[str, Any]) -> None:
    edges = np.array(histogram["edges"], dtype=float)
    first = int(np.flatnonzero(histogram["total"])[0]) if any(histogram["total"]) else 0
    edges[0] = edges[1] / 2  # a logarithm has no 0
    largest = sorted(histogram["labels"].items(), key=lambda item: (-sum(item[1]), item[0]))
    shown = [(_plain(name), np.array(counts)) for name, counts in largest[:SHOWN_LABELS]]
    if len(largest) > SHOWN_LABELS:
        others = np.sum([counts for _, counts in largest[SHOWN_LABELS:]], axis=0)
        shown.append((f"{len(largest) - SHOWN_LABELS} others", others))
    below = np.zeros(len(edges) - 1)
    for number, (name, counts) in enumerate(shown):
        colour = "#bbbbbb" if number == SHOWN_LABELS else f"C{number}"
        axes.bar(
            edges[first:-1],
            counts[first:],
            width=np.diff(edges)[first:],
            bottom=below[first:],
            align="edge",
            color=colour,
            label=name,
        )
        below = below + counts
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(bottom=0)


def _plain(name: str) -> str:
    """A label as matplotlib can draw it: no glyph its font lacks, no $formula$, no leading _ (hidden in a legend)."""
    shown = "".join(char if char.isprintable() and char < DRAWN_BELOW else "?" for char in shown_label(name))
    shown = f"{shown[:LONGEST_NAME]}…" if len(shown) > LONGEST_NAME else shown
    return f"{' ' if shown.startswith('_') else ''}{shown}".replace("$", r"\$")
