"""The YAML head of a mix's card, in the words the Hub knows."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Features
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from tulu_recipes.data.licences import LicenceSummary
from tulu_recipes.reports.shown_names import hub_repo

DATA_FILES = "data/train-*.parquet"
TASKS = {
    "sft": ["text-generation"],
    "preference": ["text-generation", "reinforcement-learning"],
    "rlvr": ["reinforcement-learning", "text-generation"],
}
LEAST_LANGUAGE_SHARE = 0.005  # of rows; below that, a code is more often a detector's mistake than a language
SIZES = [
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
]


def card_metadata(
    folder: Path, lock: Mapping[str, Any], licences: LicenceSummary, repo_id: str | None
) -> DatasetCardData:
    """Metadata of the finished mix in `folder`; features come from its first shard."""
    languages = main_languages(lock["statistics"]["total"]["languages"])
    data = DatasetCardData(
        pretty_name=lock["name"],
        language=languages or None,
        task_categories=TASKS[lock["target"]],
        tags=["tulu-recipes", lock["target"]],
        size_categories=[size_category(lock["result"]["rows"])],
        source_datasets=source_datasets(lock),
        **_licence(licences, repo_id),
    )
    data["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILES}]}]
    info = _dataset_info(folder, lock)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return data


def _licence(licences: LicenceSummary, repo_id: str | None) -> dict[str, Any]:
    if licences.hub_name is None:
        return {"license": licences.hub_id}
    link = {"license_link": f"https://huggingface.co/datasets/{repo_id}#licence"} if repo_id else {}
    return {"license": licences.hub_id, "license_name": licences.hub_name} | link


def main_languages(counts: Mapping[str, int] | None) -> list[str]:
    """Codes of the languages that enough rows are in, the most frequent first."""
    counts = counts or {}
    least = LEAST_LANGUAGE_SHARE * sum(counts.values())
    return [code for code, count in counts.items() if count >= least and re.fullmatch("[a-z]{2,3}", code)]


def size_category(rows: int) -> str:
    return next((name for limit, name in SIZES if rows < limit), "n>1B")


def source_datasets(lock: Mapping[str, Any]) -> list[str]:
    """Hub ids of the sources, each once; "original" for rows that come from local files."""
    found = dict.fromkeys(hub_repo(source) or "original" for source in lock["sources"])
    return list(found)


def _dataset_info(folder: Path, lock: Mapping[str, Any]) -> DatasetInfo:
    result = lock["result"]
    footers = [pq.read_metadata(folder / shard["path"]) for shard in result["shards"]]
    size = sum(footer.row_group(i).total_byte_size for footer in footers for i in range(footer.num_row_groups))
    splits = SplitDict()
    splits.add(SplitInfo("train", num_bytes=size, num_examples=result["rows"]))
    return DatasetInfo(
        features=Features.from_arrow_schema(footers[0].schema.to_arrow_schema()) if footers else None,
        splits=splits,
        download_size=sum(shard["bytes"] for shard in result["shards"]),
        dataset_size=size,
    )
