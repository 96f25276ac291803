"""README.md of a finished mix: where every row came from, under which terms, what was removed, how to build it again.

Everything is taken from the lock. Names and labels may come from other people's files, so they are escaped; no row is
quoted, and no folder of the machine that built the mix is named.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.data.licences import most_restrictive
from tulu_recipes.reports.card_tables import (
    cell,
    contamination_table,
    fenced,
    languages_table,
    lengths_table,
    licence_lines,
    reasons_table,
    sources_table,
    steps_table,
    turns_table,
)
from tulu_recipes.reports.dataset_metadata import card_metadata
from tulu_recipes.reports.mix_table import source_name
from tulu_recipes.reports.shown_names import file_name, is_local, local_names, shown_name, without_folders
from tulu_recipes.run import write_text

HISTOGRAM = "length_histogram.png"
KINDS = {
    "sft": "Conversations for supervised fine-tuning",
    "preference": "Preference pairs, each a chosen and a rejected answer to one prompt,",
    "rlvr": "Prompts with answers that a program verifies (RLVR)",
}


def write_card(folder: Path, lock: dict[str, Any], *, repo_id: str | None) -> Path:
    """Write README.md beside the shards of a mix.

    Args:
        folder: holds the shards the lock names and, where it has been drawn, the length histogram.
        lock: as in mix.lock.json.
        repo_id: where the mix will be pushed; None while it stays local.
    """
    licences = most_restrictive(source_licences(lock))
    metadata = card_metadata(folder, lock, licences, repo_id)
    body = [
        *_head(lock),
        *_section("Sources", sources_table(lock)),
        *_section("What was removed", [*steps_table(lock), "", *reasons_table(lock)]),
        *_section("Licence", licence_lines(licences)),
        *_section("Lengths", _lengths(folder, lock)),
        *_section("Turns", turns_table(lock["statistics"]["total"]["turns"])),
        *_section("Languages", languages_table(lock["statistics"]["total"]["languages"])),
        *_section("Contamination", contamination_table(lock)),
        *_section("How to load it", _load(repo_id)),
        *_section("How to build it again", _rebuild(lock)),
    ]
    path = folder / "README.md"
    write_text(path, f"---\n{metadata.to_yaml()}\n---\n\n" + "\n".join(body))
    return path


def source_licences(lock: Mapping[str, Any]) -> dict[str, str | None]:
    """Licence by source, as `most_restrictive` takes it; a source that is there twice is bound by both."""
    found: dict[str, str | None] = {}
    for source in lock["sources"]:
        name = source_name(source | {"name": file_name(source["name"]) if is_local(source) else source["name"]})
        both = {licence for licence in (found.get(name), source["licence"]) if licence}
        found[name] = ", ".join(sorted(both)) or None
    return found


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _head(lock: Mapping[str, Any]) -> list[str]:
    result = lock["result"]
    unit = f"{result['tokens']:,} tokens" if result["tokens"] is not None else f"{result['characters']:,} characters"
    number = len(lock["sources"])
    sources = "one source" if number == 1 else f"{number} sources"
    what = f"{KINDS[lock['target']]} from {sources}: **{result['rows']:,} rows**, {unit}."
    how = "Built with `tulu_recipes`; the column `source` says where each row came from."
    return [f"# {cell(lock['name'])}", "", what, how, ""]


def _lengths(folder: Path, lock: Mapping[str, Any]) -> list[str]:
    unit, tokenizer = lock["statistics"]["unit"], lock["tokenizer"]
    lines = ["Characters; no tokenizer was named."]
    if tokenizer is not None:
        name = shown_name(tokenizer["name"], local_names(lock))
        at = f" at `{tokenizer['revision']}`" if tokenizer["revision"] else ""
        lines = [f"Tokens of `{name}`{at}."]
    image = [f"![rows by {unit}]({HISTOGRAM})", ""] if (folder / HISTOGRAM).is_file() else []
    return [*lines, "", *image, *lengths_table(lock)]


def _load(repo_id: str | None) -> list[str]:
    name = repo_id or "path/of/this/folder"
    return fenced(f'from datasets import load_dataset\n\ndataset = load_dataset("{name}", split="train")', "python")


def _rebuild(lock: Mapping[str, Any]) -> list[str]:
    """The command, what it needs, and the mix itself."""
    mix = without_folders(lock["mix"], local_names(lock))
    text = yaml.safe_dump(mix, sort_keys=False, allow_unicode=True, width=110).rstrip()
    tools = ", ".join(f"{name} {version}" for name, version in lock["tools"].items())
    return [
        *fenced(f"python -m tulu_recipes.mix {lock['name']}.yaml --locked", "bash"),
        "",
        "with the mix below and its `mix.lock.json`, which is beside this card.",
        "It gives the same bytes, or says which source has moved.",
        "",
        *_local_files(lock),
        "<details>",
        f"<summary>{cell(lock['name'])}.yaml, resolved</summary>",
        "",
        *fenced(text, "yaml"),
        "",
        "</details>",
        "",
        f"- content: sha256 `{lock['result']['content_sha256']}`",
        f"- mix: sha256 `{lock['mix_sha256']}`, semantics {lock['semantics']}, seed {lock['seed']}",
        f"- tools: {tools}",
    ]


def _local_files(lock: Mapping[str, Any]) -> list[str]:
    """What is not on the Hub and so must be at hand: names alone would not say which version."""
    files = [file for source in lock["sources"] if is_local(source) for file in source["files"]]
    if not files:
        return []
    seen = Counter((file_name(file["path"]), file["sha256"]) for file in files)
    lines = [f"- `{name}`, sha256 `{digest}`" for name, digest in seen]
    return ["These files are on no Hub and are needed as well:", "", *lines, ""]
