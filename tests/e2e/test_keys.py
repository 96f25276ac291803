"""Keys of the SFT stage that change what is trained or saved, several to a run, each looked at in the run folder."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from peft import AutoPeftModelForCausalLM

from tests.stage import run_sft, run_sft_here, write_recipe
from tests.tiny import WORDS, conversation, write_rows
from tulu_recipes.errors import TrainingError
from tulu_recipes.run import newest_checkpoint, read_json, read_metrics
from tulu_recipes.trainers.arguments import sft_arguments
from tulu_recipes.trainers.verify import check_saved

pytestmark = pytest.mark.e2e


def trained(recipe: Path, *overrides: str) -> dict[str, Any]:
    done = run_sft_here(recipe, *overrides)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = read_json(recipe.parent / "run" / "run.json")
    assert record["status"] == "finished"
    return record


def losses(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder / "run") if "loss" in line]


def test_lora_trains_and_saves_the_adapter_alone_and_it_loads_on_its_base(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        use_peft=True,
        lora_r=4,
        lora_alpha=8,
        lora_target_modules=["q_proj", "v_proj"],
        gradient_checkpointing=True,
        learning_rate=0.01,
        num_train_epochs=1,
        eval_dataset_name=str(tmp_path / "rows.jsonl"),
        sample_rows=2,
        sample_max_new_tokens=4,
    )
    done = run_sft(recipe, "--max_steps", "2")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    record = read_json(run / "run.json")
    assert record["overrides"] == {"max_steps": 2}
    assert record["counters"]["compared"] is False  # two steps are no epoch
    assert [line["step"] for line in losses(tmp_path)] == [1, 2]
    assert not (run / "model.safetensors").exists()
    adapter = safetensors.torch.load_file(run / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter} == {"q_proj", "v_proj"}
    assert all(4 in tensor.shape for tensor in adapter.values())
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    assert AutoPeftModelForCausalLM.from_pretrained(run).peft_config["default"].r == 4
    card = yaml.safe_load((run / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["library_name"] == "peft"


def test_a_packed_run_of_a_mix_trains_every_sequence_of_every_source(tmp_path: Path) -> None:
    plain = [{"prompt": f"{word} ", "completion": f"{word} four"} for word in WORDS]
    chats = [
        {"prompt": row["messages"][:1], "completion": row["messages"][1:]}
        for row in (conversation(i) for i in range(20))
    ]
    write_rows(tmp_path / "chats.jsonl", chats)
    sources = [
        {"name": str(tmp_path / "chats.jsonl"), "repeat": 2},
        {"name": str(tmp_path / "chats.jsonl"), "rows": 5},
    ]
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"target": "sft", "sources": sources}), encoding="utf-8")
    recipe = write_recipe(
        tmp_path,
        dataset_name=None,
        dataset_mix=str(tmp_path / "mix.yaml"),
        packing=True,
        global_batch_size=2,
        num_train_epochs=2,
        eval_dataset_name=str(write_rows(tmp_path / "plain.jsonl", plain)),
        eval_strategy="epoch",
    )
    record = trained(recipe)
    audit = read_json(tmp_path / "run" / "audit.json")
    assert audit["total"]["rows"] == 45
    last = losses(tmp_path)[-1]
    assert last["num_sequences"] == 90  # every conversation, though rows hold several
    assert last["num_supervised_tokens"] == 2 * audit["total"]["supervised_tokens"]
    assert record["counters"]["compared"]
    assert len(losses(tmp_path)) < 2 * 45 / 2  # fewer steps than without packing
    assert sum("eval_loss" in line for line in read_metrics(tmp_path / "run")) == 2


def test_rows_over_length_are_dropped_and_counted(tmp_path: Path) -> None:
    long = conversation(0, turns=9, answer_words=9)
    rows = [long, *(conversation(i) for i in range(1, 16)), long]
    record = trained(write_recipe(tmp_path, rows, over_length="drop", num_train_epochs=1, gradient_checkpointing=True))
    total = read_json(tmp_path / "run" / "audit.json")["total"]
    assert (total["rows"], total["over_length_dropped"], total["trained_rows"]) == (17, 2, 15)
    assert total["answers_cut"] == total["rows_cut"] == 0
    assert record["counters"]["seen"]["tokens"] == total["tokens"]
    assert losses(tmp_path)[-1]["num_sequences"] == 15


def test_a_saved_model_that_is_not_the_trained_one_is_found_out(tmp_path: Path) -> None:
    trained(write_recipe(tmp_path, num_train_epochs=1))
    run, probe = tmp_path / "run", list(range(3, 40))
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
        logits = model(input_ids=torch.tensor([probe])).logits
    assert check_saved(run, logits, probe, exact=True) == 0.0

    file = run / "model.safetensors"
    whole = safetensors.torch.load_file(file)

    def refusal(tensors: dict[str, torch.Tensor] | None) -> str:
        file.unlink(missing_ok=True)
        if tensors is not None:
            safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(TrainingError) as caught:
            check_saved(run, logits, probe, exact=True)
        assert caught.value.slugs == ["saved-model-differs"]
        return str(caught.value)

    name = "model.layers.1.mlp.down_proj.weight"
    assert "computes other logits" in refusal(whole | {name: whole[name] * 1.05})
    assert "relative difference nan" in refusal(whole | {name: whole[name] * float("nan")})
    assert f"lacks 1 weights, the first {name}" in refusal({key: whole[key] for key in whole if key != name})
    assert "cannot be loaded" in refusal(whole | {name: whole[name][:5].clone()})
    assert "cannot be loaded" in refusal(None)
    file.write_bytes(b"cut")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        check_saved(run, logits, probe, exact=True)
    assert "checkpoint-" in str(newest_checkpoint(run, 1))


def test_totals_that_differ_from_the_audit_s_fail_the_run(tmp_path: Path) -> None:
    from dataclasses import replace
    from types import SimpleNamespace

    from tulu_recipes.config.load import load_recipe
    from tulu_recipes.finish import _compare_counters
    from tulu_recipes.prepare import prepare_data

    recipe = load_recipe([str(write_recipe(tmp_path))], stage="sft")
    data = prepare_data(recipe)
    total = data.audit.total
    trainer = SimpleNamespace(
        args=sft_arguments(recipe),
        _total_train_tokens=2 * total.tokens,
        progress=SimpleNamespace(supervised_tokens=2 * total.supervised_tokens),
        train_dataset=data.train,
    )
    assert _compare_counters(recipe, data, trainer)["compared"]
    fewer = replace(data, audit=replace(data.audit, total=replace(total, supervised_tokens=1)))
    with pytest.raises(TrainingError, match="The audit promised") as caught:
        _compare_counters(recipe, fewer, trainer)
    assert caught.value.slugs == ["totals-differ"]
