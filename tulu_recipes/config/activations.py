"""Bytes that a forward pass keeps for its backward pass, and the workspace of the fused LM head.

The counts list the tensors that autograd really saves for a Llama-like layer of transformers 5.17 (read off with
torch.autograd.graph.saved_tensors_hooks), not the rounded factors of the literature: RMS norms run in float32, the
attention kernel keeps its inputs and its output, SwiGLU keeps four tensors, and a frozen layer keeps less.
Symbols and formulas: docs/plan.md. Here T stands for the tokens of one micro-batch on one device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tulu_recipes.config.model_shape import Linear, ModelShape

FLOAT32 = 4

# trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE and trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE in TRL 1.16: logits
# exist only as one tile of this size, which is allocated at full width even for a smaller vocabulary.
TILE_VOCABULARY = 32768
TILE_TOKENS = 4096

# Without Triton (CPU) TRL folds a tile with plain torch operations. Float32 copies of the tile that are alive at once,
# the last quarter being a boolean mask. On CUDA the kernel works in place.
CPU_TILE_COPIES_FORWARD = 3.25
CPU_TILE_COPIES_BACKWARD = 7.25


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter on every layer, under peft's key names."""

    r: int
    target_modules: str | Sequence[str] = ("q_proj", "v_proj")
    dropout: float = 0.0


@dataclass(frozen=True)
class Precision:
    """Bytes per number in each role.

    compute: in matrix products and attention.
    residual: in the hidden states that run from layer to layer.
    casts_inputs: autocast over float32 weights: every projection casts, and keeps, its own copy of its input.
    """

    compute: int
    residual: int
    casts_inputs: bool


@dataclass(frozen=True)
class MicroBatch:
    """What one device ("cuda" or "cpu") sees at once: batch_size rows of length tokens.

    padded: rows differ in length. Attention then gets a mask, and SDPA cannot share keys between query heads.
    """

    batch_size: int
    length: int
    attn_implementation: str = "sdpa"
    padded: bool = False
    device: str = "cuda"

    @property
    def tokens(self) -> int:
        return self.batch_size * self.length


def layer_activation_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision, lora: Lora | None) -> int:
    """Bytes one decoder layer keeps until its backward pass."""
    targets = shape.lora_targets(lora.target_modules) if lora else ()
    per_token = (
        _norm_bytes(shape, precision, trained=lora is None)
        + _attention_bytes(shape, batch, precision)
        + _mlp_bytes(shape, precision)
        + _linear_input_bytes(shape, batch, precision, lora, targets)
    )
    return round(batch.tokens * per_token)


def outer_activation_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision, lora: Lora | None) -> int:
    """Bytes kept outside the layers: the last norm, the input of the LM head, the rotary tables."""
    last_norm = FLOAT32 * shape.hidden_size + (0 if lora else precision.residual * shape.hidden_size)
    head_input = precision.residual * shape.hidden_size
    rotary = 2 * shape.head_dim * precision.residual
    return batch.tokens * (last_norm + head_input) + batch.length * rotary


def layer_backward_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision) -> int:
    """Gradients in flight inside one layer: of the product, the gate and up, less the product, freed just before."""
    return 2 * precision.compute * batch.tokens * shape.intermediate_size


def checkpoint_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision) -> int:
    """Bytes one layer keeps under gradient checkpointing: its input."""
    return batch.tokens * shape.hidden_size * precision.residual


def head_forward_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision) -> int:
    """Workspace of the fused LM head in the forward pass: one tile of logits and, on CPU, copies of it."""
    return _tile_bytes(precision, batch) + _cpu_tile_copies(shape, batch, CPU_TILE_COPIES_FORWARD)


def head_backward_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision, *, head_trained: bool) -> int:
    """Workspace of the fused LM head in the backward pass.

    One tile, the float32 gradients of the hidden states and of the head (both whole), and the cast chunk of weights
    where autocast makes one. Where the stored weight is float32 its gradient is handed on without a copy: the
    caller counts it here, not again among the gradients.
    """
    hidden_gradient = FLOAT32 * batch.tokens * shape.hidden_size
    weight_gradient = FLOAT32 * shape.embedding_parameters if head_trained else 0
    weight_chunk = min(shape.vocab_size, TILE_VOCABULARY) * shape.hidden_size * precision.compute
    return (
        _tile_bytes(precision, batch)
        + _cpu_tile_copies(shape, batch, CPU_TILE_COPIES_BACKWARD)
        + hidden_gradient
        + weight_gradient
        + (weight_chunk if precision.casts_inputs else 0)
    )


def logits_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision, size: int) -> tuple[int, int]:
    """Bytes of whole logits, (forward, backward): backward holds two gradients beside them.

    Args:
        size: bytes of a number of the logits as the loss sees them. Autocast casts the weight of the head too.
    Source: trl.experimental.cpo, which computes log-probs from them row by row.
    """
    numbers = batch.tokens * shape.vocab_size
    before_cast = precision.compute * numbers if size > precision.compute else 0
    weight = precision.compute * shape.embedding_parameters if precision.casts_inputs else 0
    return size * numbers + before_cast + weight, 3 * size * numbers + weight


def _tile_bytes(precision: Precision, batch: MicroBatch) -> int:
    return min(batch.tokens, TILE_TOKENS) * TILE_VOCABULARY * precision.compute


def _cpu_tile_copies(shape: ModelShape, batch: MicroBatch, copies: float) -> int:
    if batch.device != "cpu":
        return 0
    return round(copies * FLOAT32 * min(batch.tokens, TILE_TOKENS) * min(shape.vocab_size, TILE_VOCABULARY))


def _norm_bytes(shape: ModelShape, precision: Precision, *, trained: bool) -> float:
    """Per token: the float32 input of each norm, 1/rms, and, if its gain is trained, the normalised value."""
    per_feature = FLOAT32 + (precision.residual if trained else 0)
    features = shape.architecture.norms_per_layer * shape.hidden_size
    if shape.architecture.query_key_norm != "none":
        features += shape.query_size + shape.key_value_size
    return per_feature * features + FLOAT32 * shape.architecture.norms_per_layer


def _attention_bytes(shape: ModelShape, batch: MicroBatch, precision: Precision) -> float:
    """Per token: queries, keys, values and output; scores only in eager attention, a mask only in padded SDPA."""
    compute, heads = precision.compute, shape.num_attention_heads
    if batch.attn_implementation == "eager":
        # Softmax runs in float32; a half-precision model keeps its result a second time, cast.
        score = FLOAT32 + (compute if compute < FLOAT32 else 0)
        return 4 * compute * shape.query_size + score * heads * batch.length
    log_sum_exp = FLOAT32 * heads
    if batch.attn_implementation == "sdpa" and batch.padded:
        # Keys and values are repeated for each query head; the mask becomes floats (B, 1, L, L) in every layer.
        return 4 * compute * shape.query_size + log_sum_exp + compute * batch.length
    return compute * (2 * shape.query_size + 2 * shape.key_value_size) + log_sum_exp


def _mlp_bytes(shape: ModelShape, precision: Precision) -> float:
    """Per token: gate before and after its activation, and up. Their product is the input of down_proj."""
    return 3 * precision.compute * shape.intermediate_size


def _linear_input_bytes(
    shape: ModelShape, batch: MicroBatch, precision: Precision, lora: Lora | None, targets: tuple[Linear, ...]
) -> float:
    """Per token: inputs kept to compute weight gradients. Frozen projections keep none; an adapter keeps its own.

    q, k and v read one tensor, gate and up another; autocast makes a copy for each. The input of o_proj is the output
    of the attention kernel, counted there. Dropout gives each adapter an input of its own.
    """
    compute = precision.compute
    if lora is not None and lora.dropout > 0:
        # The mask is kept too: a boolean on CUDA, a tensor like its input on CPU.
        mask = compute if batch.device == "cpu" else 1
        return sum((compute + mask) * linear.in_features + compute * lora.r for linear in targets)
    consumers = {linear.name for linear in (shape.linears if lora is None else targets)}
    kept = sum(compute * lora.r for _ in targets) if lora else 0
    if "down_proj" in consumers:
        kept += compute * shape.intermediate_size
    for readers in ({"q_proj", "k_proj", "v_proj", "qkv_proj"}, {"gate_proj", "up_proj", "gate_up_proj"}):
        copies = len(readers & consumers)
        kept += compute * shape.hidden_size * (copies if precision.casts_inputs else min(copies, 1))
    return kept
