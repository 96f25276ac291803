"""The alarms of reinforcement learning, on logs made by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from tulu_recipes.run import read_alarms
from tulu_recipes.trainers.alarms import AlarmCallback
from tulu_recipes.trainers.online_alarms import OnlineRules, OnlineWindows

OFF = OnlineRules(3, None, None, None, None, None, None, None)
LINE = {
    "loss": 0.1,
    "entropy": 1.0,
    "reward": 5.0,
    "reward_std": 4.0,
    "completions/clipped_ratio": 0.1,
    "completions/mean_length": 20.0,
    "verifier/error_rate": 0.0,
    "kl_per_completion": 1.0,
    "values/explained_variance": 0.5,
}


def found_in(rules: OnlineRules, *lines: dict[str, Any]) -> dict[str, float]:
    windows = OnlineWindows(rules)
    for step, line in enumerate(lines, start=1):
        assert windows.takes(line)
        windows.add({"step": step, **line}, 0)
    found = windows.found()
    for name, value in found.items():
        assert windows.explain(name, value).startswith("Over the last 3 logged steps")
    return found


def with_(**changed: float | None) -> dict[str, Any]:
    return LINE | {key.replace("__", "/"): value for key, value in changed.items()}


def test_nothing_is_said_of_a_good_run_or_before_the_window_is_full() -> None:
    all_on = OnlineRules(3, 0.5, 0.01, 3.0, 0.1, 5.0, 10.0, 0.0)
    assert found_in(all_on, *[LINE] * 10) == {}
    assert found_in(all_on, *[with_(reward_std=0.0)] * 2) == {}


@pytest.mark.parametrize(
    ("rules", "line", "alarm"),
    [
        ({}, {"reward_std": 0.0}, {"rewards-equal": 5.0}),
        ({}, {"frac_reward_zero_std": 1.0}, {"rewards-equal": 5.0}),
        ({}, {"reward_std": None}, {}),
        ({}, {"frac_reward_zero_std": 0.9}, {}),
        ({"truncation": 0.5}, {"completions__clipped_ratio": 0.6}, {"completions-cut": pytest.approx(0.6)}),
        ({"truncation": 0.5}, {"completions__clipped_ratio": 0.5}, {}),
        ({"verifier_errors": 0.01}, {"verifier__error_rate": 0.02}, {"verifier-errors-rise": pytest.approx(0.02)}),
        ({"entropy_low": 0.1}, {"entropy": 0.05}, {"entropy-low": pytest.approx(0.05)}),
        ({"entropy_high": 4.0}, {"entropy": 4.5}, {"entropy-high": pytest.approx(4.5)}),
        ({"kl": 10.0}, {"kl_per_completion": 11.0}, {"kl-high": pytest.approx(11.0)}),
        ({"explained_variance": 0.0}, {"values__explained_variance": -0.5}, {"values-explain-little": -0.5}),
    ],
)
def test_each_alarm_has_its_limit(rules: dict[str, float], line: dict[str, Any], alarm: dict[str, float]) -> None:
    assert found_in(OnlineRules(**{**vars(OFF), **rules}), *[with_(**line)] * 3) == alarm


def test_lengths_are_compared_with_the_first_window_both_ways() -> None:
    rules = OnlineRules(**{**vars(OFF), "length_drift": 2.0})
    start = [LINE] * 3
    for length, drift in ((50.0, 2.5), (8.0, 0.4)):
        drifted = [with_(completions__mean_length=length)] * 3
        assert found_in(rules, *start, *drifted) == {"length-drift": pytest.approx(drift)}
    assert found_in(rules, *start, *[with_(completions__mean_length=40.0)] * 3) == {}


def test_steps_between_rollouts_count_as_the_rollout_before() -> None:
    between = {"loss": 0.2, "entropy": 1.0}
    assert found_in(OFF, with_(reward_std=0.0), between, between) == {"rewards-equal": 5.0}
    assert found_in(OFF, with_(reward_std=0.0), between, LINE) == {}
    # GRPO logs no values, and no KL without a reference: nothing is said of what is not there
    rules = OnlineRules(**{**vars(OFF), "kl": 0.1, "explained_variance": 0.9})
    bare = {key: value for key, value in LINE.items() if not key.startswith(("kl", "values"))}
    assert found_in(rules, bare, bare, bare) == {}


def test_an_alarm_keeps_the_completions_that_caused_it(tmp_path: Path) -> None:
    alarms = AlarmCallback(tmp_path, OnlineWindows(OFF), stop=True)
    alarms.samples = lambda: [{"prompt": "1+1", "completion": "3", "rewards": {"verifiable": 0.0}}]
    args = SimpleNamespace(world_size=1, get_warmup_steps=lambda steps: 0)
    control = TrainerControl()
    for step in (1, 2, 3):
        state = TrainerState(global_step=step, max_steps=9, is_world_process_zero=True)
        alarms.on_log(args, state, control, logs=with_(reward_std=0.0))  # type: ignore[arg-type]
        assert control.should_training_stop == (step == 3)
    (said,) = read_alarms(tmp_path)
    assert (said["alarm"], said["step"]) == ("rewards-equal", 3)
    assert json.loads((tmp_path / said["samples"]).read_text())["completion"] == "3"
    assert alarms.stopped is not None
