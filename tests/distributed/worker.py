"""What each process of a launch runs: worker.py MODE FOLDER. Several steps a start, since a start takes seconds.

FOLDER/cases.json names the cases; rank 0 writes FOLDER/results.json and FOLDER/<case>.safetensors, the whole weights
after the step. Every rank checks after every step that the launch is what it was asked to be.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.distributed.online_cases import run_online_case

SHIMMED = "fsdp2"


def main(mode: str, folder: Path) -> None:
    if mode == SHIMMED:
        import tests.distributed.shim  # noqa: F401
    import torch.distributed

    # as the stages do: accelerate's "cpu:0" and "cpu:1" are places that no checkpoint is read back to
    os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    results = {}
    for name, keys in cases.items():
        run = run_online_case if "algorithm" in keys else run_pair_case if "stage" in keys else run_case
        results[name] = run(name, keys, mode, folder)
        gc.collect()
        gc.freeze()  # train() collects garbage, and is spared the libraries' objects
    if torch.distributed.get_rank() == 0:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run_case(name: str, keys: dict[str, Any], mode: str, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from tests.distributed.evidence import parallelism, require, whole_weights
    from tests.layouts import sft_config, token_rows, trainer_for

    start = time.monotonic()
    keys = dict(keys)
    evaluate = keys.pop("evaluate", False)
    train_rows, eval_rows = token_rows(keys.pop("rows", 8)), token_rows(7, first=20)
    args = sft_config(folder / name, use_cpu=mode != SHIMMED, **keys)
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32")  # into shards under ZeRO-3
    trainer = trainer_for(model, folder / name, train_rows, eval_rows, args=args)
    trainer.train()
    require(trainer, mode, processes=2)
    weights = whole_weights(trainer)
    result = {
        "log": trainer.state.log_history[:-1],
        "parallelism": parallelism(trainer),
        "processes": torch_world_size(),
        "rows": len(trainer.train_dataset),
        "seconds": time.monotonic() - start,
    }
    if evaluate:
        result["eval_loss"] = trainer.evaluate()["eval_loss"]
        trainer.save_model(str(folder / name / "saved"))
    if trainer.accelerator.is_main_process:
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors")
    trainer.accelerator.free_memory()
    return result


def run_pair_case(name: str, keys: dict[str, Any], mode: str, folder: Path) -> dict[str, Any]:
    """Steps of a preference stage; with `stop_at` once more, stopped before that step's checkpoint and resumed."""
    from safetensors.torch import save_file

    from tests.distributed.evidence import parallelism, require, whole_weights

    start = time.monotonic()
    keys = dict(keys)
    stop_at = keys.pop("stop_at", 0)
    trainer = build_pair_trainer(keys, mode, folder, folder / name)
    trainer.train()
    require(trainer, mode, processes=2)
    weights = whole_weights(trainer)
    result = {
        "log": trainer.state.log_history[:-1],
        "parallelism": parallelism(trainer),
        "processes": torch_world_size(),
    }
    if "eval_rows" in keys:
        result["evaluation"] = trainer.evaluate()
    if trainer.accelerator.is_main_process:
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors")
    trainer.accelerator.free_memory()
    if stop_at:
        result |= resume_pair_case(keys, mode, folder, folder / f"{name}-stopped", stop_at, weights)
    return result | {"seconds": time.monotonic() - start}


def resume_pair_case(
    keys: dict[str, Any], mode: str, folder: Path, output: Path, stop_at: int, weights: dict[str, Any]
) -> dict[str, Any]:
    """The log of a run that was stopped and resumed, and whether its weights are `weights`."""
    import torch

    from tests.distributed.evidence import whole_weights
    from tests.layouts import StopAt

    trainer = build_pair_trainer(keys, mode, folder, output, callbacks=[StopAt(stop_at)])
    try:
        trainer.train()
    except KeyboardInterrupt:
        trainer.accelerator.free_memory()
    trainer = build_pair_trainer(keys, mode, folder, output)
    trainer.train(resume_from_checkpoint=str(output / f"checkpoint-{stop_at - 1}"))
    again = whole_weights(trainer)
    trainer.accelerator.free_memory()
    return {
        "resumed_log": trainer.state.log_history[:-1],
        "same_weights": all(torch.equal(again[key], value) for key, value in weights.items()),
    }


def build_pair_trainer(keys: dict[str, Any], mode: str, folder: Path, output: Path, **others: Any) -> Any:
    """Keys of ours: `stage`, `rows`, `eval_rows`, `model` and `reference` (folders), `lora` (peft's), `part_rows`."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    from tests.pair_layouts import pair_config, pair_rows, pair_trainer
    from tulu_recipes.trainers import ref_cache
    from tulu_recipes.trainers.reward import load_scorer

    keys = dict(keys)
    stage, rows, reference = keys.pop("stage"), pair_rows(keys.pop("rows", 8)), keys.pop("reference", None)
    if eval_rows := keys.pop("eval_rows", 0):
        others["eval_rows"] = pair_rows(eval_rows)
    ref_cache.PART_ROWS = keys.pop("part_rows", 4096)
    if lora := keys.pop("lora", None):
        others["peft_config"] = LoraConfig(task_type="CAUSAL_LM", **lora)
    start = str(folder / keys.pop("model", "scorer" if stage == "reward" else "base"))
    # before any model: it says how they are sharded
    args = pair_config(stage, output, use_cpu=mode != SHIMMED, **keys)
    load = load_scorer if stage == "reward" else AutoModelForCausalLM.from_pretrained
    model = load(start, dtype="float32")
    if reference:
        others["ref_model"] = AutoModelForCausalLM.from_pretrained(folder / reference, dtype="float32")
    return pair_trainer(stage, model, args, rows, **others)


def torch_world_size() -> int:
    import torch.distributed

    return torch.distributed.get_world_size()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
