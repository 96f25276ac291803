"""Rows per second of decontamination beside a plain dict of 8-grams and datatrove's n-gram filter, on the same rows.

    python -m benchmarks.decontaminate                                  100,000 rows against 10,000 items
    python -m benchmarks.decontaminate --rows 1000000 --items 60000     ours and the index alone: add --only ours
    python -m benchmarks.decontaminate --rows 2000 --items 200          does it run at all

Rows and items are random words of a Zipf-like vocabulary, 65 a row; one row in a hundred holds an item, and one in ten
starts with a sentence that a tenth of the items share. Every side runs in a process of its own, so peaks are its own.

ours        find_matches on lists of texts; with 2 processes each reads parts of 5,000 rows from an Arrow
            file and maps the saved index
dict        the same exact rule in plain Python: n-gram → where it stands, sets of covered tokens
datatrove   NGramsDecontFilter.filter, one call a row: normalise, split, hash each 8-gram, ask its dict of hashes. Its
            word tokenizer is str.split, cheaper than spaCy, which it asks for and our set lacks; its index is built
            from the same hashes, as its indexer needs lighteval. It drops a row at the first shared 8-gram: it
            does less than the rule asks for. On `--datatrove_rows` rows only.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tulu_recipes.data.contamination.index import EvalIndex, EvaluationItems
from tulu_recipes.data.contamination.match import find_matches
from tulu_recipes.data.contamination.tokens import tokens_of

N = 8
PART_ROWS = 5_000
SIDES = ("ours", "ours_2", "dict", "datatrove")


class Result(NamedTuple):
    """Seconds to build the index and to go through the rows, rows flagged, peak of a worker in MiB."""

    index_seconds: float
    seconds: float
    flagged: int
    worker_peak_mib: float = 0.0


def make_rows(num_rows: int, num_items: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """(rows, items) of about 65 words each."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(50_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    pool = draw.choices(words, weights, k=4_000_000)
    shared = "Answer the following question and give only the letter of the correct choice"

    def text(length: int) -> str:
        start = draw.randrange(len(pool) - length)
        picked = draw.choices(pool[start : start + 4 * length], k=length)
        return " ".join(picked).capitalize() + "."

    items = [(shared + ": " if i % 10 == 0 else "") + text(draw.randint(30, 100)) for i in range(num_items)]
    rows = []
    for i in range(num_rows):
        row = text(draw.randint(30, 100))
        if i % 100 == 50:
            row = f"{row} {items[draw.randrange(num_items)].upper()}"
        rows.append(f"{shared}: {row}" if i % 10 == 0 else row)
    return rows, items


def run_ours(rows: list[str], items: list[str], folder: Path) -> Result:
    started = time.perf_counter()
    index = EvalIndex.build([EvaluationItems("items", [(item,) for item in items])], N)
    _flagged(index, ["a"])  # imports and tables of the first call
    built = time.perf_counter()
    flagged = 0
    for start in range(0, len(rows), PART_ROWS):
        flagged += _flagged(index, rows[start : start + PART_ROWS])
    return Result(built - started, time.perf_counter() - built, flagged)


def _flagged(index: EvalIndex, rows: list[str]) -> int:
    return len(set(find_matches(index, [[row] for row in rows])["row"].to_pylist()))


_index: EvalIndex


def _open_index(folder: Path) -> None:
    global _index
    _index = EvalIndex.load(folder)


def _flagged_in_part(file: Path, start: int) -> tuple[int, int]:
    """(rows flagged, peak resident KiB of this process)."""
    with pa.memory_map(str(file)) as source:
        rows = pa.ipc.open_file(source).read_all()["rows"].slice(start, PART_ROWS)
        matches = find_matches(_index, rows.combine_chunks())
    return len(set(matches["row"].to_pylist())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_ours_2(rows: list[str], items: list[str], folder: Path) -> Result:
    file = folder / "rows.arrow"
    table = pa.table({"rows": pa.array([[row] for row in rows])})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    del table
    started = time.perf_counter()
    EvalIndex.build([EvaluationItems("items", [(item,) for item in items])], N).save(folder / "index")
    built = time.perf_counter() - started
    with ProcessPoolExecutor(2, get_context("forkserver"), _open_index, (folder / "index",)) as pool:
        list(pool.map(_flagged_in_part, [file] * 2, [len(rows)] * 2))  # the processes are there
        started = time.perf_counter()
        starts = range(0, len(rows), PART_ROWS)
        flagged, peaks = zip(*pool.map(_flagged_in_part, [file] * len(starts), starts), strict=True)
        return Result(built, time.perf_counter() - started, sum(flagged), max(peaks) / 1024)


def run_dict(rows: list[str], items: list[str], folder: Path) -> Result:
    started = time.perf_counter()
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    lengths = []
    for number, item in enumerate(items):
        tokens = tokens_of(item, "as_released")
        lengths.append(len(tokens))
        for start in range(len(tokens) - N + 1):
            places[tuple(tokens[start : start + N])].append((number, start))
    built = time.perf_counter()
    flagged = sum(_flagged_by_dict(row, places, lengths) for row in rows)
    return Result(built - started, time.perf_counter() - built, flagged)


def _flagged_by_dict(row: str, places: dict[tuple[str, ...], list[tuple[int, int]]], lengths: list[int]) -> bool:
    tokens = row.lower().translate(_TO_SPACES).split(" ")
    tokens = [token for token in tokens if token]
    covered: dict[int, set[int]] = defaultdict(set)
    for start in range(len(tokens) - N + 1):
        for number, at in places.get(tuple(tokens[start : start + N]), ()):
            covered[number].update(range(at, at + N))
    return any(len(positions) / lengths[number] > 0.5 for number, positions in covered.items())


_TO_SPACES = str.maketrans(dict.fromkeys(' ,.?!:;()"-\n\\', " "))


def run_datatrove(rows: list[str], items: list[str], folder: Path) -> Result:
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text
    from datatrove.utils.word_tokenizers import WordTokenizer
    from xxhash import xxh64_intdigest

    class Split(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    started = time.perf_counter()
    dedup = NGramsDecontFilter(str(folder), NGramsDecontConfig(n_grams=N), language=Split())
    dedup.hash_func = lambda gram: xxh64_intdigest(gram.encode())  # its own gives xxhash a str, which xxhash 4 refuses
    hashes = set()
    for item in items:
        tokens = simplify_text(item, dedup.config.norm_config).split()
        hashes |= {dedup.hash_func(" ".join(gram)) for gram in ngrams(tokens, N)}
    np.array(list(hashes), dtype=dedup.config.hash_config.np_descr).tofile(folder / "items.index.hashes")
    dedup.load_index_hashes()
    built = time.perf_counter()
    flagged = sum(dedup.filter(Document(text=row, id="")) is not True for row in rows)
    return Result(built - started, time.perf_counter() - built, flagged)


RUN: dict[str, Callable[[list[str], list[str], Path], Result]] = {
    "ours": run_ours,
    "ours_2": run_ours_2,
    "dict": run_dict,
    "datatrove": run_datatrove,
}


def measure(side: str, num_rows: int, num_items: int, used: int) -> dict[str, Any]:
    """One side, in this process."""
    rows, items = make_rows(num_rows, num_items)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        result = RUN[side](rows[:used], items, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result._asdict() | {"rows": used, "peak_mib": peak / 1024, "rows_mib": before / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--datatrove_rows", type=int, default=5_000)
    parser.add_argument("--only", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        used = min(options.rows, options.datatrove_rows) if options.side == "datatrove" else options.rows
        print(json.dumps(measure(options.side, options.rows, options.items, used)))
        return
    arguments = [f"--{key}={getattr(options, key)}" for key in ("rows", "items", "datatrove_rows")]
    results = {}
    print(f"{options.rows:,} rows against {options.items:,} items; {N}-grams")
    print(
        f"{'':<10} {'rows/s':>9} {'with index':>11} {'index s':>8} {'flagged':>8} {'peak MiB (rows alone)':>22} "
        f"{'a worker':>9}"
    )
    for side in options.only:
        command = [sys.executable, "-m", "benchmarks.decontaminate", "--side", side, *arguments]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        results[side] = found["rows"] / found["seconds"]
        whole = found["rows"] / (found["seconds"] + found["index_seconds"])
        memory = f"{found['peak_mib']:,.0f} ({found['rows_mib']:,.0f})"
        worker = f"{found['worker_peak_mib']:,.0f}" if side == "ours_2" else ""
        print(
            f"{side:<10} {results[side]:>9,.0f} {whole:>11,.0f} {found['index_seconds']:>8.1f} {found['flagged']:>8,} "
            f"{memory:>22} {worker:>9}"
        )
    for side in ("dict", "datatrove"):
        for ours in [name for name in ("ours", "ours_2") if {name, side} <= results.keys()]:
            print(f"{ours} / {side}: {results[ours] / results[side]:.1f}")


if __name__ == "__main__":
    main()
