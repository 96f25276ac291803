"""One PPO run with a clock: `python -m benchmarks.timed_ppo {ours|trl|grpo} JOB.json RESULT.json`

`trl` needs trl 1.12, the last with a PPOTrainer; benchmarks/ppo.py makes an environment that has it. Both sides score
a rollout in one call, and that call is the instrument: its time, and the mean score. Between two calls lies one round
of everything: optimizer steps on a rollout, then sampling the next.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

Job = dict[str, Any]
scored: list[tuple[float, float, float]] = []  # (wall clock, CPU seconds of this process, mean score) of each rollout


def score(ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
    """(B,) from 0 to 10: the share of `length` places that hold a token of the wanted quarter of the vocabulary."""
    return 10.0 * ((ids % 4 == 0) & mask.bool()).sum(1).float() / length


def note(scores: torch.Tensor) -> None:
    scored.append((time.perf_counter(), time.process_time(), float(scores.mean())))


class TokenScore(torch.nn.Module):
    """The score as TRL 1.12 wants it: a reward model with a backbone and a head. Every prompt has `start` tokens."""

    base_model_prefix = "backbone"

    def __init__(self, start: int, length: int) -> None:
        super().__init__()
        self.start, self.length = start, length
        self.backbone, self.score = self.scores_everywhere, torch.nn.Identity()

    def scores_everywhere(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        scores = score(input_ids[:, self.start :], attention_mask[:, self.start :], self.length)
        note(scores)
        return SimpleNamespace(hidden_states=[scores[:, None, None].expand(-1, input_ids.size(1), 1)])


def shared(job: Job, folder: Path) -> dict[str, Any]:
    """Keys that all sides call alike. TRL 1.12 clips no gradient, so none does."""
    return {
        "output_dir": str(folder),
        "seed": job["seed"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "temperature": 1.0,
        "per_device_train_batch_size": job["micro_batch"],
        "gradient_accumulation_steps": job["batch"] // job["micro_batch"],
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


PPO = {"gamma": 1.0, "lam": 0.95, "vf_coef": 0.1, "cliprange_value": 0.2, "kl_estimator": "k1"}  # both PPOs alike


def grpo_keys(job: Job, folder: Path) -> dict[str, Any]:
    """Ours are a subclass's."""
    return shared(job, folder) | {
        "max_steps": job["rollouts"] * job["epochs"],
        "num_iterations": job["epochs"],
        "max_completion_length": job["length"],
        "beta": job["kl"],
        "epsilon": 0.2,
        "logging_steps": job["epochs"],
    }


def grpo_arguments(job: Job) -> dict[str, Any]:
    from datasets import Dataset

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [torch.tensor(ids) for ids in completion_ids]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        scores = score(ids, ids >= 0, job["length"])
        note(scores)
        return scores.tolist()

    return {
        "model": job["base"],
        "reward_funcs": reward,
        "train_dataset": Dataset.from_list([{"prompt": row["messages"]} for row in job["rows"]]),
        "processing_class": AutoTokenizer.from_pretrained(job["base"], padding_side="left"),
    }


def run_ours(job: Job, folder: Path) -> None:
    from tulu_recipes.trainers.critic import load_value_model
    from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer

    value_model = load_value_model(job["value"], dtype=torch.float32)
    args = PPOConfig(**grpo_keys(job, folder), **PPO)
    PPOTrainer(args=args, value_model=value_model, **grpo_arguments(job)).train()


def run_grpo(job: Job, folder: Path) -> None:
    """TRL's own GRPOTrainer of this environment: what PPO is without a value network."""
    from trl import GRPOConfig, GRPOTrainer

    GRPOTrainer(args=GRPOConfig(**grpo_keys(job, folder), num_generations=4), **grpo_arguments(job)).train()


def run_trl(job: Job, folder: Path) -> None:
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    args = PPOConfig(
        **shared(job, folder),
        **PPO,
        total_episodes=job["rollouts"] * job["batch"],
        num_ppo_epochs=job["epochs"],
        local_rollout_forward_batch_size=job["batch"],
        response_length=job["length"],
        stop_token="eos",
        kl_coef=job["kl"],
        cliprange=0.2,
        num_sample_generations=0,
    )
    tokenizer = AutoTokenizer.from_pretrained(job["base"], padding_side="left")
    load = {"dtype": torch.float32}
    PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(job["base"], **load),
        ref_model=AutoModelForCausalLM.from_pretrained(job["base"], **load),
        reward_model=TokenScore(len(job["rows"][0]["input_ids"]), job["length"]),
        value_model=AutoModelForSequenceClassification.from_pretrained(job["value"], **load),
        train_dataset=Dataset.from_list([{"input_ids": row["input_ids"]} for row in job["rows"]]),
    ).train()


def main(argv: list[str]) -> None:
    side, job_path, result = argv
    job: Job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    set_seed(job["seed"])
    {"ours": run_ours, "trl": run_trl, "grpo": run_grpo}[side](job, Path(result).parent / "run")
    figures = {
        "trl": version("trl"),
        "transformers": version("transformers"),
        "scored": scored,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    Path(result).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
