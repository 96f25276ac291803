"""An online run that is stopped in the midst of a rollout, or killed, goes on as the uninterrupted one. Exactly."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.layouts import StopAt
from tests.online_layouts import online_config, online_trainer, prompt_rows, save_models, step_lines, weights_of
from tests.stage import QUIET
from tulu_recipes.run import newest_checkpoint

pytestmark = pytest.mark.integration

# A rollout of 8 completions makes 4 steps: 2 minibatches (each of 2 micro-batches), twice; an epoch has two rollouts
KEYS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "max_steps": 14,  # the last two draw a rollout, the second epoch's second
    "logging_steps": 4,
    "save_strategy": "steps",
    "save_steps": 3,
    "optim": "adamw_torch",
    "lr_scheduler_type": "linear",
    "learning_rate": 3e-3,
    "value_learning_rate": 1e-2,
    "beta": 0.05,
    "max_grad_norm": 1.0,
    "eval_strategy": "steps",
    "eval_steps": 6,
    "eval_on_start": True,
    "per_device_eval_batch_size": 4,
}
ROWS = {"ppo": 16, "grpo": 4, "rloo": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def train(algorithm: str, models: Path, folder: Path, stop_at: int = 0, resume: Path | None = None) -> Any:
    """What is logged, evaluations too, and the weights of all networks."""
    keys = KEYS if algorithm == "ppo" else {key: value for key, value in KEYS.items() if key != "value_learning_rate"}
    others = {"rows": ROWS[algorithm], "eval_dataset": prompt_rows(4), "callbacks": [StopAt(stop_at)]}
    trainer = online_trainer(algorithm, models, online_config(algorithm, folder, **keys), **others)
    try:
        trainer.train(resume_from_checkpoint=resume and str(resume))
    except KeyboardInterrupt:
        return None
    evaluated = [line["eval_reward"] for line in trainer.state.log_history if "eval_reward" in line]
    return step_lines(trainer), evaluated, weights_of(trainer)


@cache
def uninterrupted(algorithm: str, models: Path) -> Any:
    return train(algorithm, models, models / algorithm)


def require_equal(found: Any, want: Any) -> None:
    assert found[:2] == want[:2]
    assert found[2].keys() == want[2].keys()
    assert all(torch.equal(found[2][name], weight) for name, weight in want[2].items())


@pytest.mark.parametrize("algorithm", ROWS)
def test_a_stop_in_the_midst_of_a_rollout_leaves_no_trace(tmp_path: Path, models: Path, algorithm: str) -> None:
    whole = uninterrupted(algorithm, models)
    assert [line["step"] for line in whole[0]] == [4, 8, 12]
    assert [line["episodes"] for line in whole[0]] == [8, 16, 24]
    assert whole[0][2]["epoch"] == 1.5
    assert train(algorithm, models, tmp_path, stop_at=10) is None
    assert newest_checkpoint(tmp_path, 1) == tmp_path / "checkpoint-9"
    # 9: after the first minibatch of the second epoch; 3: in the second pass over a rollout; both inside a log line
    for checkpoint in ("checkpoint-9", "checkpoint-3"):
        require_equal(train(algorithm, models, tmp_path, resume=tmp_path / checkpoint), whole)
    # stopped after its last step, in the midst of an epoch: nothing is left to do
    require_equal(train(algorithm, models, tmp_path, resume=models / algorithm / "checkpoint-14"), whole)


def test_kill_9_of_a_ppo_run_leaves_no_trace(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.integration.test_online_resume", str(models), str(folder)]
    process = subprocess.Popen(command, env=os.environ | QUIET, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 90
    while not (folder / "checkpoint-6" / "trainer_state.json").is_file():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    checkpoint = newest_checkpoint(folder, 1)
    assert checkpoint is not None
    assert not (folder / "checkpoint-14" / "trainer_state.json").is_file()
    require_equal(train("ppo", models, folder, resume=checkpoint), uninterrupted("ppo", models))


if __name__ == "__main__":
    train("ppo", Path(sys.argv[1]), Path(sys.argv[2]))
