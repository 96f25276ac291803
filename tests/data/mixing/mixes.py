"""Mix files and builds for tests: rows in a folder, a YAML beside them, the passes in this process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from rich.console import Console

from tests.tiny import write_rows
from tulu_recipes.data.mixing.build import Built, LocalPasses, build_mix
from tulu_recipes.data.mixing.lock import Lock
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.errors import DataError, Problem

QUIET = Console(quiet=True)


def chat(question: str, answer: str = "Yes.", **columns: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **columns}


def chats(count: int, prefix: str = "question", **columns: Any) -> list[dict[str, Any]]:
    return [chat(f"{prefix} {number}", f"answer {number} to {prefix}", **columns) for number in range(count)]


def write_mix(folder: Path, sources: Mapping[str, list[dict[str, Any]]] | None = None, **mix: Any) -> Path:
    """mix.yaml in `folder`; `sources` by file name are written and named in it, unless `mix` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (sources or {}).items():
        write_rows(folder / name, rows)
    named = [{"name": str(folder / name)} for name in sources or {}]
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"target": "sft", "sources": named} | mix, sort_keys=False), encoding="utf-8")
    return path


def describe_nothing(folder: Path, lock: Lock) -> None:
    (folder / "README.md").write_text(json.dumps(lock["result"]), encoding="utf-8")


def build(mix: Path, output_dir: Path, *, workers: int = 1, **options: Any) -> Built:
    return build_mix(
        load_mix(mix), output_dir, passes=LocalPasses(workers, QUIET), describe=describe_nothing, **options
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The finished rows in their order, read by pyarrow alone."""
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def questions(folder: Path) -> list[str]:
    return [row["messages"][0]["content"] for row in rows_of(folder)]


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("data/*.parquet"))}


def problems_of(mix: Path, output_dir: Path | None = None, **options: Any) -> list[Problem]:
    try:
        build(mix, output_dir or mix.parent / "out", **options)
    except DataError as error:
        return error.problems
    raise AssertionError("the mix was built")


def to_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    Dataset.from_list(rows).to_parquet(path)
    return path
