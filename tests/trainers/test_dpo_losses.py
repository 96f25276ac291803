"""Every loss of TRL's DPOTrainer gives TRL's own number, on tokens that ours has masked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig as TrlDPOConfig
from trl import DPOTrainer as TrlDPOTrainer

from tests.tiny import pair, save_base
from tulu_recipes.config.our_keys import DPO_LOSSES
from tulu_recipes.errors import RecipeError
from tulu_recipes.trainers import DPOConfig, DPOTrainer

pytestmark = pytest.mark.integration
ROWS = [pair(number, 1) for number in range(6)]
QUIET = {"use_cpu": True, "bf16": False, "report_to": "none", "beta": 0.7, "disable_tqdm": True}


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours and TRL's, over the same rows, with a policy that has moved away from its reference."""
    folder = tmp_path_factory.mktemp("losses")
    base = save_base(folder / "base")

    def model(shift: float) -> Any:
        loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        generator = torch.Generator().manual_seed(1)
        for weight in loaded.parameters():
            weight.data += shift * torch.randn(weight.shape, generator=generator)
        return loaded

    made = []
    for trainer, config, rows in (
        (DPOTrainer, DPOConfig, ROWS),
        (TrlDPOTrainer, TrlDPOConfig, [{key: row[key] for key in ("chosen", "rejected")} for row in ROWS]),
    ):
        tokenizer = AutoTokenizer.from_pretrained(base)
        args = config(output_dir=str(folder / config.__module__), **QUIET)
        made.append(
            trainer(
                model(0.02),
                ref_model=model(0.0),
                args=args,
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
            )
        )
        made[-1].model.eval()
    return made[0], made[1]


def loss_of(trainer: Any, loss: str, *, smoothing: float = 0.1) -> float:
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(ROWS))])
    trainer.label_smoothing = smoothing
    sft = loss == "sft" and isinstance(trainer, DPOTrainer)
    trainer.sft_weight = 1.0 if sft else 0.0
    trainer.loss_types, trainer.loss_weights = ([], []) if sft else ([loss], [1.0])
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


@pytest.mark.parametrize("loss", [loss for loss in DPO_LOSSES if loss != "simpo"])
def test_each_loss_is_trl_s(loss: str, trainers: tuple[Any, Any]) -> None:
    ours, theirs = (loss_of(trainer, loss) for trainer in trainers)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert abs(ours) > 1e-4


def test_losses_and_weights_add_up(trainers: tuple[Any, Any]) -> None:
    trainer = trainers[0]
    alone = loss_of(trainer, "sigmoid"), loss_of(trainer, "sft")
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(ROWS))])
    trainer.loss_types, trainer.loss_weights, trainer.sft_weight = ["sigmoid"], [1.0], 0.2
    with torch.no_grad():
        both = float(trainer.compute_loss(trainer.model, batch))
    assert both == pytest.approx(alone[0] + 0.2 * alone[1], rel=1e-6)


def test_forwards_apart_give_the_same_loss(trainers: tuple[Any, Any]) -> None:
    trainer = trainers[0]
    together = loss_of(trainer, "sigmoid_norm")
    trainer.args.concatenated_forward = False
    apart = loss_of(trainer, "sigmoid_norm")
    trainer.args.concatenated_forward = True
    assert apart == pytest.approx(together, rel=1e-6)


def test_a_config_from_python_is_checked_as_a_recipe_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        DPOConfig(output_dir=str(tmp_path), masking="first", **QUIET | {"beta": 0.0})
    assert [problem.slug for problem in caught.value.problems] == ["unknown-choice", "out-of-range"]
