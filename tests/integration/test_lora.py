"""LoRA through the stage: an adapter is trained, saved, loaded again and compared; a killed run resumes exactly."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.stage import run_sft, write_recipe
from tests.tiny import save_base
from tulu_recipes.run import read_json, read_metrics

pytestmark = pytest.mark.integration

LORA: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "learning_rate": 1.0e-2}


def test_an_adapter_is_trained_saved_and_loads_to_the_same_logits(tmp_path: Path) -> None:
    done = run_sft(write_recipe(tmp_path, **LORA))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    record = read_json(folder / "run.json")
    assert record["status"] == "finished"
    assert record["saved_model_difference"] < 1e-5
    assert record["counters"]["seen"] == record["counters"]["promised"]
    assert not (folder / "model.safetensors").exists()  # the adapter alone
    assert json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 4
    adapter = load_file(folder / "adapter_model.safetensors")
    assert all(weight.abs().sum() > 0 for name, weight in adapter.items() if "lora_B" in name)  # B starts at zero
    losses = [line["loss"] for line in read_metrics(folder) if "loss" in line]
    assert losses[-1] < losses[0]
    # loads as anybody would load it, and computes something else than its base
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="float32")
    tuned = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    with torch.no_grad():
        assert not torch.allclose(tuned(ids).logits, base(ids).logits, atol=1e-3)


def test_a_lora_run_that_lost_its_end_makes_it_again_exactly(tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, **LORA), tmp_path / "run"
    assert run_sft(recipe).returncode == 0
    lines, adapter = read_metrics(run), load_file(run / "adapter_model.safetensors")
    # as if killed at step 10, before its checkpoint
    shutil.rmtree(run / "checkpoint-10")
    (run / "adapter_model.safetensors").unlink()
    (run / "run.json").write_text(json.dumps(read_json(run / "run.json") | {"status": "started"}), encoding="utf-8")
    assert run_sft(recipe).returncode == 0
    assert read_json(run / "run.json")["resumed_at_steps"] == [9]
    assert read_metrics(run) == lines
    again = load_file(run / "adapter_model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in adapter.items())


def test_a_run_that_lost_its_end_after_its_last_step_does_no_other(tmp_path: Path) -> None:
    """In the midst of an epoch, where transformers would do one more."""
    recipe, run = write_recipe(tmp_path, **LORA, max_steps=3), tmp_path / "run"
    assert run_sft(recipe).returncode == 0
    lines, adapter = read_metrics(run), (run / "adapter_model.safetensors").read_bytes()
    (run / "adapter_model.safetensors").unlink()
    (run / "run.json").write_text(json.dumps(read_json(run / "run.json") | {"status": "started"}), encoding="utf-8")
    assert run_sft(recipe).returncode == 0
    assert read_json(run / "run.json")["resumed_at_steps"] == [3]
    assert read_metrics(run) == lines
    assert (run / "adapter_model.safetensors").read_bytes() == adapter


def test_qlora_trains_an_adapter_over_four_bit_weights(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="QLoRA needs the package bitsandbytes")
    # its CPU kernels work on blocks of 64 columns: narrower matrices fail there
    save_base(tmp_path / "base", hidden_size=128, intermediate_size=256)
    done = run_sft(write_recipe(tmp_path, **LORA, load_in_4bit=True, bnb_4bit_quant_type="nf4"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    record = read_json(folder / "run.json")
    assert record["status"] == "finished"
    assert record["saved_model_difference"] < 5e-2  # adapters train in bfloat16 there
    losses = [line["loss"] for line in read_metrics(folder) if "loss" in line]
    assert losses[-1] < losses[0]
    adapter = load_file(folder / "adapter_model.safetensors")
    assert all(weight.abs().sum() > 0 for name, weight in adapter.items() if "lora_B" in name)
