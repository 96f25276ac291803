"""What each process of a launch runs: worker.py MODE FOLDER. Several steps a start, since a start takes seconds.

FOLDER/cases.json names the cases; rank 0 writes FOLDER/results.json and FOLDER/<case>.safetensors, the whole weights
after the step. Every rank checks after every step that the launch is what it was asked to be.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

SHIMMED = "fsdp2"


def main(mode: str, folder: Path) -> None:
    if mode == SHIMMED:
        import tests.distributed.shim  # noqa: F401
    import torch.distributed

    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    results = {}
    for name, keys in cases.items():
        results[name] = (run_pair_case if "stage" in keys else run_case)(name, keys, mode, folder)
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
    """A step of a preference stage. Keys of ours: `stage`, `rows`, `reference` (a model's folder), `lora` (peft's),
    `part_rows` (of a cache)."""
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from tests.distributed.evidence import parallelism, require, whole_weights
    from tests.pair_layouts import pair_config, pair_rows, pair_trainer
    from tulu_recipes.trainers import ref_cache
    from tulu_recipes.trainers.reward import load_scorer

    start = time.monotonic()
    keys = dict(keys)
    stage, rows, reference = keys.pop("stage"), pair_rows(keys.pop("rows", 8)), keys.pop("reference", None)
    others: dict[str, Any] = {}
    ref_cache.PART_ROWS = keys.pop("part_rows", 4096)
    if lora := keys.pop("lora", None):
        others["peft_config"] = LoraConfig(task_type="CAUSAL_LM", **lora)
    args = pair_config(stage, folder / name, use_cpu=mode != SHIMMED, **keys)
    if stage == "reward":
        model = load_scorer(str(folder / "scorer"))
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32")
    if reference:
        others["ref_model"] = AutoModelForCausalLM.from_pretrained(folder / reference, dtype="float32")
    trainer = pair_trainer(stage, model, args, rows, **others)
    trainer.train()
    require(trainer, mode, processes=2)
    weights = whole_weights(trainer)
    result = {
        "log": trainer.state.log_history[:-1],
        "parallelism": parallelism(trainer),
        "processes": torch_world_size(),
        "seconds": time.monotonic() - start,
    }
    if trainer.accelerator.is_main_process:
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors")
    trainer.accelerator.free_memory()
    return result


def torch_world_size() -> int:
    import torch.distributed

    return torch.distributed.get_world_size()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
