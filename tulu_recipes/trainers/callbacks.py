"""What happens beside the training steps: metrics on disk, one progress line, a clean stop on Ctrl-C."""

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class MetricsCallback(TrainerCallback):
    """Append every log to metrics.jsonl, with its step; lines reach the disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or logs is None or "train_runtime" in logs:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class ProgressCallback(TrainerCallback):
    """One bar with loss, tokens/s (in RLVR reward, completions/s) and time left.

    Where nobody watches (a file, a pipe), a line now and then. A context manager too: leaving it takes the bar down,
    so that an error is not written over by it.
    """

    LINES = 20  # lines a run writes into a log file

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.clock = time.monotonic()
        self.count: int | None = None  # None until the first log: its interval holds start-up
        self.next_line = 0.0
        self.scored = ""  # what was said of the rollout at work

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        text = self._text(logs)
        if self.bar is not None:
            self.bar.update(self.task, description=text)
        elif state.global_step >= self.next_line or state.global_step == state.max_steps:
            self.next_line = state.global_step + state.max_steps / self.LINES
            self.console.print(f"step {state.global_step}/{state.max_steps} · {text}", highlight=False, soft_wrap=True)

    def _text(self, logs: dict[str, float]) -> str:
        if "episodes" not in logs:
            return _lost(logs) + self._rate(int(logs["num_tokens"]), "tokens")
        if "reward" in logs:  # a new rollout; further steps on it have nothing new to say of it
            self.scored = _scored(logs) + self._rate(int(logs["episodes"]), "completions")
        return self.scored

    def _rate(self, count: int, unit: str) -> str:
        now, before = time.monotonic(), self.count
        seconds, self.clock, self.count = now - self.clock, now, count
        return "" if before is None else f" · {(count - before) / seconds:,.0f} {unit}/s"

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> "ProgressCallback":
        return self

    def __exit__(self, *exception: object) -> None:
        self.on_train_end()


def _lost(logs: dict[str, float]) -> str:
    accuracy = logs.get("rewards/accuracies", logs.get("accuracy"))  # of preference stages
    return f"loss {logs['loss']:.4f}" + ("" if accuracy is None else f" · {accuracy:.0%} of pairs right")


def _scored(logs: dict[str, float]) -> str:
    shares = {"verifier/accuracy": "right", "completions/clipped_ratio": "cut"}
    return f"reward {logs['reward']:.3f}" + "".join(
        f" · {logs[key]:.0%} {name}" for key, name in shares.items() if key in logs
    )


class StopOnSignal(TrainerCallback):
    """Ctrl-C or SIGTERM (a cluster's time limit): finish the step, save a checkpoint, stop. A second stops at once.

    The ranks agree after every step, since a signal may reach them at different steps and the save is collective.
    """

    def __init__(self) -> None:
        self.requested = False
        self.stopped = False

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        sys.stderr.write("\nStopping after this step; a checkpoint is saved. Press Ctrl-C again to stop at once.\n")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        requested = self.requested
        if args.world_size > 1:
            flag = torch.tensor(int(requested), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            requested = bool(flag)
        if requested and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
