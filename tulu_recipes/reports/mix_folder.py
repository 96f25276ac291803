"""What explains a finished mix to people: the card, a picture of its lengths, what overlapped which evaluation."""

from pathlib import Path
from typing import Any

from tulu_recipes.data.contamination.report import render_markdown
from tulu_recipes.reports.dataset_card import write_card
from tulu_recipes.reports.length_histogram import draw_length_histogram
from tulu_recipes.run import read_json, write_text


def describe_mix(folder: Path, lock: dict[str, Any]) -> None:
    """Write README.md, length_histogram.png and contamination.md into a folder that holds the rows of `lock`."""
    draw_length_histogram(lock["statistics"], folder / "length_histogram.png", lock["name"])
    write_card(folder, lock, repo_id=None)
    found = folder / "contamination.json"
    if found.is_file():
        write_text(folder / "contamination.md", render_markdown(read_json(found)))
