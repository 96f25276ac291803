"""The readable loop of docs/minimal/sft.py is an independent oracle: no TRL, its own template, masks and schedule."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.tiny import conversation, save_base, tiny_model, tiny_tokenizer, write_rows
from tulu_recipes.data.supervision import tokenize_rows, trainable_rows
from tulu_recipes.trainers import SFTConfig, SFTTrainer

pytestmark = pytest.mark.integration

PATH = Path(__file__).parents[2] / "docs/minimal/sft.py"
MAX_LENGTH = 40  # cuts some of the rows
STEPS, SEQUENCES = 3, 4  # the last step has one sequence less: its divisor is 3


@pytest.fixture(scope="module")
def minimal():
    spec = importlib.util.spec_from_file_location("minimal_sft", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [conversation(number, turns=1 + number % 3, answer_words=6) for number in range(STEPS * SEQUENCES - 1)]


def test_same_tokens_and_labels_as_the_stage(minimal, rows):
    tokenizer = tiny_tokenizer()
    system = {"messages": [{"role": "system", "content": "be kind"}, *rows[1]["messages"]]}
    ours = tokenize_rows(
        Dataset.from_list([{"messages": row["messages"]} for row in [*rows, system]]), tokenizer, max_length=MAX_LENGTH
    )
    lengths = set()
    for row, tokenized in zip([*rows, system], ours, strict=True):
        ids, labels = minimal.encode(row["messages"], tokenizer, MAX_LENGTH)
        assert ids.tolist() == tokenized["input_ids"]
        assert labels.tolist() == tokenized["labels"]
        lengths.add(len(ids))
    assert max(lengths) == MAX_LENGTH, "a row was cut"
    assert min(lengths) < MAX_LENGTH


@pytest.mark.parametrize("max_grad_norm", [1.0, 1e9], ids=["clipped", "unclipped"])
def test_same_losses_and_weights_as_the_trainer(minimal, rows, tmp_path, max_grad_norm):
    tokenizer = tiny_tokenizer()
    model = tiny_model(len(tokenizer))
    reference = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())

    encoded = [minimal.encode(row["messages"], tokenizer, MAX_LENGTH) for row in rows]
    steps = [encoded[start : start + SEQUENCES] for start in range(0, len(encoded), SEQUENCES)]
    settings = {"learning_rate": 1e-3, "warmup_fraction": 0.3, "max_grad_norm": max_grad_norm}
    expected = list(minimal.train(reference, steps, **settings))

    tokenized = tokenize_rows(
        Dataset.from_list([{"messages": row["messages"]} for row in rows]), tokenizer, max_length=MAX_LENGTH
    )
    args = SFTConfig(
        output_dir=str(tmp_path),
        loss_reduction="sum",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=SEQUENCES // 2,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=MAX_LENGTH,
        num_train_epochs=1,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0.3,
        max_grad_norm=max_grad_norm,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=trainable_rows(tokenized, over_length="truncate"),
        processing_class=tokenizer,
    )
    trainer.train()

    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == STEPS, "three different steps were taken"
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, reference.state_dict()[name], rtol=0, atol=2e-6, msg=name)
    assert max(float((model.state_dict()[name] - before[name]).abs().max()) for name in before) > 1e-4


def test_command_trains_and_saves(minimal, rows, tmp_path, capsys):
    base = save_base(tmp_path / "base")
    path = write_rows(tmp_path / "rows.jsonl", rows)
    minimal.main(str(base), str(path), str(tmp_path / "out"))
    assert capsys.readouterr().out.startswith("step 1/2 · loss ")
    assert (tmp_path / "out/model.safetensors").is_file()
