"""Pairs per second and peak memory of our DPO stage beside `trl dpo`, with two models and with cached log-probs.

    python -m benchmarks.dpo                       about 15 minutes on two cores
    python -m benchmarks.dpo --quick --steps 3     does it run at all

Same model (an 11M-parameter Llama), pairs (recipes/tiny's), masking (TRL's: the last turn) and loss; only steps are
timed, so neither side's preparation counts, nor the pass that fills a cache. Both sides must have seen equally many
tokens.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.compare import Job, compare, peak, ratio
from benchmarks.sft import ROOT, build_base

# name -> side, what it does otherwise than the job, and the run it is compared with
RUNS = {
    "trl": ("trl", {}, {}, "trl"),
    "ours": ("ours", {}, {}, "trl"),
    "ours separate": ("ours", {}, {"concatenated_forward": False}, "trl"),
    "trl cached": ("trl", {"precompute_ref_log_probs": True}, {}, "trl"),
    "ours cached": ("ours", {"precompute_ref_log_probs": True}, {}, "trl cached"),
}


def write_rows(folder: Path) -> Path:
    """recipes/tiny's pairs without `prompt`, a text there, which TRL cannot add to lists of messages."""
    folder.mkdir()
    with (ROOT / "data_mixes" / "tiny" / "preference.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    text = "".join(json.dumps({side: row[side] for side in ("chosen", "rejected")}) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dpo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of a run [40]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side [3]")
    parser.add_argument("--quick", action="store_true", help="one run of each side, a small model, copied processes")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "loss_type": "sigmoid_norm",
            "beta": 5.0,
            "max_length": 128,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_steps": options.steps,
            "learning_rate": 1e-5,
            "dtype": "float32",
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
        }
        base = build_base(folder / "base", small=options.quick)
        job = Job(base, write_rows(folder / "rows"), settings, max(options.steps // 4, 1), stage="dpo")
        load = os.getloadavg()[0]
        print(
            f"{os.cpu_count()} CPU cores · load {load:.1f} · torch {torch.__version__} · {options.steps} steps a run"
        )
        jobs = {
            name: (side, replace(job, settings=settings | both, ours=ours))
            for name, (side, both, ours, _) in RUNS.items()
        }
        found = compare(jobs, 1 if options.quick else options.repeats, folder, quick=options.quick)
    tokens = {run.tokens for runs in found.values() for run in runs}
    if len(tokens) != 1:
        raise SystemExit(f"The sides did not do the same work: they saw {sorted(tokens)} tokens.")
    print("\nratio of pairs/s, min – median – max")
    pairs = [(name, peer) for name, (*_, peer) in RUNS.items() if name != peer] + [("ours cached", "ours")]
    pairs += [("trl cached", "trl")]
    for name, peer in dict.fromkeys(pairs):
        print(f"  {f'{name} / {peer}':<30}{ratio(found[name], found[peer])}")
    print("ratio of peak memory (resident, whole process)")
    for name, peer in dict.fromkeys(pairs):
        print(f"  {f'{name} / {peer}':<30}{peak(found[name]) / peak(found[peer]):.2f}")
    print("peak memory, MiB")
    for name, runs in found.items():
        print(f"  {name:<30}{peak(runs) / 2**20:,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
