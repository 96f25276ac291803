"""What explains a finished mix to people: the card, a picture of its lengths."""

from pathlib import Path
from typing import Any

from tulu_recipes.reports.dataset_card import write_card
from tulu_recipes.reports.length_histogram import draw_length_histogram


def describe_mix(folder: Path, lock: dict[str, Any]) -> None:
    """Write README.md and length_histogram.png into a folder that holds the rows of `lock`."""
    draw_length_histogram(lock["statistics"], folder / "length_histogram.png", lock["name"])
    write_card(folder, lock, repo_id=None)
