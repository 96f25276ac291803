"""The estimate for pairs against what the DPO, SimPO and reward trainers really allocate on CPU."""

import gc
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_memory import DEEP, LLAMA_8B, PARAMETERS_8B, SMALL, TOLERANCE, VOCABULARY, estimate
from tulu_recipes.config.memory import MemoryEstimate
from tulu_recipes.config.model_shape import ModelShape


def rows(length: int, count: int) -> Any:
    """Pairs whose rejected side is a little shorter, so that a batch of both is padded."""
    import torch
    from datasets import Dataset

    def row() -> dict[str, list[int]]:
        sides = {"chosen": length, "rejected": length - 8}
        ids = {f"{side}_ids": torch.randint(5, 300, (size,)).tolist() for side, size in sides.items()}
        masks = {f"{side}_mask": [0] * (size // 2) + [1] * (size - size // 2) for side, size in sides.items()}
        return ids | masks

    return Dataset.from_list([row() for _ in range(count)])


def build(stage: str, config: dict[str, Any], folder: Path, length: int, **keys: Any) -> Any:
    """A trainer of two steps of one pair each."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from tests.tiny import tiny_tokenizer
    from tulu_recipes.trainers import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
    from tulu_recipes.trainers.simpo import CPOConfig, SimPOTrainer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    sizes = AutoConfig.for_model(**SMALL | config, **special, num_labels=1)
    kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
    data = rows(length, 2)
    common = {
        "output_dir": str(folder), "use_cpu": True, "max_steps": 2, "report_to": [], "save_strategy": "no",
        "disable_tqdm": True, "per_device_train_batch_size": 1, "max_length": length, "gradient_checkpointing": False,
        "bf16": False, "optim": "adamw_torch_fused",
    } | keys  # fmt: skip
    model = kind.from_config(sizes, dtype=torch.float32)
    given = {"model": model, "processing_class": tokenizer, "train_dataset": data}
    if stage == "simpo":
        args = CPOConfig(**common, loss_type="simpo", cpo_alpha=0.0, remove_unused_columns=False)
        return SimPOTrainer(**given, args=args)
    if stage == "reward":
        given["train_dataset"] = data.select_columns(["chosen_ids", "rejected_ids"])
        return RewardTrainer(**given, args=RewardConfig(**common))
    reference = kind.from_config(sizes, dtype=torch.float32)
    return DPOTrainer(**given, ref_model=reference, args=DPOConfig(**common, loss_type=["sigmoid_norm"], beta=5.0))


def stored(model: Any) -> int:
    return sum({p.untyped_storage().data_ptr(): p.nbytes for p in model.parameters()}.values())


def measured_peak(trainer: Any) -> int:
    """Bytes in use at the largest moment of two steps, by the allocator's events."""
    import torch

    in_use = stored(trainer.model) + (stored(trainer.ref_model) if getattr(trainer, "ref_model", None) else 0)
    gc.collect()  # what earlier tests left must not be freed inside the profile
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.train()
    events = profile.profiler.kineto_results.events()
    peak = in_use
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        in_use += size
        peak = max(peak, in_use)
    return peak


# settings: of the estimate, a micro-batch of one pair; keys: of the trainer
PAIR = {"per_device_train_batch_size": 2, "padded": True}
CASES: dict[str, tuple[str, dict[str, Any], int, dict[str, Any], dict[str, Any]]] = {
    "dpo_activations_dominate": ("dpo", DEEP, 256, PAIR | {"has_reference": True}, {}),
    "dpo_apart_states_dominate": (
        "dpo", VOCABULARY, 32,
        {"per_device_train_batch_size": 1, "num_graphs": 2, "has_reference": True},
        {"concatenated_forward": False},
    ),
    "simpo_logits_dominate": (
        "simpo", VOCABULARY, 128, PAIR | {"head": "logits", "mixed_precision": "bf16"}, {"bf16": True},
    ),
    "reward_tied_embedding": (
        "reward", VOCABULARY | {"tie_word_embeddings": True}, 32, PAIR | {"head": "score"}, {},
    ),
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_estimate_is_within_15_percent_of_what_a_trainer_of_pairs_allocates(case: str, tmp_path: Path) -> None:
    stage, config, length, settings, keys = CASES[case]
    trainer = build(stage, config, tmp_path, length, **keys)
    expected = estimate(config, max_length=length, **settings)
    assert expected.weights == stored(trainer.model)
    if expected.reference:
        assert expected.reference == stored(trainer.ref_model)
    assert expected.total == pytest.approx(measured_peak(trainer), rel=TOLERANCE)


def estimate_8b(sharding: str, **settings: Any) -> MemoryEstimate:
    given = {
        "num_processes": 8,
        "max_length": 2048,
        "per_device_train_batch_size": 2,
        "padded": True,
        "device": "cuda",
    }
    given |= {"weights_dtype": "bfloat16", "mixed_precision": "bf16"}
    return estimate(LLAMA_8B, sharding=sharding, **given | settings)


@pytest.mark.parametrize(("sharding", "parts"), [("ddp", 1), ("zero1", 1), ("zero2", 1), ("zero3", 8), ("fsdp2", 8)])
def test_a_reference_is_whole_unless_weights_are_sharded(sharding: str, parts: int) -> None:
    memory = estimate_8b(sharding, has_reference=True)
    assert memory.reference == 2 * PARAMETERS_8B // parts
    assert memory.total >= estimate_8b(sharding).total + memory.reference
    assert estimate_8b(sharding).reference == 0


def test_fsdp2_gathers_the_whole_reference_at_once() -> None:
    one_layer = 218_112_000  # numbers of a layer: 4096 × (2 × 4096 + 2 × 1024 + 3 × 14336 + 2)
    gathered = estimate_8b("fsdp2", has_reference=True).moments["reference forward"]
    layerwise = estimate_8b("zero2", has_reference=True).moments["reference forward"]
    assert one_layer == ModelShape.from_config(LLAMA_8B).parameters_per_layer
    resident = (2 + 4 + 8) * PARAMETERS_8B // 8  # the reference in bfloat16; weights and states in float32
    assert gathered > resident + 2 * PARAMETERS_8B
    assert layerwise < (2 + 2 + 12 / 8 + 2) * PARAMETERS_8B


def test_simpo_holds_three_times_all_logits_in_float32() -> None:
    memory = estimate_8b("ddp", head="logits", weights_dtype="float32")
    assert memory.logits == 3 * 4 * (2 * 2048) * 128256 + 2 * 128256 * 4096  # and the head's weight, cast
    assert estimate_8b("zero3", head="logits").logits == 3 * 2 * (2 * 2048) * 128256


def test_a_reward_model_has_no_lm_head_but_a_number_for_each_feature() -> None:
    memory = estimate_8b("zero2", head="score")
    assert memory.weights == 2 * (PARAMETERS_8B - 128256 * 4096 + 4096)
    assert memory.logits == 0
