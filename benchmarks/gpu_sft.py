"""The same comparison on one CUDA device, with a random Llama of about 1.1B parameters in bf16: tokens/s, MFU, memory.

python -m benchmarks.gpu_sft                   about 10 minutes on one H100 or H200; writes benchmarks/results/
"""

import argparse
import json
import random
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.compare import Job, Measured, compare, peak, ratio
from tulu_recipes.config.cost import find_gpu, training_flops_per_token
from tulu_recipes.config.memory import estimate_memory
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.demo.tiny_model import build_tokenizer
from tulu_recipes.errors import RecipeError

RESULTS = Path(__file__).parent / "results"
SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def build_base(folder: Path) -> Path:
    """The shape of TinyLlama 1.1B with random weights; the tokenizer is the demo's, the vocabulary its size."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def write_rows(folder: Path, rows: int, length: int) -> Path:
    """Conversations of about `length` tokens, nine tenths of them the answer."""
    folder.mkdir()
    choose = random.Random(0)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(rows):
            words = [str(choose.randint(0, 9)) for _ in range(int(length * 0.45))]
            messages = [
                {"role": "user", "content": " ".join(words[: length // 20])},
                {"role": "assistant", "content": " ".join(words[length // 20 :])},
            ]
            file.write(json.dumps({"messages": messages, "source": "random"}) + "\n")
    return folder


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_sft", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of a run [30]")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side [3]")
    parser.add_argument("--max_length", type=int, default=2048, help="tokens of a row [2048]")
    parser.add_argument("--per_device_train_batch_size", type=int, default=4, help="rows of a step [4]")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="recompute activations")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.stderr.write("gpu_sft needs a CUDA device and there is none; benchmarks.sft compares on the CPU.\n")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "max_length": options.max_length,
            "per_device_train_batch_size": options.per_device_train_batch_size,
            "gradient_accumulation_steps": 1,
            "max_steps": options.steps,
            "learning_rate": 1e-5,
            "dtype": "float32",
            "bf16": True,
            "gradient_checkpointing": options.gradient_checkpointing,
        }
        rows = write_rows(folder / "rows", options.per_device_train_batch_size * options.steps, options.max_length)
        job = Job(build_base(folder / "base"), rows, settings, warmup_steps=max(options.steps // 4, 1))
        found = compare({"trl": ("trl", job), "ours": ("ours", job)}, options.repeats, folder)
    report(options, found)
    return 0


def report(options: argparse.Namespace, found: dict[str, list[Measured]]) -> None:
    """Print the figures and keep them, with date and hardware."""
    shape = ModelShape.from_config({"model_type": "llama", **SHAPE})
    flops = training_flops_per_token(
        shape, length=options.max_length, gradient_checkpointing=options.gradient_checkpointing
    )
    estimate = estimate_memory(
        shape,
        sharding="none",
        num_processes=1,
        per_device_train_batch_size=options.per_device_train_batch_size,
        max_length=options.max_length,
        weights_dtype="float32",
        mixed_precision="bf16",
        gradient_checkpointing=options.gradient_checkpointing,
        padded=True,
    )
    name = torch.cuda.get_device_name(0)
    best = max(run.per_second for run in found["ours"])
    try:
        mfu = f"{best * flops / find_gpu(name.split()[1] if ' ' in name else name).bf16_flops:.1%}"
    except RecipeError:
        mfu = "unknown: the GPU's peak is not in the table"
    lines = [
        f"# SFT on one {name}, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.gpu_sft {' '.join(sys.argv[1:])}` · torch {torch.__version__}",
        f"{shape.num_parameters:,} parameters · rows of {options.max_length} tokens",
        "",
        f"- tokens/s, ours: {best:,.0f} · MFU {mfu}",
        f"- ours / trl sft, min – median – max: {ratio(found['ours'], found['trl'])}",
        f"- peak memory, ours: {peak(found['ours']) / 1e9:.1f} GB (plan says {estimate.total / 1e9:.1f})",
        f"- peak memory, ours / trl sft: {peak(found['ours']) / peak(found['trl']):.2f}",
        "",
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"gpu_sft-{datetime.now(UTC):%Y%m%d-%H%M}.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
