"""Optimizer steps, floating point operations, hours and price of a run. Formulas and sources: docs/plan.md."""

import difflib
import math
from dataclasses import dataclass

from tulu_recipes.config.activations import Lora
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.errors import Problem, RecipeError

# Share of the peak that a run reaches. The Tülu 3 8B SFT run, unpacked rows of about 760 tokens one at a time under
# ZeRO-3, took 32 H100 for 6 hours: 0.097 (docs/plan.md derives it; AI2's rerun on 64 H100 in 8.8 hours reached 0.033).
UNPACKED_MFU = 0.10
# Llama 3 405B, long full rows: 0.38 to 0.43 (arXiv 2407.21783, table 4).
PACKED_MFU = 0.40


@dataclass(frozen=True)
class Gpu:
    """One model of GPU.

    bf16_flops: peak per second, dense (no sparsity), float32 accumulation.
    memory_bytes: 1e9 per GB of the datasheet; what a driver reports differs by a few percent.
    """

    name: str
    bf16_flops: float
    memory_bytes: int


def _gpu(name: str, dense_bf16_teraflops: float, memory_gigabytes: int) -> Gpu:
    return Gpu(name, dense_bf16_teraflops * 1e12, memory_gigabytes * 10**9)


# Source: NVIDIA's datasheets, the figure "with sparsity" halved where only that is printed; for GeForce cards the
# architecture white papers, "FP16/BF16 with FP32 accumulate"; for MI300X AMD's datasheet.
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("B200", 2250, 180),
        _gpu("H200", 989.5, 141),
        _gpu("H100", 989.5, 80),  # SXM5
        _gpu("H100-PCIe", 756, 80),
        _gpu("A100", 312, 80),
        _gpu("A100-40GB", 312, 40),
        _gpu("L40S", 362, 48),
        _gpu("A10G", 70, 24),  # AWS's cut of the A10: 35 TFLOPS float32, 70 bfloat16
        _gpu("L4", 121, 24),
        _gpu("RTX-4090", 165.2, 24),
        _gpu("RTX-3090", 71, 24),
        _gpu("MI300X", 1307, 192),
    )
}


@dataclass(frozen=True)
class CostEstimate:
    """flops: of the whole run, recomputation included. price: in the currency of price_per_hour; None without one."""

    flops: float
    hours: float
    gpu_hours: float
    price: float | None


def num_optimizer_steps(
    num_rows: int,
    global_batch_size: int,
    num_train_epochs: float,
    drop_last: bool = False,
    max_steps: int = -1,
    gradient_accumulation_steps: int = 1,
) -> int:
    """Optimizer steps of a run: ceil(num_train_epochs · max(ceil(num_rows / global_batch_size), 1)).

    The last, smaller step of an epoch counts. drop_last drops an incomplete micro-batch across processes
    (global_batch_size / gradient_accumulation_steps rows), not an incomplete step. max_steps from 0 on overrides
    epochs.

    Source: transformers 5.17, Trainer.set_initial_training_values.
    """
    if max_steps >= 0:
        return max_steps
    micro_rows = global_batch_size // gradient_accumulation_steps
    micro_batches = num_rows // micro_rows if drop_last else math.ceil(num_rows / micro_rows)
    return math.ceil(num_train_epochs * max(math.ceil(micro_batches / gradient_accumulation_steps), 1))


def training_flops_per_token(
    shape: ModelShape,
    *,
    length: float,
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
    lm_head: bool = True,
) -> float:
    """Floating point operations that training spends on one token, forward and backward.

    full training:            6·M + 12·layers·query_size·length
    LoRA:                     4·M + 6·A + 12·layers·query_size·length
    gradient checkpointing:   + 2·M_layers + 4·layers·query_size·length

    M is the matrix weights of all layers and the LM head (also where tied; the embedding lookup costs nothing), A the
    adapter's parameters. Attention counts all length positions for every token, although half are masked.

    Args:
        length: mean tokens of a row (of a pair: of one side), not the padded or maximal one.
        lm_head: False for a reward model, which has none.
    Source: arXiv 2204.02311 (PaLM), appendix B; arXiv 2106.09685 for what LoRA leaves out.
    """
    layer_weights = _layer_weights(shape)
    weights = layer_weights + (shape.embedding_parameters if lm_head else 0)
    attention = 4 * shape.num_hidden_layers * shape.query_size * length
    forward = 2 * weights + attention
    if lora is None:
        flops = 3 * forward
    else:
        # Gradients of frozen weights are not computed; attention has no weights, so its backward costs what it did.
        adapter = shape.lora_parameters(lora.r, lora.target_modules)
        flops = 4 * weights + 6 * adapter + 3 * attention
    if gradient_checkpointing:
        flops += 2 * layer_weights + attention
    return flops


def forward_flops_per_token(shape: ModelShape, *, length: float) -> float:
    """Floating point operations of one token in a forward pass of a reference model: 2·M + 4·layers·q·length."""
    attention = 4 * shape.num_hidden_layers * shape.query_size * length
    return 2 * (_layer_weights(shape) + shape.embedding_parameters) + attention


def _layer_weights(shape: ModelShape) -> int:
    return shape.num_hidden_layers * sum(linear.in_features * linear.out_features for linear in shape.linears)


def find_gpu(name: str) -> Gpu:
    """The GPU of that name, whatever its case, spaces or dashes.

    Raises:
        RecipeError: gpu-unknown, with the nearest name.
    """
    by_plain_name = {_plain(known): gpu for known, gpu in GPUS.items()}
    if _plain(name) in by_plain_name:
        return by_plain_name[_plain(name)]
    nearest = difflib.get_close_matches(_plain(name), by_plain_name, n=1, cutoff=0.4)
    hint = f"Nearest: {by_plain_name[nearest[0]].name}. " if nearest else ""
    raise RecipeError(
        Problem(
            "gpu-unknown",
            f"gpu: {name}",
            f"No peak speed and memory are known for a GPU named {name!r}.",
            f"{hint}Known: {', '.join(GPUS)}.",
        )
    )


def estimate_hours(
    tokens: float, flops_per_token: float, gpu: Gpu | str, num_gpus: int, mfu: float = UNPACKED_MFU
) -> float:
    """Hours on num_gpus GPUs: tokens · flops_per_token / (num_gpus · peak · mfu) / 3600.

    Args:
        tokens: of the whole run, all epochs, padding not counted.
        mfu: share of the bf16 peak, 0-1. UNPACKED_MFU or PACKED_MFU unless measured.
    """
    device = find_gpu(gpu) if isinstance(gpu, str) else gpu
    return tokens * flops_per_token / (num_gpus * device.bf16_flops * mfu) / 3600


def estimate_cost(
    tokens: float,
    flops_per_token: float,
    gpu: Gpu | str,
    num_gpus: int,
    mfu: float = UNPACKED_MFU,
    price_per_hour: float | None = None,
) -> CostEstimate:
    """Hours, GPU hours and price. price_per_hour is of one GPU."""
    hours = estimate_hours(tokens, flops_per_token, gpu, num_gpus, mfu)
    gpu_hours = hours * num_gpus
    price = None if price_per_hour is None else gpu_hours * price_per_hour
    return CostEstimate(flops=tokens * flops_per_token, hours=hours, gpu_hours=gpu_hours, price=price)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "").replace("_", "").removeprefix("nvidia")
