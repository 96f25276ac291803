"""README.md of a scored dataset: by which model, what has no score, how to load it."""

from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.reports.card_tables import cell, table
from tulu_recipes.run import write_text


def write_score_card(folder: Path, record: dict[str, Any]) -> Path:
    """Write the dataset card from scores.json. Names come from other people, so they are escaped."""
    model, dataset = (cell(record[key]) for key in ("model", "dataset"))
    metadata = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}]}
    columns = " and ".join(f"`{name}`" for name in record["columns"])
    about = (
        f"All {record['rows']:,} rows of {dataset} ({cell(record['split'])}) with {columns}: what the reward model "
    )
    about += f"{model} gives to the whole conversation, at its last token."
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {dataset}, scored",
        "",
        about,
        "",
        *_facts(record),
        "",
        *table(
            ["column", "mean", "lowest", "highest"],
            [
                [f"`{name}`", *(f"{spread[key]:.4f}" for key in ("mean", "min", "max"))]
                for name, spread in record["scores"].items()
                if spread
            ],
        ),
        "",
        *_unscored(record),
    ]
    path = folder / "README.md"
    write_text(path, "\n".join(lines))
    return path


def _facts(record: dict[str, Any]) -> list[str]:
    made_of = record["made_of"]
    facts = [
        f"- model: commit {record['model_commit']}" if record["model_commit"] else f"- weights: {made_of['weights']}",
        f"- rows: commit {record['dataset_commit']}" if record["dataset_commit"] else f"- rows: {made_of['content']}",
        f"- longest row that is scored: {made_of['max_length'] or 'any'} tokens",
    ]
    if record.get("accuracy") is not None:
        facts.append(f"- the chosen answer has the higher score in {record['accuracy']:.1%} of the scored pairs")
    return facts


def _unscored(record: dict[str, Any]) -> list[str]:
    if not record["unscored"]:
        return ["Every row has a score.", ""]
    reasons = [[cell(why), f"{count:,}"] for why, count in record["reasons"].items()]
    lines = [f"{record['unscored']:,} rows have none (null):", "", *table(["why", "rows"], reasons), ""]
    return [*lines, "The first of them: " + cell("; ".join(record["examples"])) + ".", ""]
