"""Alarms of preference tuning: chosen answers that collapse, and an accuracy that stays at chance.

Both look at what is logged, so they cost nothing. A resumed run refills its window from the log history that its
checkpoint holds: it alarms as an unbroken run would have.
"""

import json
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tulu_recipes.run import ALARMS

COLLAPSE, CHANCE = "chosen-collapse", "accuracy-at-chance"
Line = Mapping[str, float]


@dataclass(frozen=True)
class AlarmRules:
    """window: logged steps. chosen_drop: nats per token. accuracy: share of pairs, 0-1."""

    window: int
    chosen_drop: float
    accuracy: float


class AlarmWindows:
    """The logged steps that the alarms look at; `add` takes training logs in their order, with `step`."""

    def __init__(self, rules: AlarmRules) -> None:
        self.rules = rules
        self.first: list[Line] = []
        self.last: deque[Line] = deque(maxlen=rules.window)
        self.moved: deque[Line] = deque(maxlen=rules.window)

    def add(self, line: Line, warmup_steps: int) -> None:
        if len(self.first) < self.rules.window:
            self.first.append(line)
        self.last.append(line)
        # Warm-up has hardly moved the model: such an accuracy says nothing
        if line["step"] > warmup_steps:
            self.moved.append(line)

    @property
    def has_reference(self) -> bool:
        return bool(self.last) and "kl/chosen" in self.last[-1]

    def found(self) -> dict[str, float]:
        """The alarms that hold now, with the value that each is about; none before its window is full."""
        values, rules = {}, self.rules
        if len(self.last) == rules.window:
            change = self._chosen_change()
            if change < -rules.chosen_drop:
                values[COLLAPSE] = change
        if len(self.moved) == rules.window:
            accuracy = _mean(self.moved, "rewards/accuracies")
            if accuracy < rules.accuracy:
                values[CHANCE] = accuracy
        return values

    def _chosen_change(self) -> float:
        """Nats per token that chosen answers gained: on the reference, or without one (SimPO) on the first window."""
        if self.has_reference:
            return _mean(self.last, "kl/chosen")
        return _mean(self.last, "logps_per_token/chosen") - _mean(self.first, "logps_per_token/chosen")


def _mean(lines: Iterable[Line], name: str) -> float:
    values = [line[name] for line in lines]
    return sum(values) / len(values)


def explain(name: str, value: float, rules: AlarmRules, has_reference: bool) -> str:
    """What an alarm means and what usually causes it, for a person."""
    window = f"Over the last {rules.window} logged steps"
    if name == COLLAPSE:
        compared = "under the reference model" if has_reference else "at the start"
        return (
            f"{window} chosen answers were {-value:.2f} nats per token less likely than {compared} "
            f"(limit {rules.chosen_drop:g}): the model unlearns the answers it should prefer, only more slowly than "
            "the rejected ones. Usual causes: a learning rate that is too high, a beta that is too small, or pairs "
            "that are mislabelled or hardly differ."
        )
    return (
        f"{window} {value:.0%} of the pairs were ranked rightly (limit "
        f"{rules.accuracy:.0%}), about as by a coin: the model does not learn what is preferred. Usual causes: a "
        "learning rate that is too low or lost in bfloat16 weights, chosen and rejected swapped or nearly identical "
        "in many pairs, or a masking that compares other turns than those that differ."
    )


class AlarmCallback(TrainerCallback):
    """Raise an alarm once, and again only after it was gone: on stderr and in alarms.jsonl.

    stop: end the run with a checkpoint; `stopped` then holds what the alarm says. A run that is resumed with the
    alarm still on stops again, at its next log or, where none is left, at once. All ranks decide on the main
    process's numbers.
    """

    def __init__(self, folder: Path, rules: AlarmRules, *, stop: bool) -> None:
        self.folder, self.rules, self.stop = folder, rules, stop
        self.windows = AlarmWindows(rules)
        self.on: set[str] = set()
        self.stopped: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        warmup = args.get_warmup_steps(state.max_steps)
        for line in state.log_history:
            if _is_step(line):
                self.windows.add(line, warmup)
        if not self.stop:
            self.on = set(self.windows.found())  # said before the run was interrupted
        elif state.global_step >= state.max_steps:
            self._judge(state, control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not _is_step(logs or {}):
            return
        line = [{**logs, "step": state.global_step}]
        if args.world_size > 1:
            broadcast_object_list(line, from_process=0)
        self.windows.add(line[0], args.get_warmup_steps(state.max_steps))
        self._judge(state, control)

    def _judge(self, state: TrainerState, control: TrainerControl) -> None:
        """Say which alarms are new, and stop for them if asked to."""
        found = self.windows.found()
        new = {name: value for name, value in sorted(found.items()) if name not in self.on}
        self.on = set(found)
        texts = {name: explain(name, value, self.rules, self.windows.has_reference) for name, value in new.items()}
        if state.is_world_process_zero:
            for name, text in texts.items():
                self._raise(name, new[name], text, state.global_step)
        if texts and self.stop:
            self.stopped = " ".join(texts.values())
            control.should_save = True
            control.should_training_stop = True

    def _raise(self, name: str, value: float, text: str, step: int) -> None:
        sys.stderr.write(f"\nALARM {name} at step {step}. {text}\n")
        said = {"step": step, "alarm": name, "value": value, "window": self.rules.window, "message": text}
        with (self.folder / ALARMS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def _is_step(line: Mapping[str, Any]) -> bool:
    """Whether this is the log of training steps, rather than of an evaluation or the end."""
    return "loss" in line and "rewards/accuracies" in line
