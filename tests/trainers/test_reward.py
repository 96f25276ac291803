"""The reward trainer against numbers computed by hand and one row at a time, on a random two-layer model."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

from tests.tiny import pair, save_base, tiny_tokenizer
from tulu_recipes.data.pair_audit import audit_pairs
from tulu_recipes.data.pairs import PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.trainers.reward import RewardConfig, RewardTrainer, load_scorer

pytestmark = pytest.mark.integration

RATE = 0.1
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"), TOKENIZER)


def scorer(base: Path) -> Any:
    torch.manual_seed(3)
    return load_scorer(str(base), dtype="float32")


def pairs(count: int, **rules: Any) -> Dataset:
    rows = Dataset.from_list([pair(i, 1 + i % 2) for i in range(count)])
    return trainable_pairs(tokenize_pairs(rows, TOKENIZER, PairRules(None, **rules)), over_length="drop")


Train = Callable[..., tuple[RewardTrainer, dict[str, torch.Tensor]]]


@pytest.fixture
def train(tmp_path: Path, base: Path) -> Train:
    def run(rows: Dataset, model: Any = None, **keys: Any) -> tuple[RewardTrainer, dict[str, torch.Tensor]]:
        """Train over all rows once in their order: the trainer, and its weights afterwards."""
        settings: dict[str, Any] = {
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        } | keys
        args = RewardConfig(str(tmp_path), **settings)
        trainer = RewardTrainer(model or scorer(base), args, train_dataset=rows, processing_class=TOKENIZER)
        trainer.train()
        return trainer, {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}

    return run


def score(model: Any, ids: list[int]) -> torch.Tensor:
    """The head's weights on the last hidden state of one row, without padding or mask."""
    hidden: torch.Tensor = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    return hidden @ model.score.weight[0]


def slow_losses(model: Any, steps: list[list[Any]], center: float = 0.0) -> Iterator[float]:
    """Plain SGD, one row at a time; the loss of each step."""
    for step in steps:
        losses = []
        for row in step:
            chosen, rejected = score(model, row["chosen_ids"]), score(model, row["rejected_ids"])
            loss = torch.log1p(torch.exp(rejected + row.get("margin", 0.0) - chosen))
            losses.append(loss + center * (chosen + rejected) ** 2)
        mean = sum(losses) / len(step)
        model.zero_grad()
        mean.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= RATE * weight.grad
        yield float(mean.detach())


# ---- the start


def test_a_language_model_gets_a_head_from_the_normal_distribution_of_the_release(tmp_path: Path) -> None:
    hidden = 4095  # the standard deviation is then 1/64
    save_base(
        tmp_path, TOKENIZER, hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = load_scorer(str(tmp_path))
    weight = model.score.weight.detach()
    assert weight.shape == (1, hidden)
    assert weight.std().item() == pytest.approx(1 / 64, rel=0.03)  # its own error is 1/√(2·4095) = 1.1 %
    assert abs(weight.mean().item()) < 3 / 64 / math.sqrt(hidden)
    assert model.score.bias is None
    assert weight.abs().max() > 3 / 64  # not uniform
    torch.manual_seed(0)
    again: Any = load_scorer(str(tmp_path))
    assert torch.equal(again.score.weight, weight)


def test_a_reward_model_keeps_the_head_it_has(tmp_path: Path, base: Path) -> None:
    first = scorer(base)
    first.save_pretrained(tmp_path)
    torch.manual_seed(8)
    again: Any = load_scorer(str(tmp_path))
    assert torch.equal(again.score.weight, first.score.weight)
    assert not torch.equal(load_scorer(str(base)).score.weight, first.score.weight)


def test_dropout_is_off_in_training(tmp_path: Path, train: Train) -> None:
    save_base(tmp_path / "dropping", TOKENIZER, attention_dropout=0.5)
    trainer, _ = train(pairs(4), scorer(tmp_path / "dropping"), max_steps=1)
    model = trainer.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


# ---- the loss


def test_the_loss_of_one_pair_is_computed_by_hand(base: Path, train: Train) -> None:
    model = scorer(base)
    with torch.no_grad():
        model.score.weight.zero_()
    rows = Dataset.from_list([{"chosen_ids": [5, 6, 0], "rejected_ids": [7, 0]}])
    trainer, _ = train(rows, model)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), rel=1e-6)  # scores are 0
    # with margins, −log σ(0 − 1.5) = log(1 + e^1.5) = 1.701413
    with torch.no_grad():
        model.score.weight.zero_()
    trainer, _ = train(rows.add_column("margin", [1.5]), model)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(1.701413, rel=1e-6)


@pytest.mark.parametrize(("per_device", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_every_layout_takes_the_steps_of_one_row_at_a_time(
    base: Path, train: Train, per_device: int, accumulation: int
) -> None:
    rows = pairs(11)  # steps of 4, 4 and 3, the last in two micro-batches of 2 and 1
    listed = rows.to_list()
    slow = scorer(base)
    losses = list(slow_losses(slow, [listed[0:4], listed[4:8], listed[8:11]]))
    trainer, weights = train(rows, per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation)
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx(losses, rel=1e-5)
    before = dict(scorer(base).named_parameters())
    for name, weight in slow.named_parameters():
        change, expected = weights[name] - before[name], weight - before[name]
        assert torch.allclose(change, expected, rtol=1e-4, atol=1e-6), name
    assert (weights["score.weight"] - before["score.weight"]).abs().max() > 1e-3


def test_margin_and_centring_are_in_the_gradient_too(base: Path, train: Train) -> None:
    rows = pairs(4)
    rows = rows.add_column("margin", [0.0, 2.0, -1.0, 0.5])
    slow, plain = scorer(base), scorer(base)
    losses = list(slow_losses(slow, [rows.to_list()], center=0.1))
    assert list(slow_losses(plain, [pairs(4).to_list()])) != pytest.approx(losses, rel=1e-2)
    trainer, weights = train(
        rows,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        center_rewards_coefficient=0.1,
    )
    assert trainer.state.log_history[0]["loss"] == pytest.approx(losses[0], rel=1e-5)
    for name, weight in slow.named_parameters():
        assert torch.allclose(weights[name], weight, rtol=1e-4, atol=1e-6), name


def test_what_is_logged_are_means_over_the_pairs_of_the_step(base: Path, train: Train) -> None:
    rows, model = pairs(3), scorer(base)
    scores = [[score(model, row[f"{side}_ids"]).item() for side in ("chosen", "rejected")] for row in rows]
    trainer, _ = train(rows, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    logged = trainer.state.log_history[0]
    assert logged["margin"] == pytest.approx(sum(c - r for c, r in scores) / 3, rel=1e-4)
    assert logged["accuracy"] == pytest.approx(sum(c > r for c, r in scores) / 3)
    assert logged["mean_reward"] == pytest.approx(sum(map(sum, scores)) / 6, rel=1e-4)
    # of all pairs, not the mean of what each micro-batch found
    assert logged["min_reward"] == pytest.approx(min(map(min, scores)), rel=1e-4)
    assert logged["max_reward"] == pytest.approx(max(map(max, scores)), rel=1e-4)
    assert logged["num_sequences"] == 3


# ---- the score's place


def test_the_score_is_at_the_last_real_token_whatever_the_padding(base: Path) -> None:
    model = scorer(base).eval()
    model.config.pad_token_id = pad = TOKENIZER.pad_token_id
    rows = [[5, 6, 7, 8, 0], [9, 10, 0], [5, pad, 6, pad, pad, 11, 0]]  # the last has the padding token in its text
    width = max(map(len, rows))
    for side in ("left", "right"):
        fill = [[pad] * (width - len(row)) for row in rows]
        mask = [[0] * (width - len(row)) for row in rows]
        ones = [[1] * len(row) for row in rows]
        ids = [[*f, *row] if side == "left" else [*row, *f] for f, row in zip(fill, rows, strict=True)]
        masks = [[*m, *one] if side == "left" else [*one, *m] for m, one in zip(mask, ones, strict=True)]
        with torch.no_grad():
            batch = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(masks)).logits
            alone = torch.stack([score(model, row) for row in rows])
        assert torch.allclose(batch[:, 0], alone, atol=1e-5), side
    assert len(set(alone.tolist())) == 3


# ---- rows


def scored_rows() -> list[dict[str, Any]]:
    """Four pairs with a margin, one of which is text; and score columns of text, which nobody asked for."""
    margins = ["0.5", "much", "-1", "2"]
    return [
        {**pair(i), "quality": margin, "score_chosen": "8 of 10", "score_rejected": "n/a"}
        for i, margin in enumerate(margins)
    ]


def test_text_in_other_score_columns_does_no_harm() -> None:
    tokenized = tokenize_pairs(Dataset.from_list(scored_rows()), TOKENIZER, PairRules(None))
    assert set(tokenized["fault"]) == {""}
    assert trainable_pairs(tokenized, over_length="drop").column_names == [
        "chosen_ids",
        "rejected_ids",
        "chosen_mask",
        "rejected_mask",
    ]


def test_text_in_the_margin_column_is_answered_with_its_row() -> None:
    rows = Dataset.from_list(scored_rows())
    tokenized = tokenize_pairs(rows, TOKENIZER, PairRules(None), margin_column="quality")
    assert set(tokenized["fault"]) == {"quality is not a number"}
    found = audit_pairs(tokenized, max_length=None, over_length="drop")
    assert found.total.broken == 4
    assert found.examples["broken"][1] == "row 2 (source-1): quality is not a number"


def test_a_margin_is_read_from_the_column_that_is_named_and_from_no_other() -> None:
    rows = Dataset.from_list([{**pair(i), "margin": 9.0, "quality": i / 2} for i in range(3)])
    unnamed = tokenize_pairs(rows, TOKENIZER, PairRules(None))
    assert "margin" not in trainable_pairs(unnamed, over_length="drop").column_names
    named = tokenize_pairs(rows, TOKENIZER, PairRules(None), margin_column="quality")
    assert trainable_pairs(named, over_length="drop")["margin"][:] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("over_length", "trained", "cut", "dropped"),
    [("truncate", 4, 2, 0), ("drop", 2, 0, 2), ("as_released", 3, 0, 1)],
)
def test_long_pairs_are_cut_left_out_or_measured_by_their_prompt_and_counted(
    over_length: str, trained: int, cut: int, dropped: int
) -> None:
    rows = [pair(0), pair(1), pair(2), pair(3)]
    rows[1]["rejected"] = [rows[1]["chosen"][0], {"role": "assistant", "content": "no " * 200}]  # type: ignore[index]
    long = {"role": "user", "content": "the cat " * 100}
    rows[2] = {side: [long, rows[2][side][1]] for side in ("chosen", "rejected")}  # type: ignore[index]
    rules = PairRules(100, prompt_only=over_length == "as_released")
    tokenized = tokenize_pairs(Dataset.from_list(rows), TOKENIZER, rules)
    total = audit_pairs(tokenized, max_length=100, over_length=over_length).total
    kept = trainable_pairs(tokenized, over_length=over_length)
    if over_length == "truncate":  # nothing is left of the answers to the long prompt
        trained, cut = 3, 1
    assert (total.trained_rows, total.rows_cut, total.over_length_dropped) == (trained, cut, dropped)
    assert len(kept) == trained
    longest = max(len(ids) for ids in kept["rejected_ids"])
    assert longest > 200 if over_length == "as_released" else longest <= 100


# ---- what is saved


def test_transformers_and_trl_load_what_is_saved_and_give_the_same_scores(tmp_path: Path, train: Train) -> None:
    from transformers import pipeline
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer as TrlTrainer

    trainer, _ = train(pairs(4))
    trainer.save_model(str(tmp_path / "saved"))
    text = TOKENIZER.apply_chat_template(pair(3)["chosen"], tokenize=False)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = score(trainer.model.eval(), ids).item()
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
        assert isinstance(loaded, LlamaForSequenceClassification)
        assert loaded(input_ids=torch.tensor([ids])).logits.item() == pytest.approx(expected, abs=1e-6)
    assert loaded.config.problem_type == "regression"
    assert loaded.config.num_labels == 1
    pipe = pipeline("text-classification", model=str(tmp_path / "saved"), device="cpu")
    assert pipe(text)[0]["score"] == pytest.approx(expected, abs=1e-5)  # a regression: no sigmoid
    unprompted = Dataset.from_list([pair(0)]).remove_columns("prompt")  # TRL takes text there for an unfinished turn
    args = TrlConfig(str(tmp_path / "trl"), bf16=False, use_cpu=True, report_to=[], gradient_checkpointing=False)
    plain = TrlTrainer(str(tmp_path / "saved"), args, train_dataset=unprompted)
    with torch.no_grad():
        given = plain.model.eval()(input_ids=torch.tensor([ids])).logits.item()
    assert given == pytest.approx(expected, abs=1e-6)
