"""The gradient of a step depends on its rows and its reduction, not on how the rows were cut into micro-batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.layouts import (
    LAYOUTS,
    PACKED,
    PADDING_FREE,
    RATE,
    REDUCTIONS,
    copy_weights,
    token_rows,
    trainer_for,
    update,
)
from tests.tiny import tiny_model
from tulu_recipes.trainers.sft import SFTTrainer

pytestmark = pytest.mark.integration

TOLERANCE = 1e-5  # float32, another order of summation
Train = Callable[..., tuple[SFTTrainer, dict[str, Any]]]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def run(rows: Any, model: Any = None, eval_rows: Any = None, **keys: Any) -> tuple[SFTTrainer, dict[str, Any]]:
        """Train over all rows once: the trainer, and the update divided by the rate."""
        trainer = trainer_for(model or tiny_model(), tmp_path, rows, eval_rows, **keys)
        before = copy_weights(trainer.model)
        trainer.train()
        return trainer, update(before, copy_weights(trainer.model))

    return run


def layout(per_device: int, accumulation: int) -> dict[str, int]:
    return {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("per_device", "accumulation"), LAYOUTS)
def test_every_layout_makes_the_step_of_one_row_at_a_time(
    train: Train, reduction: str, per_device: int, accumulation: int
) -> None:
    rows = token_rows(8)
    expected = oracle.step(tiny_model(), rows.to_list(), reduction)
    trainer, found = train(rows, loss_reduction=reduction, **layout(per_device, accumulation))
    assert oracle.worst_difference(found, expected.gradients) < TOLERANCE
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(expected.loss, rel=1e-5)  # per token, whatever the reduction
    assert logged["num_supervised_tokens"] == expected.supervised_tokens
    assert logged["num_sequences"] == 8
    norm = sum(float(gradient.square().sum()) for gradient in expected.gradients.values()) ** 0.5
    assert logged["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_reductions_are_different_gradients() -> None:
    rows = token_rows(8).to_list()
    sums, tokens, sequences = (oracle.step(tiny_model(), rows, reduction) for reduction in REDUCTIONS)
    scale = sums.supervised_tokens / 8
    same_direction = {name: gradient * scale for name, gradient in tokens.gradients.items()}
    assert oracle.worst_difference(same_direction, sums.gradients) < TOLERANCE
    assert oracle.worst_difference(sequences.gradients, tokens.gradients) > 0.1


@pytest.mark.parametrize(("per_device", "accumulation"), [*LAYOUTS, (2, 4)])
def test_microbatch_mean_is_the_mean_of_the_micro_batches_means(
    train: Train, per_device: int, accumulation: int
) -> None:
    rows = token_rows(8)
    listed = rows.to_list()
    cut = [listed[start : start + per_device] for start in range(0, 8, per_device)]
    expected = oracle.microbatch_step(tiny_model(), cut)
    trainer, found = train(rows, loss_reduction="microbatch_mean", **layout(per_device, accumulation))
    assert oracle.worst_difference(found, expected.gradients) < TOLERANCE
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.loss, rel=1e-5)


def test_microbatch_mean_depends_on_the_layout(train: Train) -> None:
    rows = token_rows(8)
    whole, halves, single = (train(rows, loss_reduction="microbatch_mean", **layout(*cut))[1] for cut in LAYOUTS)
    assert oracle.worst_difference(halves, whole) > 0.05
    assert oracle.worst_difference(single, whole) > 0.05
    # one micro-batch is a token mean, one row each is a mean over sequences
    assert oracle.worst_difference(whole, train(rows, loss_reduction="token_mean")[1]) < TOLERANCE
    assert oracle.worst_difference(single, train(rows, loss_reduction="sequence_mean")[1]) < TOLERANCE


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("form", ["packed", "packed-padded-to-64", "padding-free", "padding-free-padded-to-64"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_packed_and_padding_free_rows_make_the_step_of_padded_ones(
    train: Train, reduction: str, form: str, attention: str
) -> None:
    rows = token_rows(8)
    expected = oracle.step(tiny_model(attn_implementation=attention), rows.to_list(), reduction)
    keys: dict[str, Any] = PACKED if form.startswith("packed") else PADDING_FREE
    if form.endswith("64"):  # the filling is no sequence and must not be counted as one
        keys = keys | {"pad_to_multiple_of": 64}
    model = tiny_model(attn_implementation=attention)
    trainer, found = train(rows, model, loss_reduction=reduction, **layout(2, 4), **keys)
    assert len(trainer.state.log_history) == 2  # one step, and the summary
    assert oracle.worst_difference(found, expected.gradients) < TOLERANCE
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert logged["num_sequences"] == 8


def test_packing_really_puts_several_conversations_into_a_row(train: Train) -> None:
    trainer, _ = train(token_rows(8), **PACKED)
    assert len(trainer.train_dataset) < 8
    assert max(len(lengths) for lengths in trainer.train_dataset["seq_lengths"]) > 1


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("per_device", "accumulation"), LAYOUTS)
def test_a_short_last_batch_is_divided_by_what_it_holds(
    train: Train, reduction: str, per_device: int, accumulation: int
) -> None:
    rows = token_rows(11)
    rate = 2.0**-6
    model = tiny_model()
    losses = []
    for part in (rows.to_list()[:8], rows.to_list()[8:]):
        expected = oracle.step(model, part, reduction)
        losses.append(expected.loss)
        for name, parameter in model.named_parameters():
            parameter.data -= rate * expected.gradients[name]
    start = copy_weights(tiny_model())
    expected_update = update(start, copy_weights(model))
    trainer, found = train(rows, loss_reduction=reduction, learning_rate=rate, **layout(per_device, accumulation))
    # weights are compared here, whose rounding is large beside two small steps
    assert oracle.worst_difference(found, expected_update) < 1e-3
    assert [line["loss"] for line in trainer.state.log_history[:2]] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "microbatch_mean"])
@pytest.mark.parametrize("eval_batch", [1, 2, 3, 7, 16])
def test_eval_loss_is_the_mean_over_tokens_for_any_batch_size(
    train: Train, tmp_path: Path, reduction: str, eval_batch: int
) -> None:
    ragged = token_rows(7, first=20)
    trainer = trainer_for(
        tiny_model(),
        tmp_path,
        token_rows(8),
        ragged,
        loss_reduction=reduction,
        per_device_eval_batch_size=eval_batch,
    )
    expected = oracle.mean_loss(tiny_model(), ragged.to_list())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", [PACKED, PADDING_FREE, PADDING_FREE | {"pad_to_multiple_of": 64}])
def test_eval_loss_of_padding_free_rows_is_the_mean_over_tokens(tmp_path: Path, form: dict[str, Any]) -> None:
    ragged = token_rows(7, first=20)
    trainer = trainer_for(tiny_model(), tmp_path, token_rows(8), ragged, per_device_eval_batch_size=3, **form)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(oracle.mean_loss(tiny_model(), ragged.to_list()), rel=1e-6)


def test_evaluation_between_steps_leaves_the_training_log_alone(train: Train) -> None:
    rows, ragged = token_rows(16), token_rows(7, first=20)
    keys = {"loss_reduction": "sum", "learning_rate": 0.01, **layout(4, 2)}
    plain, _ = train(rows, **keys)
    evaluated, _ = train(rows, eval_rows=ragged, eval_strategy="steps", eval_steps=1, **keys)
    lines = [line for line in evaluated.state.log_history if "loss" in line]
    assert lines == [line for line in plain.state.log_history if "loss" in line]
    assert sum("eval_loss" in line for line in evaluated.state.log_history) == 2


def test_the_rate_of_these_tests_is_no_rounding() -> None:
    assert RATE == 2.0**4  # a power of two divides without rounding
