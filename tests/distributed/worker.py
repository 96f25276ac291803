"""What each process of a launch runs: worker.py MODE FOLDER. Several steps a start, since a start takes seconds.

FOLDER/cases.json names the cases; rank 0 writes FOLDER/results.json and FOLDER/<case>.safetensors, the whole weights
after the step. Every rank checks after every step that the launch is what it was asked to be.
"""

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
    results = {name: run_case(name, keys, mode, folder) for name, keys in cases.items()}
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


def torch_world_size() -> int:
    import torch.distributed

    return torch.distributed.get_world_size()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
