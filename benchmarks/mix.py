"""Rows per second and peak memory of a mix beside plain `datasets`, on the same chat rows.

    python -m benchmarks.mix                        1,000,000 rows, about 1.1 kB each
    python -m benchmarks.mix --rows 20000           does it run at all

ours        python -m tulu_recipes.mix: conversion, a length filter, exact duplicates, keyed order, lock, card
datasets    what recipe layers do instead: load_dataset, filter by length, shuffle(seed=42), to_parquet in shards;
            no duplicates, no lock, no card. With the same number of processes

Each side runs in processes of its own, with a fresh cache folder, from the same JSONL file. Peak memory is the sum
over the processes of the side, sampled every half second: resident (pages that two processes share count twice), and
proportional (they count once). Linux only.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

DATASETS = """
import sys
from datasets import load_dataset
source, target, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = load_dataset("json", data_files=source, split="train")
rows = rows.filter(
    lambda row: 1 <= sum(len(message["content"]) for message in row["messages"]) <= 20000, num_proc=workers
)
rows = rows.shuffle(seed=42)
shards = -(-len(rows) // 50_000)
for number in range(shards):
    rows.shard(shards, number).to_parquet(f"{target}/train-{number:05}-of-{shards:05}.parquet")
"""


class Result(NamedTuple):
    """Of one side: wall clock, and the largest sums of RSS and PSS over its processes, in bytes."""

    seconds: float
    rss: int
    pss: int


def write_chats(path: Path, rows: int) -> None:
    """Chats of one or two turns from 60,000 random sentences; deterministic."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(30_000)]
    sentences = [" ".join(draw.choices(words, k=14)) + "." for _ in range(60_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            messages = []
            for _ in range(draw.choice([1, 1, 1, 2])):
                for role, fewest, most in (("user", 1, 4), ("assistant", 2, 10)):
                    text = " ".join(draw.choices(sentences, k=draw.randint(fewest, most)))
                    messages.append({"role": role, "content": text})
            file.write(json.dumps({"id": f"row-{number}", "messages": messages}) + "\n")


def measure(command: list[str], folder: Path) -> Result:
    """Run a command with a cache of its own and watch its process tree."""
    environ = os.environ | {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
        rss = pss = 0
        while process.poll() is None:
            sizes = [_memory(pid) for pid in _tree(process.pid)]
            rss, pss = max(rss, sum(size[0] for size in sizes)), max(pss, sum(size[1] for size in sizes))
            time.sleep(0.5)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{(folder / 'output').read_text()[-4000:]}")
    return Result(time.perf_counter() - started, rss, pss)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for child in path.read_text().split() for one in _tree(int(child))]
        except OSError:
            continue  # it ended meanwhile
    return found


def _memory(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:] if line.endswith("kB")}
    return sizes["Rss"], sizes["Pss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tulu-mix-") as temporary:
        folder = Path(temporary)
        write_chats(folder / "chats.jsonl", options.rows)
        size = (folder / "chats.jsonl").stat().st_size
        print(f"{options.rows:,} rows, {size / 1e6:,.0f} MB of JSONL, {options.workers} workers", flush=True)
        results = {side: _run(side, folder, options) for side in ("ours", "datasets")}
    for side, result in results.items():
        print(
            f"{side:<10} {options.rows / result.seconds:>10,.0f} rows/s {result.seconds:>8.1f} s   "
            f"peak RSS {result.rss / 2**20:>7,.0f} MiB   PSS {result.pss / 2**20:>7,.0f} MiB"
        )
    ours, peer = results["ours"], results["datasets"]
    print(f"ours / datasets: time {ours.seconds / peer.seconds:.2f}, peak RSS {ours.rss / peer.rss:.2f}")


def _run(side: str, folder: Path, options: argparse.Namespace) -> Result:
    own, source = folder / side, str(folder / "chats.jsonl")
    (own / "out").mkdir(parents=True)
    workers = str(options.workers)
    if side == "datasets":
        command = [sys.executable, "-c", DATASETS, source, str(own / "out"), workers]
    else:
        mix = own / "mix.yaml"
        filters = "filters:\n  - characters: {min: 1, max: 20000}\n  - exact_duplicates\n"
        mix.write_text(f"sources:\n  - name: {source}\n{filters}", encoding="utf-8")
        command = [sys.executable, "-m", "tulu_recipes.mix", str(mix), "--output_dir", str(own / "out")]
        command += ["--workers", workers]
    return measure(command, own)


if __name__ == "__main__":
    main()
