"""The smallest data mix: a YAML list of sources, each whole or by one amount, concatenated in order.

target: sft
seed: 42
sources:
  - name: allenai/tulu-3-sft-mixture     # Hub id, file or folder
    revision: main                       # optional, like config and split
    rows: 1000                           # at most one of rows | fraction_of_source | repeat
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, concatenate_datasets

from tulu_recipes.data.rows import check_columns
from tulu_recipes.data.sources import load_rows
from tulu_recipes.errors import DataError, Problem

MIX_KEYS = {"target", "seed", "sources"}
SOURCE_KEYS = {"name", "config", "split", "revision", "rows", "fraction_of_source", "repeat"}
AMOUNTS = ("rows", "fraction_of_source", "repeat")


def load_mix(path: str | Path) -> dict[str, Any]:
    """Read and check a mix file; nothing is loaded.

    Raises:
        DataError: all problems of the file at once.
    """
    where = str(path)
    try:
        mix = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(Problem("mix-unreadable", where, f"{error}", "write a YAML file with `sources:`.")) from error
    problems = _check_mix(mix, where)
    if problems:
        raise DataError(problems)
    return {"target": "sft", "seed": 42, **mix}


def _check_mix(mix: Any, where: str) -> list[Problem]:
    if not isinstance(mix, dict) or not isinstance(mix.get("sources"), list) or not mix["sources"]:
        return [
            Problem("mix-unreadable", where, "The file has no list of `sources`.", "write `sources:` with a list.")
        ]
    problems = [
        Problem("mix-key-unknown", where, f"`{key}` is no key of a mix.", f"use {', '.join(sorted(MIX_KEYS))}.")
        for key in mix.keys() - MIX_KEYS
    ]
    if mix.get("target", "sft") != "sft":
        problems.append(
            Problem("mix-target", where, f"target: {mix['target']} is not an SFT mix.", "write  target: sft.")
        )
    for number, source in enumerate(mix["sources"], start=1):
        problems += _check_source(source, f"{where}, source {number}")
    return problems


def _check_source(source: Any, where: str) -> list[Problem]:
    if not isinstance(source, dict) or not isinstance(source.get("name"), str):
        return [Problem("mix-source", where, "A source needs a name.", "write  - name: <Hub id, file or folder>.")]
    problems = []
    for key in source.keys() - SOURCE_KEYS:
        mend = f"use {', '.join(sorted(SOURCE_KEYS))}."
        if key == "weight":
            mend = "say what is meant: `rows`, `fraction_of_source` or `repeat`; a weight has five meanings."
        problems.append(Problem("mix-key-unknown", where, f"`{key}` is no key of a source.", mend))
    amounts = [key for key in AMOUNTS if key in source]
    if len(amounts) > 1:
        problems.append(
            Problem("mix-amount", where, f"Both {' and '.join(amounts)} are given.", "keep exactly one amount.")
        )
    for key in amounts:
        problems += _check_amount(key, source[key], where)
    return problems


def _check_amount(key: str, value: Any, where: str) -> list[Problem]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    ok = number and value > 0
    if key == "rows":
        ok = ok and isinstance(value, int)
    if key == "fraction_of_source":
        ok = ok and value <= 1
    if ok:
        return []
    meaning = {
        "rows": "a whole number of rows above 0",
        "fraction_of_source": "a fraction above 0 and up to 1",
        "repeat": "how often each row is taken, above 0 (3.5 is allowed)",
    }[key]
    return [Problem("mix-amount", where, f"{key}: {value!r} makes no sense.", f"write {meaning}.")]


def build_mix(path: str | Path) -> Dataset:
    """All rows of a mix, sources in the order written, each row with its `source`.

    An amount takes the first rows of the source after a shuffle seeded with `seed`; a whole source keeps its order.
    """
    mix = load_mix(path)
    parts = []
    for source in mix["sources"]:
        rows = load_rows(
            source["name"],
            config=source.get("config"),
            split=source.get("split"),
            revision=source.get("revision"),
        )
        rows = _take(rows, source, mix["seed"], f"{path}, source {source['name']}")
        if "source" not in rows.column_names:
            rows = rows.add_column("source", [source["name"]] * len(rows))
        check_columns(rows.column_names, source["name"])
        layout = ["messages"] if "messages" in rows.column_names else ["prompt", "completion"]
        parts.append(rows.select_columns([*layout, "source"]))
    return concatenate_datasets(parts)


def _take(rows: Dataset, source: dict[str, Any], seed: int, where: str) -> Dataset:
    amount = next((key for key in AMOUNTS if key in source), None)
    if amount is None:
        return rows
    wanted = {
        "rows": lambda value: value,
        "fraction_of_source": lambda value: round(value * len(rows)),
        "repeat": lambda value: round(value * len(rows)),
    }[amount](source[amount])
    if amount == "rows" and wanted > len(rows):
        raise DataError(
            Problem(
                "mix-amount",
                where,
                f"rows: {wanted:,} is more than the {len(rows):,} rows there are.",
                "lower it, or use `repeat` to take rows more than once.",
            )
        )
    whole, rest = divmod(wanted, len(rows))
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(np.concatenate([np.tile(np.arange(len(rows)), whole), order[:rest]]))
