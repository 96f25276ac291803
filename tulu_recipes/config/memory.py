"""Bytes of accelerator memory that one training step needs on each device, by part and by moment.

A step has five moments that can set the peak: the end of the forward pass; the backward passes of the LM head, of the
last layer (all activations are there yet) and of the first (nearly all gradients are there by then); and the
optimizer's own step. The estimate is the largest of the five. Formulas, sources and what is left out: docs/plan.md.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from tulu_recipes.config.activations import (
    FLOAT32,
    Lora,
    MicroBatch,
    Precision,
    checkpoint_bytes,
    head_backward_bytes,
    head_forward_bytes,
    layer_activation_bytes,
    layer_backward_bytes,
    logits_bytes,
    outer_activation_bytes,
)
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.errors import Problem, RecipeError

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp2"]
WeightsDtype = Literal["float32", "bfloat16", "nf4"]
MixedPrecision = Literal["no", "bf16"]
# fused: TRL's tiled LM head. logits: whole logits (SimPO). score: one number a row, no LM head (reward model).
Head = Literal["fused", "logits", "score"]

BFLOAT16 = 2
# bitsandbytes NF4: 4 bits and one float32 scale for each block of 64 numbers (no nested quantisation).
NF4 = 0.5 + FLOAT32 / 64
# One byte and one float32 scale for each block of 256 numbers (arXiv 2110.02861, bitsandbytes).
STATE_8BIT = 1 + FLOAT32 / 256
# DeepSpeed's defaults, which hold unless a DeepSpeed JSON says otherwise: reduce_bucket_size,
# stage3_max_live_parameters, sub_group_size. All in numbers, not bytes.
REDUCE_BUCKET = 500_000_000
MAX_LIVE_PARAMETERS = 1_000_000_000
SUB_GROUP = 1_000_000_000

# Optimizer states per trained number, in numbers of the stored precision, for transformers' names of optimizers.
OPTIMIZER_STATES = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "paged_adamw_32bit": 2,
    "lion_32bit": 1,
    "sgd": 0,
}
OPTIMIZERS_8BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    weights: stored parameters, float32 where plain mixed precision keeps them so.
    masters: float32 copies that DeepSpeed keeps beside the weights it computes with; 0 elsewhere.
    gradients: when all of them are there.
    optimizer: its states.
    activations: what the forward pass of one micro-batch keeps.
    logits: workspace of the LM head, at its largest; tokens x vocabulary only where head is "logits".
    reference: a frozen copy that DPO compares with; part of no other field.
    working: gathered or cast copies of weights and communication buffers, at their largest.
    moments: bytes in use at each moment that can set the peak. With gradient_accumulation_steps 1 gradients grow
        while activations shrink, so the peak is less than the sum of the parts.
    """

    weights: int
    masters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    working: int
    reference: int
    moments: dict[str, int]

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def total(self) -> int:
        """Bytes at the peak. The CUDA context (about 0.5 GB) and fragmentation come on top."""
        return self.moments[self.peak_moment]


@dataclass(frozen=True)
class _Run:
    """The arguments of estimate_memory with what follows from them."""

    shape: ModelShape
    sharding: Sharding
    num_processes: int
    batch: MicroBatch
    weights_dtype: WeightsDtype
    mixed_precision: MixedPrecision
    optimizer: str
    gradient_checkpointing: bool
    gradient_accumulation_steps: int
    lora: Lora | None
    head: Head
    num_graphs: int
    has_reference: bool

    @property
    def deepspeed(self) -> bool:
        return self.sharding.startswith("zero")

    @property
    def weights_sharded_by(self) -> int:
        return self.num_processes if self.sharding in ("zero3", "fsdp2") else 1

    @property
    def gradients_sharded_by(self) -> int:
        return self.num_processes if self.sharding in ("zero2", "zero3", "fsdp2") else 1

    @property
    def optimizer_sharded_by(self) -> int:
        return self.num_processes if self.sharding not in ("none", "ddp") else 1

    @property
    def num_parameters(self) -> int:
        """All numbers of the model, the adapter apart."""
        return self.shape.scorer_parameters if self.head == "score" else self.shape.num_parameters

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        if self.lora is None:
            return self.num_parameters
        score = self.shape.hidden_size if self.head == "score" else 0
        return self.shape.lora_parameters(self.lora.r, self.lora.target_modules) + score

    @property
    def head_parameters(self) -> int:
        return 0 if self.head == "score" else self.shape.embedding_parameters

    @property
    def tied(self) -> bool:
        return self.shape.tie_word_embeddings and self.head != "score"

    @property
    def reference_bytes(self) -> int:
        """Bytes of the whole reference model, as it is loaded; DeepSpeed casts it, FSDP2 does not raise it."""
        if self.deepspeed:
            return self.base_bytes * self.num_parameters
        return (FLOAT32 if self.weights_dtype == "float32" else BFLOAT16) * self.num_parameters

    @property
    def base_bytes(self) -> int:
        """Bytes per stored number of the base model, before sharding; NF4 projections apart."""
        if self.deepspeed:
            return BFLOAT16 if self.mixed_precision == "bf16" else FLOAT32
        if self.sharding == "fsdp2" and self.mixed_precision == "bf16" and self.lora is None:
            return FLOAT32  # accelerate raises trained parameters to float32 and gathers them in bfloat16
        return FLOAT32 if self.weights_dtype == "float32" else BFLOAT16

    @property
    def trained_bytes(self) -> int:
        """Bytes per stored number that is trained. peft keeps adapters in float32, DeepSpeed casts them."""
        return FLOAT32 if self.lora is not None and not self.deepspeed else self.base_bytes

    @property
    def precision(self) -> Precision:
        stored = self.base_bytes
        if self.mixed_precision == "no" or self.deepspeed:
            return Precision(compute=stored, residual=stored, casts_inputs=False)
        casts = self.sharding in ("none", "ddp") and stored == FLOAT32
        return Precision(compute=BFLOAT16, residual=FLOAT32 if casts else BFLOAT16, casts_inputs=casts)

    @property
    def graph_bytes(self) -> int:
        """Bytes per number of the weights that autograd sees: the gathered ones under FSDP2, else the stored ones."""
        return FLOAT32 if self.precision.casts_inputs else self.precision.compute

    @property
    def layer_linear_parameters(self) -> int:
        return sum(linear.num_parameters for linear in self.shape.linears)

    @property
    def model_bytes(self) -> int:
        """Bytes of the stored base model, whole."""
        if self.weights_dtype != "nf4":
            return self.base_bytes * self.num_parameters
        quantised = self.shape.num_hidden_layers * self.layer_linear_parameters
        return round(NF4 * quantised + self.base_bytes * (self.num_parameters - quantised))


def estimate_memory(
    shape: ModelShape,
    *,
    sharding: Sharding,
    num_processes: int,
    per_device_train_batch_size: int,
    max_length: int,
    weights_dtype: WeightsDtype,
    mixed_precision: MixedPrecision,
    optimizer: str = "adamw_torch_fused",
    gradient_checkpointing: bool = False,
    gradient_accumulation_steps: int = 1,
    attn_implementation: str = "sdpa",
    padded: bool = False,
    lora: Lora | None = None,
    device: Literal["cuda", "cpu"] = "cuda",
    head: Head = "fused",
    num_graphs: int = 1,
    has_reference: bool = False,
) -> MemoryEstimate:
    """Peak bytes per device of training with TRL 1.16, and the parts it is made of.

    Args:
        sharding: who holds what; "none" is one process, "ddp" whole copies, zero1 to zero3 DeepSpeed, fsdp2 FSDP2.
        max_length: tokens of the longest row of a micro-batch.
        weights_dtype: of the loaded model; DeepSpeed with bf16 computes in bfloat16 whatever was loaded.
        optimizer: transformers' name, a key of OPTIMIZER_STATES or one of OPTIMIZERS_8BIT.
        padded: rows of one micro-batch differ in length (per-device batch above 1, not packed).
        device: "cpu" adds the copies that the LM head makes where there is no Triton.
        num_graphs: forward passes before one backward; DPO with `concatenated_forward: false` has two, each of
            per_device_train_batch_size rows.
        has_reference: a frozen second model in memory.
    Raises:
        RecipeError: optimizer-memory-unknown; memory-setting-unknown.
    Source: arXiv 1910.02054 (weights, gradients, states by ZeRO stage); the rest docs/plan.md.
    """
    _check("sharding", sharding, get_args(Sharding))
    _check("weights_dtype", weights_dtype, get_args(WeightsDtype))
    _check("mixed_precision", mixed_precision, get_args(MixedPrecision))
    batch = MicroBatch(per_device_train_batch_size, max_length, attn_implementation, padded, device)
    run = _Run(
        shape,
        sharding,
        num_processes,
        batch,
        weights_dtype,
        mixed_precision,
        optimizer,
        gradient_checkpointing,
        gradient_accumulation_steps,
        lora,
        head,
        num_graphs,
        has_reference,
    )
    return _assemble(run)


def _assemble(run: _Run) -> MemoryEstimate:
    adapter = run.trained * run.trained_bytes if run.lora else 0
    weights = (run.model_bytes + adapter) // run.weights_sharded_by
    masters = FLOAT32 * run.trained // run.optimizer_sharded_by if run.deepspeed else 0
    gradients = run.trained * run.trained_bytes // run.gradients_sharded_by
    optimizer = _optimizer_bytes(run) // run.optimizer_sharded_by
    reference = run.reference_bytes // run.weights_sharded_by if run.has_reference else 0
    activations, one_layer = _activation_bytes(run)
    head_forward, head_backward = _head_bytes(run)
    head_gradient = run.graph_bytes * run.head_parameters if run.lora is None else 0

    buffers, backward_buffers = _buffer_bytes(run)
    forward_copies, backward_copies, layer_copies = _weight_copies(run)
    resident = weights + masters + optimizer + buffers + reference
    # ZeRO-3 sets the space for its share of the gradients aside at the start.
    accumulated = gradients if run.gradient_accumulation_steps > 1 or run.sharding == "zero3" else 0
    forward = resident + accumulated + run.num_graphs * activations
    # Of two graphs, the second to run backward finds the gradients of the first
    kept = max(forward, resident + gradients + activations if run.num_graphs > 1 else 0)
    waiting = (run.num_graphs - 1) * activations
    recomputed = one_layer if run.gradient_checkpointing else 0
    in_layer = backward_buffers + layer_backward_bytes(run.shape, run.batch, run.precision)
    last_layer = head_gradient + recomputed + max(backward_copies, layer_copies) + in_layer
    first_layer = _first_layer_bytes(run, one_layer + layer_copies + in_layer)
    moments = {
        "end of forward": forward + forward_copies + head_forward,
        "backward of the LM head": kept + backward_copies + head_backward,
        "backward of the last layer": kept + last_layer,
        "backward of the first layer": resident + gradients + waiting + first_layer,
        "optimizer step": resident + gradients + _step_bytes(run),
    }
    if run.has_reference:
        # TRL makes FSDP2 shard the reference as one unit, which is gathered whole
        gathered = run.precision.compute * run.num_parameters if run.sharding == "fsdp2" else forward_copies
        moments["reference forward"] = resident + accumulated + gathered + max(head_forward, one_layer)
    return MemoryEstimate(
        weights=weights,
        masters=masters,
        gradients=gradients,
        optimizer=optimizer,
        activations=run.num_graphs * activations,
        logits=max(head_forward, head_backward),
        working=buffers + backward_buffers + max(forward_copies, backward_copies, layer_copies),
        reference=reference,
        moments=moments,
    )


def _optimizer_bytes(run: _Run) -> int:
    """States of the whole model; DeepSpeed keeps them beside its float32 masters, torch in the weights' precision."""
    per_number = FLOAT32 if run.deepspeed else run.trained_bytes
    if run.optimizer in OPTIMIZER_STATES:
        return OPTIMIZER_STATES[run.optimizer] * per_number * run.trained
    if run.optimizer in OPTIMIZERS_8BIT:
        # transformers keeps the states of embeddings in float32.
        embeddings = 0 if run.lora else run.shape.embedding_parameters
        return round(2 * STATE_8BIT * (run.trained - embeddings) + 2 * FLOAT32 * embeddings)
    raise RecipeError(
        Problem(
            "optimizer-memory-unknown",
            f"optim: {run.optimizer}",
            "It is not known how many states this optimizer keeps, so its memory cannot be told.",
            f"Plan with one of: {', '.join([*OPTIMIZER_STATES, *OPTIMIZERS_8BIT])}.",
        )
    )


def _activation_bytes(run: _Run) -> tuple[int, int]:
    """(kept by the whole forward pass, needed to run one layer backward)."""
    layer = layer_activation_bytes(run.shape, run.batch, run.precision, run.lora)
    kept = checkpoint_bytes(run.shape, run.batch, run.precision) if run.gradient_checkpointing else layer
    outer = outer_activation_bytes(run.shape, run.batch, run.precision, run.lora)
    return run.shape.num_hidden_layers * kept + outer, layer


def _head_bytes(run: _Run) -> tuple[int, int]:
    """What the head needs beside the kept activations: (forward, backward)."""
    if run.head == "score":
        return 0, 0
    if run.head == "logits":
        # accelerate hands logits on in float32 where it computes in bfloat16; DeepSpeed does not
        size = run.precision.compute if run.deepspeed or run.mixed_precision == "no" else FLOAT32
        return logits_bytes(run.shape, run.batch, run.precision, size)
    head_forward = head_forward_bytes(run.shape, run.batch, run.precision)
    head_trained = run.lora is None
    head_backward = head_backward_bytes(run.shape, run.batch, run.precision, head_trained=head_trained)
    if run.graph_bytes == BFLOAT16 and head_trained:
        head_backward += run.graph_bytes * run.head_parameters  # the float32 gradient is cast before it is freed
    return head_forward, head_backward


def _buffer_bytes(run: _Run) -> tuple[int, int]:
    """Communication buffers: (alive through the whole step, alive only while layers run backward)."""
    if run.sharding == "ddp":
        return run.trained * run.trained_bytes, 0  # a second copy: gradient_as_bucket_view is off by default
    bucket = REDUCE_BUCKET * run.base_bytes  # allocated at full size, however small the model
    if run.sharding == "zero3":
        return bucket, 0
    return 0, bucket if run.deepspeed else 0


def _weight_copies(run: _Run) -> tuple[int, int, int]:
    """Cast or gathered weights in use at the end of forward, while the LM head and while a layer runs backward."""
    compute, shape = run.precision.compute, run.shape
    layer, head = compute * shape.parameters_per_layer, compute * run.head_parameters
    if run.sharding == "fsdp2":
        # The next layer is gathered while one runs; backward adds its gradients and the buffer they are reduced from.
        return 2 * layer + head, 2 * layer + head, 4 * layer
    if run.sharding == "zero3":
        live = compute * min(MAX_LIVE_PARAMETERS, run.num_parameters)
        return live, live, live
    cast = compute * run.layer_linear_parameters
    if run.weights_dtype == "nf4":
        return 0, 0, cast
    if not run.precision.casts_inputs:
        return 0, 0, 0
    cast_all = shape.num_hidden_layers * cast
    if not run.gradient_checkpointing:
        return cast_all, cast_all, cast
    # Autocast remembers the casts of trained weights until forward ends; recomputation casts layer by layer.
    return (cast_all if run.lora is None else 0), 0, cast


def _first_layer_bytes(run: _Run, layer: int) -> int:
    """What stands beside all gradients when backward reaches the first layer, then the input embedding.

    The gradient of an untied embedding comes last: it is not there yet while the first layer runs, unless earlier
    micro-batches left it. Where it is there already, its next dense contribution is a second tensor.
    """
    if run.lora is not None:
        return layer
    embedding = run.trained_bytes * run.shape.embedding_parameters
    if run.gradient_accumulation_steps > 1 or run.num_graphs > 1 or run.tied:
        return max(layer, embedding)
    return max(layer - embedding // run.gradients_sharded_by, 0)


def _step_bytes(run: _Run) -> int:
    """What the optimizer allocates while it steps."""
    if run.deepspeed:
        if run.base_bytes == FLOAT32:
            return 0
        own = run.trained // run.optimizer_sharded_by
        return FLOAT32 * (min(own, SUB_GROUP) if run.sharding == "zero3" else own)  # float32 gradients
    if run.optimizer != "adamw_torch":
        return 0
    if run.batch.device == "cuda":
        return run.trained_bytes * run.trained // run.optimizer_sharded_by  # foreach works on all parameters at once
    return 2 * run.trained_bytes * run.shape.embedding_parameters if run.lora is None else 0


def _check(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(
            Problem(
                "memory-setting-unknown",
                f"{key}: {value}",
                f"The memory of {key} {value!r} cannot be estimated.",
                f"Plan with one of: {', '.join(known)}.",
            )
        )
