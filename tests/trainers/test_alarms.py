"""The alarms of preference tuning: on logs made by hand, and on a run that collapses."""

import gc
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.stage import run_here, slugs, write_pair_recipe
from tests.tiny import save_base
from tulu_recipes.run import read_alarms, read_json, read_metrics
from tulu_recipes.trainers.alarms import AlarmCallback
from tulu_recipes.trainers.preference_alarms import AlarmRules, AlarmWindows

RULES = AlarmRules(window=3, chosen_drop=1.0, accuracy=0.55)


def found_in(*lines: dict[str, float], warmup_steps: int = 0, rules: AlarmRules = RULES) -> dict[str, float]:
    windows = AlarmWindows(rules)
    for line in lines:
        windows.add(line, warmup_steps)
    return windows.found()


def line(step: int, accuracy: float = 0.9, margin: float = 0.5, **more: float) -> dict[str, float]:
    values = {"loss": 0.5, "rewards/accuracies": accuracy, "rewards/margins": margin, "kl/chosen": 0.1}
    return {"step": step, **values, **{key.replace("_", "/", 1): value for key, value in more.items()}}


def simpo(step: int, logps: float) -> dict[str, float]:
    without_reference = {key: value for key, value in line(step).items() if key != "kl/chosen"}
    return {**without_reference, "logps_per_token/chosen": logps}


def test_collapse_is_the_mean_of_a_full_window_below_the_limit() -> None:
    falling = [line(step, kl_chosen=kl) for step, kl in enumerate([-4.0, -1.5, -0.9, -0.9], start=1)]
    assert found_in(*falling[:2]) == {}  # not full, however deep
    assert found_in(*falling[:3]) == {"chosen-collapse": pytest.approx((-4 - 1.5 - 0.9) / 3)}
    assert found_in(*falling[1:]) == {"chosen-collapse": pytest.approx(-1.1)}
    assert found_in(*falling[2:], line(5, kl_chosen=-1.2)) == {}  # exactly 1.0 is no drop of more than 1.0


def test_without_a_reference_chosen_answers_are_compared_with_the_first_window() -> None:
    steady = [simpo(step, -2.0) for step in (1, 2, 3)]
    assert found_in(*steady) == {}
    fallen = [simpo(4, -2.5), simpo(5, -3.0), simpo(6, -3.8)]
    assert found_in(*steady, *fallen) == {"chosen-collapse": pytest.approx(-3.1 + 2.0)}


def test_accuracy_at_chance_counts_steps_after_warm_up() -> None:
    at_chance = [line(step, accuracy=0.5) for step in (1, 2, 3)]
    assert found_in(*at_chance) == {"accuracy-at-chance": 0.5}
    assert found_in(*at_chance, warmup_steps=1) == {}
    assert found_in(*at_chance, line(4, accuracy=0.4), warmup_steps=1) == {
        "accuracy-at-chance": pytest.approx((0.5 + 0.5 + 0.4) / 3)
    }
    # weights that do not move rank nothing, and every tie counts as half
    unmoved = [line(step, accuracy=0.5, margin=0.0) for step in (1, 2, 3)]
    assert found_in(*unmoved) == {"accuracy-at-chance": 0.5}
    assert found_in(unmoved[0], *[line(step, accuracy=0.6) for step in (2, 3, 4)]) == {}


class Told:
    """An AlarmCallback with the surroundings a trainer gives it."""

    def __init__(self, folder: Path, *, stop: bool = False, history: list[dict[str, float]] | None = None) -> None:
        self.alarms = AlarmCallback(folder, AlarmWindows(RULES), stop=stop)
        self.args = TrainingArguments(str(folder), report_to=[], use_cpu=True)
        self.control = TrainerControl()
        self.state = TrainerState(max_steps=100, log_history=history or [], is_world_process_zero=True)
        self.state.global_step = int(history[-1]["step"]) if history else 0
        self.alarms.on_train_begin(self.args, self.state, self.control)

    def log(self, *lines: dict[str, float]) -> "Told":
        for values in lines:
            self.state.global_step = int(values["step"])
            self.alarms.on_log(self.args, self.state, self.control, logs=values)
        return self

    @property
    def said(self) -> list[tuple[int, str]]:
        return [(entry["step"], entry["alarm"]) for entry in read_alarms(self.alarms.folder)]


def test_an_alarm_is_raised_once_and_again_after_it_was_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kl = [-2.0] * 5 + [0.0] * 3 + [-2.0] * 3
    told = Told(tmp_path).log(*[line(step, kl_chosen=value) for step, value in enumerate(kl, start=1)])
    assert told.said == [(3, "chosen-collapse"), (10, "chosen-collapse")]  # mean of 0, -2, -2 at step 10
    errors = capsys.readouterr().err
    assert errors.count("ALARM chosen-collapse") == 2
    assert "2.00 nats per token less likely than under the reference model (limit 1)" in errors
    assert "beta" in errors
    assert told.alarms.stopped is None
    assert not told.control.should_training_stop


def test_a_resumed_run_alarms_as_an_unbroken_one(tmp_path: Path) -> None:
    lines = [line(step, kl_chosen=value) for step, value in enumerate([0.0, -2.0, -2.0, -2.0, 0.0], start=1)]
    evaluation = {"step": 2, "eval_loss": 1.0, "eval_kl/chosen": -9.0}
    resumed = Told(tmp_path, history=[*lines[:2], evaluation])  # from the checkpoint of step 2
    assert resumed.log(*lines[2:]).said == [(3, "chosen-collapse")]
    later = Told(tmp_path, history=lines[:4]).log(lines[4])
    assert later.said == [(3, "chosen-collapse")]  # said once, before the interruption


def test_with_stop_the_run_is_saved_and_ended_also_when_it_is_resumed(tmp_path: Path) -> None:
    lines = [line(step, accuracy=0.5) for step in (1, 2, 3, 4)]
    told = Told(tmp_path, stop=True).log(*lines[:3])
    assert told.control.should_save
    assert told.control.should_training_stop
    assert "50% of the pairs were ranked rightly (limit 55%)" in str(told.alarms.stopped)
    again = Told(tmp_path, stop=True, history=lines[:3]).log(lines[3])
    assert again.control.should_training_stop
    assert again.said == [(3, "accuracy-at-chance"), (4, "accuracy-at-chance")]
    ended = [line(step, accuracy=0.5) for step in (98, 99, 100)]
    assert Told(tmp_path, stop=True, history=ended).alarms.stopped  # no step is left, and so no log
    assert not Told(tmp_path, stop=False, history=ended).alarms.stopped


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base")


@pytest.mark.integration
def test_a_run_that_collapses_stops_and_goes_on_when_told_to(base: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"num_train_epochs": 1, "save_strategy": "no", "warmup_steps": 0, "alarm_window": 2}
    recipe = write_pair_recipe(tmp_path, model_name_or_path=str(base), on_alarm="stop", learning_rate=0.3, **keys)
    run = tmp_path / "run"
    done = run_here("dpo", recipe)
    assert (done.returncode, slugs(done.stderr)) == (1, {"alarm-stopped"})
    assert "ALARM chosen-collapse at step" in done.stderr
    assert f"python -m tulu_recipes.dpo {recipe} --on_alarm warn" in done.stderr
    record = read_json(run / "run.json")
    step = record["stopped_at_step"]
    assert record["status"] == "stopped"
    assert (run / f"checkpoint-{step}" / "trainer_state.json").is_file()
    assert step < 5  # of 40 pairs in steps of 8
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "chosen-collapse" in report

    gc.collect()  # with the trainer goes the lock on the folder, as with a process
    done = run_here("dpo", recipe, "--on_alarm", "warn")
    assert done.returncode == 0, done.stderr
    assert read_json(run / "run.json")["status"] == "finished"
    assert [values["step"] for values in read_metrics(run) if "loss" in values] == [1, 2, 3, 4, 5]
    assert "ALARM" not in done.stderr  # it was said already
