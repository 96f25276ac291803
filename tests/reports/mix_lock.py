"""The lock of a small mix, written by hand, and a folder that holds what it says."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tulu_recipes.data.statistics import mix_statistics

FOLDER = "/home/builder/secret project"  # of the machine that built the mix: may appear nowhere
LOCAL = f"{FOLDER}/our rows.jsonl"
SHA = {"chats": "c" * 40, "robots": "d" * 40, "flan": "e" * 40}
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema([("messages", pa.list_(MESSAGE)), ("source", pa.string())])
LABELS = ["acme/chats", "robots|[x](y)", "acme/flan", LOCAL]
ROWS_OF_LABELS = [6, 2, 1, 3]


def step(name: str, rows_in: int, rows_out: int, **reasons: int) -> dict[str, Any]:
    return {"step": name, "rows_in": rows_in, "rows_out": rows_out, "reasons": reasons}


def source(name: str, revision: str | None, licence: str | None, steps: list[dict[str, Any]], **more: Any) -> Any:
    rows = more.pop("rows")
    path = more.pop("path", "data/train-0.parquet")
    return {
        "name": name,
        "label": None,
        "config": None,
        "split": "train",
        "asked_revision": "main" if revision else None,
        "revision": revision,
        "licence": licence,
        "layout": "messages",
        "files": [{"path": path, "bytes": 123, "sha256": hashlib.sha256(path.encode()).hexdigest()}],
        "rows_available": steps[0]["rows_in"],
        "steps": steps,
        "amount": {},
        "rows": rows,
        "distinct_rows": rows,
        "labels": {},
    } | more


def mix_lock() -> dict[str, Any]:
    """12 rows of 3 Hub sources and a local file; token counts 10, 20, … 120."""
    tokens = np.arange(1, 13) * 10
    label = np.repeat(np.arange(4), ROWS_OF_LABELS)
    sums = [int(tokens[label == i].sum()) for i in range(4)]
    languages = np.array(["en"] * 9 + ["no", "no", None], dtype=object)
    broken = step("broken", 10, 8, **{"empty completion": 2})
    short = step("characters", 8, 7, **{"shorter than 1": 1})
    sources = [
        source("acme/chats", SHA["chats"], "odc-by", [broken, short, step("characters", 7, 6), step("amount", 6, 6)],
               rows=6, config="main"),
        source("acme/robots", SHA["robots"], "CC-BY-NC-4.0", [step("broken", 1, 1), step("amount", 1, 2)],
               rows=2, distinct_rows=1, amount={"repeat": 2}, label="robots|[x](y)"),
        source("acme/flan", SHA["flan"], None, [step("broken", 90, 90), step("decontaminate", 90, 88, gsm8k=2)],
               rows=1, amount={"rows": 1}, split="test"),
        source(LOCAL, None, "mit", [step("broken", 3, 3)], rows=3, path=LOCAL, label=LOCAL),
    ]  # fmt: skip
    for entry, total in zip(sources, sums, strict=True):
        entry |= {"tokens": total, "characters": total * 4}
    return {
        "semantics": 1,
        "name": "tiny-mix",
        "mix_sha256": "1" * 64,
        "mix": resolved_mix(),
        "target": "sft",
        "seed": 42,
        "tokenizer": {"name": "acme/tokenizer", "revision": "f" * 40},
        "tools": {"tulu_recipes": "0.1.0", "python": "3.11.9"},
        "sources": sources,
        "decontamination": decontamination(),
        "result": {"rows": 12, "tokens": 780, "characters": 3120, "content_sha256": "2" * 64, "shards": []},
        "statistics": mix_statistics(label, LABELS, tokens, tokens * 4, np.full(12, 2), languages),
    }


def resolved_mix() -> dict[str, Any]:
    return {
        "target": "sft",
        "seed": 42,
        "tokenizer": "acme/tokenizer",
        "sources": [
            {"name": "acme/chats", "config": "main", "revision": "main"},
            {"name": "acme/robots", "repeat": 2, "label": "robots|[x](y)"},
            {"name": "acme/flan", "split": "test", "rows": 1},
            {"name": LOCAL, "label": LOCAL, "licence": "mit"},
        ],
        "filters": [{"characters": {"min": 1}}, {"regex": {"drop": ["/think", "```+"]}}, "my_package.filters:polite"],
        "decontaminate": {"against": f"{FOLDER}/evals.yaml"},
    }


def decontamination() -> dict[str, Any]:
    clean = {"source": "acme/chats", "evaluation": "gsm8k", "items": 1319, "overlapped": 0, "share": 0.0}
    clean |= {"rows_matched": 0, "contaminated": False, "action": "report", "rows_removed": 0}
    dirty = {"source": LOCAL, "evaluation": "gsm8k", "items": 1319, "overlapped": 40, "share": 40 / 1319}
    dirty |= {"rows_matched": 3, "contaminated": True, "action": "drop_rows", "rows_removed": 2}
    return {
        "evals_sha256": "3" * 64,
        "evaluations": [{"name": "gsm8k", "dataset": "openai/gsm8k", "revision": "a" * 40, "items": 1319}],
        "table": [clean, dirty],
    }


def mix_folder(folder: Path) -> dict[str, Any]:
    """Write the shards of `mix_lock` into `folder`; the lock that fits them."""
    lock = mix_lock()
    (folder / "data").mkdir(parents=True)
    labels = [label for label, count in zip(LABELS, ROWS_OF_LABELS, strict=True) for _ in range(count)]
    turns = [{"role": "user", "content": "private question"}, {"role": "assistant", "content": "private answer"}]
    for number, part in enumerate((labels[:7], labels[7:])):
        path = folder / f"data/train-{number:05}-of-00002.parquet"
        pq.write_table(pa.table({"messages": [turns] * len(part), "source": part}, schema=SCHEMA), path)
        content = path.read_bytes()
        shard = {"path": path.relative_to(folder).as_posix(), "rows": len(part), "bytes": len(content)}
        lock["result"]["shards"].append(shard | {"sha256": hashlib.sha256(content).hexdigest()})
    return lock
