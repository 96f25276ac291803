"""Curves of a run as one PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tulu_recipes.reports.shown_metrics import PANELS, Panel

matplotlib.use("Agg")  # no screen on a training node

Metrics = Sequence[Mapping[str, Any]]


def draw_curves(
    metrics: Metrics, path: Path, title: str, stage: str = "sft", alarms: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write the panels of a stage over steps, training and held-out; `alarms` are marked by their step."""
    panels = [panel for panel in PANELS[stage] if any(name in line for line in metrics for name in panel.lines)]
    columns = 2 if len(panels) <= 4 else 3
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.5 * columns, 3.5 * rows), layout="constrained")
    figure.suptitle(f"{title} · dotted: alarm" if alarms else title)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, metrics, panel)
        for step in {alarm["step"] for alarm in alarms}:
            axes.axvline(step, color="tab:red", linewidth=1, linestyle=":")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
    return path


def _draw(axes: Axes, metrics: Metrics, panel: Panel) -> None:
    drawn = 0
    for number, (key, name) in enumerate(panel.lines.items()):
        for prefix, kind, style in (("", "training", "-"), ("eval_", "held-out", "o-")):
            points = [(line["step"], line[prefix + key]) for line in metrics if prefix + key in line]
            if not points:
                continue
            drawn += 1
            axes.plot(
                *zip(*points, strict=True),
                "o" if len(points) == 1 else style,  # a line of one point is invisible
                label=f"{name} {kind}".strip(),
                # one line: its two kinds differ in colour; several: each keeps its own, held-out has points
                color=f"C{number}" if name else f"C{int(bool(prefix))}",
                alpha=0.6 if name and not prefix else 1,
                markersize=4,
                linewidth=1.3,
            )
    if panel.chance is not None:
        axes.axhline(panel.chance, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(panel.title, fontsize=10)
    axes.grid(alpha=0.3)
    if drawn > 1:
        axes.legend(fontsize=8)
