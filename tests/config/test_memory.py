"""The estimate against what TRL's SFTTrainer really allocates on CPU, by the allocator's own events."""

import gc
from dataclasses import dataclass

import pytest

from tulu_recipes.config.activations import Lora
from tulu_recipes.config.memory import MemoryEstimate, estimate_memory
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.errors import RecipeError

# 15 % is promised; what was measured lies within 2.2 %, so that a lost term shows.
TOLERANCE = 0.05
SMALL = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 344,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


def estimate(config: dict, **settings) -> MemoryEstimate:
    defaults = {
        "sharding": "none",
        "num_processes": 1,
        "per_device_train_batch_size": 2,
        "max_length": 128,
        "weights_dtype": "float32",
        "mixed_precision": "no",
        "device": "cpu",
    }
    return estimate_memory(ModelShape.from_config(SMALL | config), **defaults | settings)


@dataclass
class Measured:
    """Bytes. Peaks are within a window of the second optimizer step; the others are exact sums of storages."""

    weights: int
    gradients: int
    optimizer: int
    forward_peak: int
    head_backward_peak: int
    layers_backward_peak: int
    step_peak: int
    peak: int
    after_training: int


def train_and_measure(
    config: dict,
    directory,
    *,
    per_device_train_batch_size=2,
    max_length=128,
    weights_dtype="float32",
    mixed_precision="no",
    optimizer="adamw_torch_fused",
    gradient_checkpointing=False,
    gradient_accumulation_steps=1,
    attn_implementation="sdpa",
    padded=False,
    lora=None,
) -> Measured:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    special_tokens = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    vocabulary = {token: index for index, token in enumerate(special_tokens.values())}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), **special_tokens
    )
    torch.manual_seed(0)
    sizes = AutoConfig.for_model(**SMALL | config, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    model = AutoModelForCausalLM.from_config(
        sizes, attn_implementation=attn_implementation, dtype=getattr(torch, weights_dtype)
    )
    num_rows = 2 * per_device_train_batch_size * gradient_accumulation_steps
    lengths = [max_length // 2 if padded and row % 2 else max_length for row in range(num_rows)]
    rows = [{"input_ids": torch.randint(3, sizes.vocab_size, (length,)).tolist()} for length in lengths]

    gradient_bytes = []

    class GradientCounter(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            gradient_bytes.append(sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(directory),
            use_cpu=True,
            max_steps=2,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=per_device_train_batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            gradient_checkpointing=gradient_checkpointing,
            max_length=max_length,
            bf16=mixed_precision == "bf16",
            optim=optimizer,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora
        and LoraConfig(r=lora.r, target_modules=lora.target_modules, lora_dropout=lora.dropout, task_type="CAUSAL_LM"),
        callbacks=[GradientCounter()],
    )
    weights = sum(
        size for size in {p.untyped_storage().data_ptr(): p.nbytes for p in trainer.model.parameters()}.values()
    )
    gc.collect()  # what earlier tests left must not be freed inside the profile
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.train()
    states = [state for states in trainer.optimizer.state.values() for state in states.values()]
    return read_profile(
        profile.profiler.kineto_results.events(),
        weights=weights,
        gradients=gradient_bytes[-1],
        optimizer=sum(state.nbytes for state in states if state.dim() > 0),
    )


def read_profile(events, *, weights, gradients, optimizer) -> Measured:
    """Running sum of the allocator's events, from the weights that were there before, cut into windows."""
    curve, in_use = [], weights
    for when, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        in_use += size
        curve.append((when, in_use))

    def last_span(name):
        return max((e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name().startswith(name))

    def peak(start, end):
        return max(size for when, size in curve if start <= when <= end)

    forward = max(
        (e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == "ChunkedLogProbFunction"
    )
    backward = last_span("ChunkedLogProbFunctionBackward")
    step = last_span("Optimizer.step")
    return Measured(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        forward_peak=peak(*forward),
        head_backward_peak=peak(*backward),
        layers_backward_peak=peak(backward[1], step[0]),
        step_peak=peak(*step),
        peak=max(size for _, size in curve),
        after_training=in_use,
    )


WIDE = {"hidden_size": 384, "intermediate_size": 1536}
DEEP = {"num_hidden_layers": 8}
VOCABULARY = {"vocab_size": 20000, "num_hidden_layers": 1}
LONG = {"max_length": 256}

CASES = {
    "states_dominate": (WIDE, {"max_length": 16, "per_device_train_batch_size": 1}),
    "activations_dominate": (DEEP, LONG),
    "logits_dominate": (VOCABULARY, LONG),
    "gradient_checkpointing": (DEEP, LONG | {"gradient_checkpointing": True}),
    "gradient_accumulation": (WIDE, {"max_length": 32, "gradient_accumulation_steps": 2}),
    "tied_embeddings": (VOCABULARY | {"tie_word_embeddings": True}, {"max_length": 16}),
    "eager_attention": (DEEP, LONG | {"attn_implementation": "eager"}),
    "padded_rows": (DEEP, LONG | {"padded": True}),
    "for_loop_adamw": (VOCABULARY, {"max_length": 16, "optimizer": "adamw_torch"}),
    "bf16_autocast": (DEEP, LONG | {"mixed_precision": "bf16"}),
    "bf16_autocast_checkpointing": (WIDE | DEEP, {"mixed_precision": "bf16", "gradient_checkpointing": True}),
    "bf16_weights": (DEEP, LONG | {"weights_dtype": "bfloat16"}),
    "query_key_norm": (DEEP | {"model_type": "qwen3", "head_dim": 48}, LONG),
    "gemma2": (DEEP | {"model_type": "gemma2", "head_dim": 48}, LONG),
    "qwen2_bias_tied": (DEEP | {"model_type": "qwen2", "tie_word_embeddings": True}, LONG),
    "lora": (DEEP, LONG | {"lora": Lora(8, ["q_proj", "v_proj"])}),
    "lora_everywhere_with_dropout": (DEEP, LONG | {"lora": Lora(16, "all-linear", dropout=0.1)}),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_estimate_is_within_15_percent_of_what_a_trainer_allocates(case, tmp_path):
    config, settings = CASES[case]
    measured = train_and_measure(config, tmp_path, **settings)
    expected = estimate(config, **settings)

    assert expected.weights == measured.weights
    assert expected.gradients == measured.gradients
    assert expected.optimizer == measured.optimizer
    assert expected.total == pytest.approx(measured.peak, rel=TOLERANCE)
    moments = expected.moments
    layers = max(moments["backward of the last layer"], moments["backward of the first layer"])
    assert moments["end of forward"] == pytest.approx(measured.forward_peak, rel=TOLERANCE)
    assert moments["backward of the LM head"] == pytest.approx(measured.head_backward_peak, rel=TOLERANCE)
    assert layers == pytest.approx(measured.layers_backward_peak, rel=TOLERANCE)
    assert moments["optimizer step"] == pytest.approx(measured.step_peak, rel=TOLERANCE)
    # Nothing but weights and states is left, so the running sum began where it should.
    assert measured.after_training == pytest.approx(measured.weights + measured.optimizer, rel=0.01)


LLAMA_8B = SMALL | {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
PARAMETERS_8B = 8_030_261_248


def estimate_8b(sharding, **settings) -> MemoryEstimate:
    defaults = {"num_processes": 8, "max_length": 4096, "per_device_train_batch_size": 1, "device": "cuda"}
    defaults |= {"weights_dtype": "bfloat16", "mixed_precision": "bf16"}
    return estimate(LLAMA_8B, sharding=sharding, **defaults | settings)


# Bytes per parameter with 8 processes, after the table of arXiv 1910.02054, section 3: weights 2, gradients 2,
# masters 4, moments 8, each divided by 8 from the stage that shards it. FSDP2 stores float32 and no second copy.
@pytest.mark.parametrize(
    ("sharding", "weights", "masters", "gradients", "optimizer"),
    [
        ("zero1", 2, 0.5, 2, 1),
        ("zero2", 2, 0.5, 0.25, 1),
        ("zero3", 0.25, 0.5, 0.25, 1),
        ("fsdp2", 0.5, 0, 0.5, 1),
    ],
)
def test_model_states_follow_the_zero_table(sharding, weights, masters, gradients, optimizer):
    memory = estimate_8b(sharding)
    assert memory.weights == weights * PARAMETERS_8B
    assert memory.masters == masters * PARAMETERS_8B
    assert memory.gradients == gradients * PARAMETERS_8B
    assert memory.optimizer == optimizer * PARAMETERS_8B


def test_ddp_keeps_everything_whole_and_its_buckets_are_a_second_copy_of_the_gradients():
    memory = estimate_8b("ddp", weights_dtype="float32", mixed_precision="no")
    assert memory.weights == memory.gradients == memory.working == 4 * PARAMETERS_8B
    assert memory.optimizer == 8 * PARAMETERS_8B


def test_logits_are_one_tile_and_not_tokens_times_vocabulary():
    frozen_head = {"lora": Lora(16), "mixed_precision": "bf16"}
    short, long = (estimate_8b("none", num_processes=1, max_length=n, **frozen_head).logits for n in (4096, 16384))
    # 4096 tokens x 32768 of the vocabulary in bfloat16, and the float32 gradient of the hidden states
    assert short == 4096 * 32768 * 2 + 4096 * 4096 * 4
    assert long == 4096 * 32768 * 2 + 16384 * 4096 * 4


def test_checkpointing_keeps_one_hidden_state_per_layer():
    kept = estimate_8b("zero3", gradient_checkpointing=True).activations
    # 32 layers x 4096 tokens x 4096 features x 2 bytes; last norm 4 + 2 bytes and head input 2; rotary tables
    assert kept == 32 * 4096 * 4096 * 2 + 4096 * 4096 * 8 + 2 * 4096 * 128 * 2


def test_eager_attention_keeps_scores_that_grow_with_the_square_of_the_length():
    eager, flash = (
        estimate_8b("zero3", attn_implementation=name).activations for name in ("eager", "flash_attention_2")
    )
    scores = 32 * 32 * 4096 * 4096 * 6  # layers x heads x length x length, float32 and its bfloat16 copy
    repeated_keys_and_values = 32 * 4096 * 2 * (4096 - 1024) * 2
    log_sum_exp = 32 * 4096 * 32 * 4
    assert eager - flash == scores + repeated_keys_and_values - log_sum_exp


def test_adapters_alone_have_gradients_and_states():
    memory = estimate_8b("none", num_processes=1, lora=Lora(16, ["q_proj", "v_proj"]))
    adapter = 32 * 16 * ((4096 + 4096) + (4096 + 1024))
    assert memory.weights == 2 * PARAMETERS_8B + 4 * adapter
    assert memory.gradients == 4 * adapter
    assert memory.optimizer == 8 * adapter


def test_nf4_stores_projections_in_four_bits_and_a_scale_per_block_of_64():
    memory = estimate_8b("none", num_processes=1, weights_dtype="nf4", lora=Lora(16))
    projections = 32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336)
    adapter = 32 * 16 * ((4096 + 4096) + (4096 + 1024))
    assert memory.weights == projections * 0.5625 + 2 * (PARAMETERS_8B - projections) + 4 * adapter


def test_eight_bit_states_leave_the_embedding_in_float32():
    memory = estimate_8b("none", num_processes=1, optimizer="adamw_bnb_8bit")
    embedding = 128256 * 4096
    assert memory.optimizer == 2 * (1 + 4 / 256) * (PARAMETERS_8B - embedding) + 8 * embedding


def test_sum_of_parts_is_the_bound_of_the_total():
    memory = estimate_8b("zero3", gradient_accumulation_steps=2)
    parts = ("weights", "masters", "gradients", "optimizer", "activations", "logits", "working")
    assert memory.total == memory.moments[memory.peak_moment] <= sum(getattr(memory, part) for part in parts)


def test_an_optimizer_of_unknown_size_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="optimizer-memory-unknown") as refusal:
        estimate_8b("zero3", optimizer="galore_adamw")
    assert "optim: galore_adamw" in str(refusal.value)
    assert "adamw_torch_fused" in str(refusal.value)


@pytest.mark.parametrize("setting", [{"sharding": "zero4"}, {"weights_dtype": "int3"}, {"mixed_precision": "fp8"}])
def test_a_setting_of_unknown_size_is_refused_with_the_known_ones(setting):
    with pytest.raises(RecipeError, match="memory-setting-unknown") as refusal:
        estimate(SMALL, **setting)
    assert f"{next(iter(setting))}: {next(iter(setting.values()))}" in str(refusal.value)
