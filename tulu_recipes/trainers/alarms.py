"""Alarms: what a run's logs say of it while it trains, and what is done about it.

They look at what is logged, so they cost nothing. A resumed run refills its windows from the log history that its
checkpoint holds: it alarms as an unbroken run would have.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tulu_recipes.run import ALARMS

Line = Mapping[str, float]


class Windows(Protocol):
    """The logged steps that the alarms of a stage look at."""

    size: int  # logged steps

    def takes(self, line: Mapping[str, Any]) -> bool:
        """Whether this is the log of training steps, rather than of an evaluation or the end."""
        ...

    def add(self, line: Line, warmup_steps: int) -> None:
        """Take a training log, with `step`, in its order."""
        ...

    def found(self) -> dict[str, float]:
        """The alarms that hold now, with the value that each is about; none before its window is full."""
        ...

    def explain(self, name: str, value: float) -> str:
        """What an alarm means and what usually causes it, for a person."""
        ...


class AlarmCallback(TrainerCallback):
    """Raise an alarm once, and again only after it was gone: on stderr and in alarms.jsonl.

    samples: gives what was at work when it rose, where there is something to show; kept beside as JSONL.

    stop: end the run with a checkpoint; `stopped` then holds what the alarm says. A run that is resumed with the
    alarm still on stops again, at its next log or, where none is left, at once. All ranks decide on the main
    process's numbers.
    """

    def __init__(self, folder: Path, windows: Windows, *, stop: bool) -> None:
        self.folder, self.windows, self.stop = folder, windows, stop
        self.samples: Callable[[], list[dict[str, Any]]] | None = None
        self.on: set[str] = set()
        self.stopped: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        warmup = args.get_warmup_steps(state.max_steps)
        for line in state.log_history:
            if self.windows.takes(line):
                self.windows.add(line, warmup)
        if not self.stop:
            self.on = set(self.windows.found())  # said before the run was interrupted
        elif state.global_step >= state.max_steps:
            self._judge(state, control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not self.windows.takes(logs or {}):
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
        texts = {name: self.windows.explain(name, value) for name, value in new.items()}
        if state.is_world_process_zero:
            for name, text in texts.items():
                self._raise(name, new[name], text, state.global_step)
        if texts and self.stop:
            self.stopped = " ".join(texts.values())
            control.should_save = True
            control.should_training_stop = True

    def _raise(self, name: str, value: float, text: str, step: int) -> None:
        sys.stderr.write(f"\nALARM {name} at step {step}. {text}\n")
        said: dict[str, Any] = {
            "step": step,
            "alarm": name,
            "value": value,
            "window": self.windows.size,
            "message": text,
        }
        samples = self.samples() if self.samples is not None else []
        if samples:
            kept = self.folder / f"alarm-{name}-step-{step}.jsonl"
            kept.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples), encoding="utf-8")
            sys.stderr.write(f"Completions of this step are kept in {kept}\n")
            said["samples"] = kept.name
        with (self.folder / ALARMS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(said, ensure_ascii=False) + "\n")
