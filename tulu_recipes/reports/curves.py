"""Curves of a run as one PNG."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

matplotlib.use("Agg")  # no screen on a training node

PANELS = [
    ("loss", "loss (nats per supervised token)"),
    ("mean_token_accuracy", "next-token accuracy"),
    ("learning_rate", "learning rate"),
    ("grad_norm", "gradient norm before clipping"),
]


def draw_curves(metrics: list[dict[str, Any]], path: Path, title: str) -> Path:
    """Write loss (training and held-out), accuracy, learning rate and gradient norm over steps."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle(title)
    for axes, (key, label) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        _draw(axes, metrics, key, label)
    figure.savefig(path, dpi=110)
    return path


def _draw(axes: Axes, metrics: list[dict[str, Any]], key: str, label: str) -> None:
    for name, style, legend in ((key, "-", "training"), (f"eval_{key}", "o-", "held-out")):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        if points:
            style = "o" if len(points) == 1 else style  # a line of one point is invisible
            axes.plot(*zip(*points, strict=True), style, label=legend, markersize=4, linewidth=1.3)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(label, fontsize=10)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend()
