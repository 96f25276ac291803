"""Tokens per second and peak memory of our SFT stage beside `trl sft`, and how soon the commands answer.

    python -m benchmarks.sft                       about 8 minutes on two cores
    python -m benchmarks.sft --quick --steps 4     does it run at all

Same model (an 11M-parameter Llama), rows (recipes/tiny's) and settings; only steps are timed, so neither side's
preparation counts. Packing is compared with itself and with the padded runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.compare import Job, compare, peak, ratio
from tulu_recipes.data.template import TULU_TEMPLATE
from tulu_recipes.demo.tiny_model import build_tokenizer

ROOT = Path(__file__).parents[1]


def build_base(folder: Path, *, small: bool = False) -> Path:
    """A random Llama large enough that a step is arithmetic, not overhead. small: to see that a benchmark runs."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48 if small else 384,
            intermediate_size=128 if small else 1024,
            num_hidden_layers=1 if small else 6,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=1024,
        )
    )
    model.save_pretrained(folder)
    tokenizer.chat_template = TULU_TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder


def seconds(command: list[str], repeats: int) -> float:
    """Median wall time of a command, start of the interpreter included."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def print_start_up(repeats: int, folder: Path, *, quick: bool) -> None:
    """quick: without the command that counts a recipe's tokens."""
    broken = folder / "broken.yaml"
    broken.write_text("model_name_or_path: nowhere/at-all\nlearning_rat: 1e-5\nmax_length: four\n", encoding="utf-8")
    python = sys.executable
    peer = seconds([str(Path(python).parent / "trl"), "sft", "--help"], repeats)
    print(f"\nstart-up, median of {repeats}                       seconds   of `trl sft --help`")
    print(f"  {'trl sft --help':<44}{peer:>6.2f}   1.00")
    plan = [python, "-m", "tulu_recipes.plan"]
    commands = {
        "python -m tulu_recipes.sft --help": [python, "-m", "tulu_recipes.sft", "--help"],
        "python -m tulu_recipes.sft BROKEN.yaml": [python, "-m", "tulu_recipes.sft", str(broken)],
        "python -m tulu_recipes.plan BROKEN.yaml": [*plan, str(broken)],
    }
    if not quick:
        commands["python -m tulu_recipes.plan recipes/tiny/sft.yaml"] = [*plan, "recipes/tiny/sft.yaml"]
    for name, command in commands.items():
        took = seconds(command, repeats)
        print(f"  {name:<44}{took:>6.2f}   {took / peer:.2f}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sft", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of a run [40]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side [3]")
    parser.add_argument("--quick", action="store_true", help="one run of each side, a small model, copied processes")
    options = parser.parse_args(argv)
    repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = build_base(folder / "base", small=options.quick)
        (folder / "rows").mkdir()
        (folder / "rows" / "train.jsonl").symlink_to(ROOT / "data_mixes" / "tiny" / "sft.jsonl")
        settings = {
            "max_length": 256,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_steps": options.steps,
            "learning_rate": 1e-4,
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
        }
        warmup = max(options.steps // 4, 1)
        padded = Job(base, folder / "rows", settings, warmup)
        packed = Job(base, folder / "rows", settings | {"packing": True, "per_device_train_batch_size": 2}, warmup)
        load = os.getloadavg()[0]
        print(
            f"{os.cpu_count()} CPU cores · load {load:.1f} · torch {torch.__version__} · {options.steps} steps a run"
        )
        found = compare(
            {
                "trl": ("trl", padded),
                "ours": ("ours", padded),
                "trl packed": ("trl", packed),
                "ours packed": ("ours", packed),
            },
            repeats,
            folder,
            quick=options.quick,
        )
        print("\nratio of tokens/s, min – median – max")
        print(f"  ours / trl sft                     {ratio(found['ours'], found['trl'])}")
        print(f"  ours packed / trl sft packed       {ratio(found['ours packed'], found['trl packed'])}")
        print(f"  ours packed / trl sft padded       {ratio(found['ours packed'], found['trl'])}")
        print("ratio of peak memory (resident, whole process)")
        print(f"  ours / trl sft                     {peak(found['ours']) / peak(found['trl']):.2f}")
        print(f"  ours packed / trl sft packed       {peak(found['ours packed']) / peak(found['trl packed']):.2f}")
        print_start_up(repeats, folder, quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
