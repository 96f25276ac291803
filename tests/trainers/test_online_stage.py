"""The stage rlvr from a recipe file to a run folder, in this process."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import trl
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.stage import run_here, slugs
from tests.tiny import save_base, tiny_model, tiny_tokenizer, write_rows
from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.online_keys import DEFAULTS, GRPO_ALONE, RLOO_KEYS
from tulu_recipes.trainers.arguments import load_critic, load_model, rlvr_arguments
from tulu_recipes.trainers.ppo import PPOConfig

KEYS: dict[str, Any] = {
    "chat_template": "tulu",
    "max_prompt_length": 64,
    "max_completion_length": 4,
    "global_batch_size": 4,
    "per_device_train_batch_size": 4,
    "total_episodes": 8,
    "learning_rate": 1.0e-3,
    "verifiable_reward": 1.0,
    "dtype": "float32",
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "report_to": "none",
    "verifier_workers": 1,
}


def questions(count: int) -> list[dict[str, object]]:
    return [
        {
            "messages": [{"role": "user", "content": f"the cat sat {'on a mat ' * (i % 3)}{i}"}],
            "ground_truth": str(i % 3),
            "dataset": "gsm8k",
        }
        for i in range(count)
    ]


def write_online_recipe(folder: Path, **keys: Any) -> Path:
    if not (folder / "base").exists():
        save_base(folder / "base")
        write_rows(folder / "rows.jsonl", questions(16))
    names = {"model_name_or_path": "base", "dataset_name": "rows.jsonl", "output_dir": "run"}
    path = folder / "recipe.yaml"
    values = {key: str(folder / name) for key, name in names.items()} | KEYS | keys
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def test_ppo_leaves_policy_value_model_and_report(tmp_path: Path) -> None:
    keys = {"num_iterations": 2, "eval_dataset_name": str(tmp_path / "rows.jsonl"), "eval_strategy": "epoch"}
    recipe = write_online_recipe(tmp_path, **keys, sample_rows=4, sample_max_new_tokens=4)
    done = run_here("rlvr", recipe)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["counters"]["episodes"] == 8
    assert record["samples"]["rows"] == 4
    assert set(record["samples"]) == {"rows", "verified_before", "verified_after"}
    assert "eval_verifier/accuracy" in record["final_metrics"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]  # 2 rollouts of 4, twice each
    assert ["reward" in line for line in steps] == [True, False, True, False]
    assert AutoModelForCausalLM.from_pretrained(run).config.vocab_size == len(tiny_tokenizer())
    value = AutoModelForSequenceClassification.from_pretrained(run / "value_model", output_loading_info=True)
    assert not value[1]["missing_keys"]
    report = (run / "report.md").read_text()
    assert "| completions so far | 4 | 8 |" in report
    assert "Held-out answers verified: **" in report
    assert "| algorithm | PPO with a value model |" in (run / "README.md").read_text()
    assert "step 4/4 · reward" in done.stderr


def test_rloo_learns_from_groups_without_a_value_model(tmp_path: Path) -> None:
    recipe = write_online_recipe(tmp_path, algorithm="rloo", num_generations=2, total_episodes=4)
    done = run_here("rlvr", recipe)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "value_model").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["counters"]["episodes"] == 4


def test_grpo_beside_a_reference_that_lacks_the_padding_token_ends_before_its_schedule(tmp_path: Path) -> None:
    keys = {"algorithm": "grpo", "num_generations": 2, "total_episodes": 16, "stop_after_steps": 2}
    done = run_here("rlvr", write_online_recipe(tmp_path, **keys, beta=0.1, pad_token="<new>"))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates == [1.0e-3, 0.75e-3]  # of 4 steps


def test_rows_that_cannot_be_graded_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = write_online_recipe(tmp_path)
    broken = [{**row, "ground_truth": "x"} for row in questions(8)] + [{**questions(1)[0], "dataset": "nosuch"}]
    write_rows(tmp_path / "rows.jsonl", broken)
    done = run_here("rlvr", recipe)
    assert (done.returncode, slugs(done.stderr)) == (2, {"no-rows", "labels-unreadable", "verifier-unknown"})
    assert not (tmp_path / "run").exists()


def test_a_recipe_s_values_reach_the_trainer_s_configuration(tmp_path: Path) -> None:
    given = {"kl_estimator": "k3", "lam": 0.9, "vf_coef": 0.5, "cliprange_value": 0.3, "whiten_advantages": "per_rank"}
    given |= {"score_placement": "as_released", "non_stop_reward": -10.0, "gamma": 0.99, "kl_placement": "loss"}
    recipe = load_recipe([str(write_online_recipe(tmp_path, **given, value_learning_rate=3.0e-6))], "rlvr")
    args = rlvr_arguments(recipe)
    assert isinstance(args, PPOConfig)
    assert {key: getattr(args, key) for key in given} == given
    assert (args.value_learning_rate, args.max_steps, args.generation_batch_size) == (3.0e-6, 2, 4)
    assert (args.beta, args.num_generations, args.remove_unused_columns) == (0.05, 1, False)


def test_a_reward_model_s_score_is_weighed(tmp_path: Path) -> None:
    keys = {"algorithm": "rloo", "num_generations": 2, "reward_model_multiplier": 0.5}
    path = write_online_recipe(tmp_path, **keys, reward_model_name_or_path="hub/scorer")
    assert rlvr_arguments(load_recipe([str(path)], "rlvr")).reward_weights == [1.0, 0.5]


def test_both_models_have_a_row_for_every_token(tmp_path: Path) -> None:
    recipe = load_recipe([str(write_online_recipe(tmp_path))], "rlvr")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    policy, critic = load_model(recipe, tokenizer), load_critic(recipe, tokenizer)
    before = len(tokenizer) - 1
    assert (before, critic.get_input_embeddings().num_embeddings) == (317, 320)
    assert policy.get_input_embeddings().num_embeddings == 320
    kept = tiny_model(before).get_input_embeddings().weight
    torch.testing.assert_close(critic.get_input_embeddings().weight[:before], kept)


def test_the_keys_of_the_algorithms_are_those_of_trl() -> None:

    def fields(config: Any) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(config)}

    grpo, rloo = fields(trl.GRPOConfig), fields(trl.RLOOConfig)
    assert set(grpo) - set(rloo) == GRPO_ALONE
    assert set(rloo) - set(grpo) == RLOO_KEYS
    for name, theirs in (("grpo", grpo), ("rloo", rloo)):
        assert {key: theirs[key] for key in DEFAULTS[name]} == DEFAULTS[name]
