import pytest

from tulu_recipes.config.activations import Lora
from tulu_recipes.config.cost import (
    GPUS,
    PACKED_MFU,
    UNPACKED_MFU,
    estimate_cost,
    estimate_hours,
    find_gpu,
    num_optimizer_steps,
    training_flops_per_token,
)
from tulu_recipes.config.model_shape import ModelShape
from tulu_recipes.errors import RecipeError

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
SMOLLM2_135M = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
SHAPE = ModelShape.from_config(LLAMA_8B)
# By hand: q and o 4096 x 4096, k and v 4096 x 1024, three MLP matrices 4096 x 14336; the head 128256 x 4096.
LAYER_WEIGHTS = 32 * (2 * 16_777_216 + 2 * 4_194_304 + 3 * 58_720_256)
HEAD_WEIGHTS = 525_336_576


def test_full_training_is_six_operations_per_weight_and_twelve_per_attended_feature():
    attention = 12 * 32 * 4096 * 1000
    flops = training_flops_per_token(SHAPE, length=1000)
    assert flops == 6 * (LAYER_WEIGHTS + HEAD_WEIGHTS) + attention
    assert flops == pytest.approx(4.66e10, rel=0.01)


def test_checkpointing_runs_the_layers_forward_once_more_but_not_the_head():
    plain = training_flops_per_token(SHAPE, length=1000)
    recomputed = training_flops_per_token(SHAPE, length=1000, gradient_checkpointing=True)
    assert recomputed - plain == 2 * LAYER_WEIGHTS + 4 * 32 * 4096 * 1000


def test_lora_saves_the_gradients_of_frozen_weights():
    adapter = 32 * 16 * ((4096 + 4096) + (4096 + 1024))
    flops = training_flops_per_token(SHAPE, length=1000, lora=Lora(16, ["q_proj", "v_proj"]))
    assert flops == 4 * (LAYER_WEIGHTS + HEAD_WEIGHTS) + 6 * adapter + 12 * 32 * 4096 * 1000


@pytest.mark.integration
@pytest.mark.parametrize("config", [LLAMA_8B, SMOLLM2_135M], ids=["8b", "135m"])
def test_full_training_equals_trls_own_count(config):
    from transformers import AutoConfig
    from trl.trainer.utils import compute_flops_per_token

    expected = compute_flops_per_token(AutoConfig.for_model(**config), 2048)
    assert training_flops_per_token(ModelShape.from_config(config), length=2048) == expected


@pytest.mark.integration
def test_forward_and_backward_equal_torchs_own_counter():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = SMOLLM2_135M | {"num_hidden_layers": 2, "vocab_size": 1000}
    settings = AutoConfig.for_model(**config, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(settings)
    tokens = torch.randint(0, 1000, (2, 64))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
    counted = counter.get_total_flops() / tokens.numel()
    assert training_flops_per_token(ModelShape.from_config(config), length=64) == pytest.approx(counted, rel=0.01)


def test_hours_are_operations_over_peak_times_utilisation():
    # 3600 s x 10 GPUs x 989.5e12 x 0.5 operations take an hour
    assert estimate_hours(1.0, 3600 * 10 * 989.5e12 * 0.5, "H100", 10, mfu=0.5) == pytest.approx(1.0)


def test_default_utilisation_gives_back_the_hours_of_the_tulu_3_8b_paper_run():
    # 939,344 rows x 2 epochs x about 760 tokens; the paper says 32 H100 for 6 hours
    flops = training_flops_per_token(SHAPE, length=760)
    assert estimate_hours(939_344 * 2 * 760, flops, "H100", 32, UNPACKED_MFU) == pytest.approx(6.0, rel=0.1)
    assert UNPACKED_MFU < PACKED_MFU


def test_price_counts_every_gpu():
    cost = estimate_cost(1.0, 3600 * 10 * 989.5e12, "H100", 10, mfu=1.0, price_per_hour=2.5)
    assert cost.hours == pytest.approx(1.0)
    assert cost.gpu_hours == pytest.approx(10.0)
    assert cost.price == pytest.approx(25.0)
    assert estimate_cost(1.0, 1.0, "H100", 1).price is None


def test_gpus_are_found_however_they_are_spelt():
    assert find_gpu("rtx 4090") is find_gpu("NVIDIA RTX_4090") is GPUS["RTX-4090"]


def test_an_unknown_gpu_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match="gpu-unknown") as refusal:
        find_gpu("L40")
    assert "Nearest: L40S." in str(refusal.value)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"),
    [
        (939_344, 128, 2, 14_678),  # 7338.6 -> 7339 a pass
        (128, 128, 1, 1),
        (129, 128, 1, 2),
        (5, 128, 3, 3),
        (1000, 128, 0.5, 4),
    ],
)
def test_an_epoch_ends_with_a_smaller_step(rows, batch, epochs, steps):
    assert num_optimizer_steps(rows, batch, epochs) == steps


def test_max_steps_overrides_epochs():
    assert num_optimizer_steps(1000, 8, 3, max_steps=7) == 7


def test_drop_last_drops_a_micro_batch_and_not_a_step():
    # 21 rows in micro-batches of 4: five whole ones; two per step make three steps, the last with one
    assert num_optimizer_steps(21, 8, 1, drop_last=True, gradient_accumulation_steps=2) == 3


@pytest.mark.integration
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("rows", "per_device", "accumulation", "epochs"),
    [(21, 4, 2, 1), (21, 2, 3, 2), (24, 4, 3, 1.5), (4, 4, 2, 1), (7, 1, 8, 2.5), (65, 8, 1, 3)],
)
def test_steps_equal_those_of_a_real_trainer(rows, per_device, accumulation, epochs, drop_last, tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
        dataloader_drop_last=drop_last,
    )
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=[{"x": torch.zeros(1)}] * rows)
    max_steps = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())[-1]
    assert max_steps == num_optimizer_steps(
        rows, per_device * accumulation, epochs, drop_last, gradient_accumulation_steps=accumulation
    )
