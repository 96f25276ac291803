"""Rollouts and steps of our online trainers in a given layout; what `pair_layouts.py` is to preference stages."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tests.layouts import ONE_STEP
from tests.ppo_oracle import Sample
from tests.tiny import WORDS, save_base, tiny_model, tiny_tokenizer
from tulu_recipes.trainers.critic import load_value_model
from tulu_recipes.trainers.grpo import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer
from tulu_recipes.trainers.reward import load_scorer

CONFIGS = {"ppo": PPOConfig, "grpo": GRPOConfig, "rloo": RLOOConfig}
TRAINERS = {"ppo": PPOTrainer, "grpo": GRPOTrainer, "rloo": RLOOTrainer}
# Beside EOS, so that random models end completions of 8 tokens at different places, and some not at all
ENDS = range(3, 320, 7)
# Online trainers draw prompts by a sampler of their own
KEYS: dict[str, Any] = {key: value for key, value in ONE_STEP.items() if key != "train_sampling_strategy"} | {
    "max_completion_length": 8,
    "max_steps": 1,
    "num_train_epochs": 3,
    "learning_rate": 0.2,
    "temperature": 0.7,
}


@cache
def tokenizer() -> Any:
    return tiny_tokenizer()


def save_models(folder: Path) -> Path:
    """base, reference (another one) and scorer (a reward model), whose completions end early."""
    for name, seed in (("base", 0), ("reference", 1)):
        save_base(folder / name, seed=seed)
        model = tiny_model(len(tokenizer()), seed=seed)
        model.config.eos_token_id = tokenizer().eos_token_id
        model.generation_config.eos_token_id = [tokenizer().eos_token_id, *ENDS]
        model.save_pretrained(folder / name)
    load_scorer(str(folder / "base")).save_pretrained(folder / "scorer")
    tokenizer().save_pretrained(folder / "scorer")
    return folder


def prompt_rows(count: int) -> Dataset:
    """Prompts of different lengths."""
    texts = [" ".join(WORDS[(i * 5 + k) % len(WORDS)] for k in range(1 + i % 4)) for i in range(count)]
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "number": i} for i, text in enumerate(texts)]
    )


def score_of(ids: list[int]) -> float:
    return float(sum(ids) % 7 - 3)


def score(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [score_of(ids) for ids in completion_ids]


def score_some(completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
    """As `score`, but what begins with an odd token cannot be scored."""
    return [None if ids[0] % 2 else score_of(ids) for ids in completion_ids]


def ended(ids: list[int]) -> bool:
    return ids[-1] in ENDS or ids[-1] == tokenizer().eos_token_id


class Given:
    """TRL's `rollout_func`: completions that were written down, in the order of the prompts' rows."""

    def __init__(self, completions: list[list[int]], prompts: list[list[int]] | None = None) -> None:
        self.completions, self.prompts = completions, prompts

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        texts = tokenizer().apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)
        ids = self.prompts or texts["input_ids"]
        return {"prompt_ids": ids, "completion_ids": self.completions[: len(ids)], "logprobs": None}


def online_config(algorithm: str, folder: Path, **keys: Any) -> Any:
    own = {"value_learning_rate": 0.5} if algorithm == "ppo" else {"num_generations": 4}
    return CONFIGS[algorithm](str(folder), **KEYS | own | keys)


def online_trainer(algorithm: str, models: Path, args: Any, rows: int = 24, **others: Any) -> Any:
    """others: reward_funcs, value_model, reference (a folder of `models`), model and what trainers take."""
    reference = others.pop("reference", None)
    settings: dict[str, Any] = {
        "model": str(models / "base"),
        "reward_funcs": score,
        "train_dataset": prompt_rows(rows),
        "processing_class": tokenizer(),
    }
    if algorithm == "ppo":
        settings["value_model"] = str(models / "scorer")
    trainer = TRAINERS[algorithm](args=args, **settings | others)
    if reference:
        trainer.ref_model.load_state_dict(read_model(models / reference).state_dict())
    return trainer


def read_model(folder: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def read_value_model(folder: Path) -> Any:
    return load_value_model(str(folder), dtype="float32")


def samples_of(trainer: Any) -> list[list[Sample]]:
    """The rollout that a trainer has kept, by micro-batch, with the scores of its first reward function."""

    def rule(ids: list[int]) -> float | None:
        [found] = trainer.reward_funcs[0](completion_ids=[ids])
        return found

    return [
        [
            Sample(prompt[keep.bool()].tolist(), ids := completion[counted.bool()].tolist(), rule(ids))
            for prompt, keep, completion, counted in zip(
                batch["prompt_ids"],
                batch["prompt_mask"],
                batch["completion_ids"],
                batch["completion_mask"],
                strict=True,
            )
        ]
        for batch in trainer._buffered_inputs
    ]


def step_lines(trainer: Any) -> list[dict[str, Any]]:
    """Log lines of optimizer steps without what a clock says."""
    return [
        {key: value for key, value in line.items() if "time" not in key and "per_second" not in key}
        for line in trainer.state.log_history
        if "loss" in line
    ]


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    """Of the policy, and of the value network if there is one."""
    networks = {"policy": trainer.model} | ({"value": trainer.critic.model} if hasattr(trainer, "critic") else {})
    return {
        f"{network}.{name}": parameter.detach().clone()
        for network, model in networks.items()
        for name, parameter in model.named_parameters()
    }
