"""PPOTrainer against a slow loop over conversations, and what must not change a step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import ppo_oracle
from tests.online_layouts import (
    online_config,
    online_trainer,
    read_model,
    read_value_model,
    samples_of,
    save_models,
    weights_of,
)
from tests.ppo_oracle import Sample, Settings

LAYOUTS = ((8, 1), (4, 2), (1, 8))  # completions in a micro-batch, micro-batches


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def ppo(models: Path, folder: Path, layout: tuple[int, int] = (8, 1), **keys: Any) -> Any:
    """A PPOTrainer; `minibatches` and what `online_trainer` takes beside PPOConfig's keys."""
    others = {key: keys.pop(key) for key in OTHERS if key in keys}
    rows, steps = layout
    keys = {"steps_per_generation": steps * keys.pop("minibatches", 1)} | keys
    keys = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps} | keys
    return online_trainer("ppo", models, online_config("ppo", folder, **keys), **others)


OTHERS = ("reference", "reward_funcs", "rows", "value_model", "eval_dataset", "peft_config", "callbacks")


def step_of_oracle(
    models: Path, minibatches: list[list[list[Sample]]], with_: Settings
) -> tuple[dict[str, torch.Tensor], ppo_oracle.Account]:
    """How far every weight of both networks moved."""
    policy, reference = read_model(models / "base"), read_model(models / "reference")
    critic = read_value_model(models / "scorer")
    networks = {"policy": policy, "value": critic}
    before = named(networks)
    account = ppo_oracle.train(policy, reference, critic, minibatches, with_)
    return {name: before[name] - weight for name, weight in named(networks).items()}, account


def named(networks: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        f"{network}.{name}": parameter.detach().clone()
        for network, model in networks.items()
        for name, parameter in model.named_parameters()
    }


def moved(trainer: Any, models: Path) -> dict[str, torch.Tensor]:
    before = named({"policy": read_model(models / "base"), "value": read_value_model(models / "scorer")})
    return {name: before[name] - weight for name, weight in weights_of(trainer).items()}


CASES: dict[str, dict[str, Any]] = {
    "dapo 8x1": {"layout": (8, 1)},
    "dapo 4x2": {"layout": (4, 2)},
    "dapo 1x8": {"layout": (1, 8)},
    "bnpo 4x2": {"layout": (4, 2), "loss_type": "bnpo"},
    "dapo, two minibatches": {"layout": (2, 2), "minibatches": 2},
    "k1 in the loss": {"layout": (4, 2), "kl_placement": "loss"},
    "k2 in the loss": {"layout": (4, 2), "kl_placement": "loss", "kl_estimator": "k2", "loss_type": "bnpo"},
    "k3 in the loss": {"layout": (4, 2), "kl_placement": "loss", "kl_estimator": "k3"},
    "k3 in the reward": {"layout": (8, 1), "kl_estimator": "k3", "gradient_checkpointing": True},
}


@pytest.mark.parametrize("case", CASES)
def test_the_steps_of_a_rollout_are_those_of_one_conversation_at_a_time(
    tmp_path: Path, models: Path, case: str
) -> None:
    keys = {"loss_type": "dapo", "minibatches": 1, "beta": 0.3, "gamma": 0.97, "lam": 0.9} | CASES[case]
    steps = 2 * keys["minibatches"]  # two passes
    trainer = ppo(models, tmp_path, reference="reference", num_iterations=2, max_steps=steps, **keys)
    trainer.train()
    batches = samples_of(trainer)
    size = len(batches) // keys["minibatches"]
    want, account = step_of_oracle(
        models,
        [batches[start : start + size] for start in range(0, len(batches), size)],
        Settings(
            temperature=0.7,
            beta=0.3,
            gamma=0.97,
            lam=0.9,
            epochs=2,
            value_rate=2.0,
            reduction=keys["loss_type"],
            kl_in_loss=keys.get("kl_placement") == "loss",
            estimator=keys.get("kl_estimator", "k1"),
        ),
    )
    found = moved(trainer, models)
    assert found.keys() == want.keys()
    worst = {name: float((found[name] - want[name]).abs().max() / want[name].abs().max()) for name in want}
    print(case, max(worst.values()), account)
    assert max(worst.values()) < 1e-5
