"""PPO on two processes: what a worker runs, and how it says which completions it trained on."""

import time
from pathlib import Path
from typing import Any

_STEP = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_iterations": 2, "max_steps": 2}
_STEP |= {"beta": 0.3, "gamma": 0.97, "lam": 0.9}
ONLINE_CASES: dict[str, dict[str, Any]] = {
    # two passes over a rollout of 8
    "ppo-dapo": {"algorithm": "ppo", "loss_type": "dapo", "kl_placement": "reward"} | _STEP,
    "ppo-bnpo": {"algorithm": "ppo", "loss_type": "bnpo", "kl_placement": "loss", "kl_estimator": "k3"} | _STEP,
    "ppo-per-rank": {"algorithm": "ppo", "whiten_advantages": "per_rank", "reward_funcs": "scorer"} | _STEP,
    # 11 prompts: the second epoch begins with step 3; stopped in the second pass over the first rollout
    "ppo-resumed": {"algorithm": "ppo", "rows": 11, "max_steps": 5, "stop_at": 4, "save_steps": 3, "num_iterations": 2}
    | {"save_strategy": "steps", "logging_steps": 2, "eval_rows": 5, "eval_strategy": "steps", "eval_steps": 2}
    | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 2}
    | {"learning_rate": 3e-3, "value_learning_rate": 1e-2, "lr_scheduler_type": "linear", "optim": "adamw_torch"},
}


def run_online_case(name: str, keys: dict[str, Any], mode: str, folder: Path) -> dict[str, Any]:
    """Both networks are saved in FOLDER/<case>/policy and …/value."""
    from accelerate.utils import gather_object

    from tests.distributed.evidence import parallelism, require
    from tests.online_layouts import samples_of, step_lines

    start = time.monotonic()
    keys = dict(keys)
    stop_at = keys.pop("stop_at", 0)
    trainer = build(keys, mode, folder, folder / name)
    trainer.train()
    require(trainer, mode, processes=2)
    require(trainer.critic, mode, processes=2)
    trainer.save_model(str(folder / name / "policy"))
    trainer.save_value_model(folder / name / "value")
    result: dict[str, Any] = {"parallelism": parallelism(trainer), "processes": 2, "log": step_lines(trainer)}
    if "reward_funcs" in keys:
        result["advantages"] = gather_object(told_advantages(trainer))
        scorer = [float(p.detach().double().abs().sum()) for p in trainer.reward_funcs[0].parameters()]
        result["scorers"] = gather_object([sum(scorer)])
    elif not stop_at:
        plain = [[(s.prompt, s.completion, s.score) for s in batch] for batch in samples_of(trainer)]
        result["batches"] = gather_object(plain)
    trainer.accelerator.free_memory()
    trainer.critic.accelerator.free_memory()
    if stop_at:
        result |= resume_online_case(keys, mode, folder, folder / name, stop_at)
    return result | {"seconds": time.monotonic() - start}


def told_advantages(trainer: Any) -> list[list[float]]:
    """Of this rank's tokens."""
    batches = trainer._buffered_inputs
    return [[float(a) for batch in batches for a in batch["advantages"][batch["completion_mask"].bool()]]]


def resume_online_case(keys: dict[str, Any], mode: str, folder: Path, whole: Path, stop_at: int) -> dict[str, Any]:
    """The log of a run that was stopped and resumed, and whether it saves what the uninterrupted one saved."""
    import torch
    from safetensors.torch import load_file

    from tests.layouts import StopAt
    from tests.online_layouts import step_lines

    output = whole.with_name(f"{whole.name}-stopped")
    trainer = build(keys, mode, folder, output, callbacks=[StopAt(stop_at)])
    try:
        trainer.train()
    except KeyboardInterrupt:
        rates = [trainer.lr_scheduler.get_last_lr()[0], trainer.critic.lr_scheduler.get_last_lr()[0]]
        trainer.accelerator.free_memory()
        trainer.critic.accelerator.free_memory()
    trainer = build(keys, mode, folder, output)
    trainer.train(resume_from_checkpoint=str(output / f"checkpoint-{stop_at - 1}"))
    trainer.save_model(str(output / "policy"))
    trainer.save_value_model(output / "value")
    trainer.accelerator.wait_for_everyone()  # the main process writes
    same = {}
    for network in ("policy", "value"):
        first, second = (load_file(where / network / "model.safetensors") for where in (whole, output))
        same[network] = all(torch.equal(second[key], value) for key, value in first.items())
    trainer.accelerator.free_memory()
    trainer.critic.accelerator.free_memory()
    return {"resumed_log": step_lines(trainer), "same_weights": same, "rates": rates}


def build(keys: dict[str, Any], mode: str, folder: Path, output: Path, **others: Any) -> Any:
    from tests.online_layouts import online_config, online_trainer, prompt_rows

    keys, models = dict(keys), folder / "online"
    if rows := keys.pop("eval_rows", 0):
        others["eval_dataset"] = prompt_rows(rows)
    if scorer := keys.pop("reward_funcs", None):
        others["reward_funcs"] = str(models / scorer)
    algorithm, rows = keys.pop("algorithm"), keys.pop("rows", 24)
    # before any model: it says how they are sharded
    args = online_config(algorithm, output, use_cpu=mode != "fsdp2", **keys)
    return online_trainer(algorithm, models, args, rows, **others)
