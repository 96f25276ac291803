"""GRPO and RLOO of ours: what OnlineTrainer adds to TRL's."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.online_layouts import (
    ended,
    online_config,
    online_trainer,
    prompt_rows,
    read_model,
    samples_of,
    save_models,
    score_of,
    step_lines,
    weights_of,
)

ALGORITHMS = ("grpo", "rloo")
# Tülu 3.1's loss: k3 in it, mean over micro-batches
TULU_3_1 = {"loss_type": "bnpo", "beta": 0.01, "use_bias_correction_kl": False, "scale_rewards": "group"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def trained(algorithm: str, models: Path, folder: Path, **keys: Any) -> Any:
    others = {key: keys.pop(key) for key in ("reward_funcs", "eval_dataset") if key in keys}
    keys = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4} | keys
    trainer = online_trainer(algorithm, models, online_config(algorithm, folder, **keys), **others)
    trainer.train()
    return trainer


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_minibatches_and_the_penalty_of_what_does_not_end(tmp_path: Path, models: Path, algorithm: str) -> None:
    keys = (TULU_3_1 if algorithm == "grpo" else {}) | {"max_steps": 2, "non_stop_reward": -10.0}
    trainer = trained(algorithm, models, tmp_path, **keys)
    samples = [sample.completion for batch in samples_of(trainer) for sample in batch]
    want = [score_of(ids) if ended(ids) else -10.0 for ids in samples]
    assert 0 < want.count(-10.0) < len(want) == 16
    assert sorted(trainer.rewards_per_func[:, 0].tolist()) == sorted(want)
    first, second = step_lines(trainer)
    assert first["reward"] == pytest.approx(sum(want) / 16)
    assert first["episodes"] == second["episodes"] == 16  # one rollout
    assert first["kl"] == pytest.approx(0, abs=1e-7)
    assert first["grad_norm"] > 0.01


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_rewards_have_no_gradient(tmp_path: Path, models: Path, algorithm: str) -> None:
    equal = {"reward_funcs": lambda completion_ids, **_: [0.25] * len(completion_ids), "beta": 0.0}
    trainer = trained(algorithm, models, tmp_path, **equal)
    start = {f"policy.{name}": weight for name, weight in read_model(models / "base").named_parameters()}
    assert all(torch.equal(weight, start[name]) for name, weight in weights_of(trainer).items())
    assert [line["grad_norm"] for line in step_lines(trainer)] == [0.0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_how_often_is_evaluated_changes_nothing(tmp_path: Path, models: Path, algorithm: str) -> None:
    def noisy(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [score_of(ids) + random.random() for ids in completion_ids]

    found = []
    for more in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        keys = {"max_steps": 2, "per_device_eval_batch_size": 4, "gradient_accumulation_steps": 1} | more
        keys["steps_per_generation"] = 1
        trainer = trained(algorithm, models, tmp_path, reward_funcs=noisy, eval_dataset=prompt_rows(2), **keys)
        found.append((weights_of(trainer), step_lines(trainer)))
    assert all(torch.equal(found[1][0][name], weight) for name, weight in found[0][0].items())
    assert found[1][1] == found[0][1]
    assert len([line for line in trainer.state.log_history if "eval_reward" in line]) == 2
