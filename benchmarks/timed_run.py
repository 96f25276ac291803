"""One training run with a clock: `python -m benchmarks.timed_run {ours|trl} {sft|dpo} RESULT.json ARGUMENTS …`

Both sides are their public entry point, with the same instrument: the time at the end of each optimizer step.
"""

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import trainer_callback

steps: list[tuple[float, int]] = []  # (seconds, tokens so far) at each log; both sides log every step


def _note(self: Any, args: Any, state: Any, control: Any, logs: dict[str, Any]) -> Any:
    if "num_tokens" in logs and "loss" in logs:
        steps.append((time.perf_counter(), int(logs["num_tokens"])))
    return _on_log(self, args, state, control, logs)


_on_log = trainer_callback.CallbackHandler.on_log
trainer_callback.CallbackHandler.on_log = _note  # type: ignore[method-assign]


def run(side: str, stage: str, arguments: list[str]) -> None:
    if side == "ours":
        code = import_module(f"tulu_recipes.{stage}").main(arguments)
        assert code == 0, code
        return
    script = import_module(f"trl.scripts.{stage}")
    script.main(*script.make_parser().parse_args_and_config(arguments, fail_with_unknown_args=True))


def main(argv: list[str]) -> None:
    side, stage, result, *arguments = argv
    started = time.perf_counter()
    run(side, stage, arguments)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    figures = {
        "steps": steps,
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_gpu_bytes": gpu,
    }
    Path(result).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
