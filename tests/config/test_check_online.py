"""Recipes of RLVR: what is solved, what is refused, in which words, before torch is there."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem

Load = Callable[..., Recipe]
One = Callable[..., Problem]
Refused = Callable[..., SimpleNamespace]

SHORT = "max_prompt_length: 64\nmax_completion_length: 64\nglobal_batch_size: 32\n"
GRPO = SHORT + "algorithm: grpo\n"


def test_a_rollout_and_its_steps_follow_from_the_keys(load: Load) -> None:
    # Tülu 3.1: 48 prompts × 16 = 768 completions a rollout, 2 minibatches of 384
    text = "algorithm: grpo\nglobal_batch_size: 384\nnum_minibatches: 2\nnum_generations: 16\nbeta: 0.01\n"
    recipe = load(text + "total_episodes: 10_000_000\nmax_prompt_length: 512\n", stage="rlvr", num_processes=8)
    assert recipe["generation_batch_size"] == 768
    assert recipe["max_steps"] == 2 * 13_021  # 10,000,000 / 768 = 13,020.8 rollouts
    values = recipe.trl_values(("GRPOConfig", "TrainingArguments"))
    assert (values["generation_batch_size"], values["gradient_accumulation_steps"], values["beta"]) == (768, 48, 0.01)
    assert "steps_per_generation" not in values


def test_passes_over_a_rollout_are_steps_too(load: Load) -> None:
    # Tülu 3 8B: 224 completions, 4 epochs of 1 minibatch
    recipe = load(
        "global_batch_size: 224\nnum_iterations: 4\ntotal_episodes: 100_000\nmax_prompt_length: 512\n", stage="rlvr"
    )
    assert recipe["max_steps"] == 447 * 4  # 100,000 / 224 = 446.4


@pytest.mark.parametrize(("algorithm", "generations", "beta"), [("ppo", 1, 0.05), ("grpo", 8, 0.0), ("rloo", 2, 0.05)])
def test_an_algorithm_brings_its_defaults(algorithm: str, generations: int, beta: float, load: Load) -> None:
    recipe = load(SHORT + f"algorithm: {algorithm}\n", stage="rlvr")
    assert (recipe["num_generations"], recipe["beta"]) == (generations, beta)
    assert (recipe.derived["num_generations"], recipe.derived["beta"]) == (generations, beta)


def test_the_resolved_recipe_loads_again_to_the_same_values(folder: Path, load: Load) -> None:
    recipe = load(SHORT + "total_episodes: 640\nkl_estimator: k3\nnum_iterations: 2\n", stage="rlvr")
    (folder / "again.yaml").write_text(recipe.to_yaml())
    again = load_recipe(["again.yaml"], "rlvr", num_processes=1, environ={})
    assert again.fingerprint() == recipe.fingerprint()
    assert again.values == {**recipe.values, "output_dir": again["output_dir"]}


def test_where_vllm_listens_is_no_science(load: Load) -> None:
    text = SHORT + "use_vllm: true\nvllm_mode: server\n"
    one, two = (load(text + f"vllm_server_port: {port}\n", stage="rlvr") for port in (8001, 8002))
    assert one.fingerprint() == two.fingerprint()
    assert load(text + "temperature: 0.7\n", stage="rlvr").fingerprint() != one.fingerprint()


@pytest.fixture(autouse=True)
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    from tulu_recipes.config import check
    from tulu_recipes.config.surroundings import has_module

    defaults = check.check_recipe.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "has_module", lambda name: name == "vllm" or has_module(name))


def test_evaluation_batches_hold_whole_groups(load: Load, one: One) -> None:
    text = GRPO + "num_generations: 16\neval_strategy: steps\neval_steps: 5\neval_dataset_name: rows.jsonl\n"
    assert load(text, stage="rlvr")["per_device_eval_batch_size"] == 16
    assert load(text, stage="rlvr", num_processes=4)["per_device_eval_batch_size"] == 8
    assert load(text + "num_generations_eval: 1\n", stage="rlvr")["per_device_eval_batch_size"] == 8
    problem = one(text + "per_device_eval_batch_size: 12\n", stage="rlvr", num_processes=2)
    assert (problem.slug, problem.where) == ("rollout-not-divisible", "rlvr.yaml line 11")
    assert "12 × 2 processes = 24" in problem.what
    assert "8 or 16" in problem.mend


def test_a_rollout_holds_whole_groups(one: One) -> None:
    problem = one(GRPO + "num_generations: 5\nnum_minibatches: 2\n", stage="rlvr")
    assert (problem.slug, problem.where) == ("rollout-not-divisible", "rlvr.yaml line 7")
    assert "32 × num_minibatches 2 = 64" in problem.what
    assert problem.mend == "write  num_generations: 2 or 4 or 8 or 16 or 32 or 64, or a rollout of 60 or 65."


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ("algorithm: reinforce\n", "unknown-choice", "algorithm is reinforce"),
        ("algorithm: grpo\nnum_generations: 1\n", "online-combination", "compares the samples of one prompt"),
        ("algorithm: rloo\nnum_generations: 1\n", "online-combination", "compares the samples of one prompt"),
        ("algorithm: grpo\nvf_coef: 0.2\n", "key-ignored", "vf_coef: 0.2 would be ignored: algorithm: grpo"),
        ("algorithm: grpo\nkl_placement: loss\n", "key-ignored", "algorithm: grpo does not read it"),
        ("algorithm: rloo\nloss_type: grpo\n", "key-ignored", "algorithm: rloo does not read it"),
        ("algorithm: grpo\nnormalize_advantages: true\n", "key-ignored", "algorithm: grpo does not read it"),
        ("scale_rewards: none\n", "key-ignored", "algorithm: ppo does not read it"),
        ("loss_type: grpo\n", "online-combination", "which has one loss"),
        ("algorithm: grpo\nloss_type: ppo\n", "unknown-choice", "loss_type is ppo"),
        ("algorithm: grpo\nimportance_sampling_level: sequence\n", "online-combination", "loss_type: dapo with"),
        ("rollout_lag: 1\n", "online-combination", "devices of its own: a vLLM server"),
        ("algorithm: grpo\nrollout_lag: 1\n", "online-combination", "devices of its own: a vLLM server"),
        ("rollout_lag: 1\nuse_vllm: true\n", "online-combination", "a vLLM server"),
        ("rollout_lag: 2\n", "out-of-range", "at most 1"),
        ("temperature: 0\n", "online-combination", "nothing is sampled"),
        ("beta: 0\nkl_estimator: k3\n", "key-ignored", "there is no reference model"),
        ("beta: -0.1\n", "out-of-range", "at least 0"),
        ("beta: .inf\n", "wrong-type", "beta"),
        ("kl_estimator: kl1\n", "unknown-choice", "kl_estimator"),
        ("reward_model_multiplier: 0.5\n", "online-combination", "without a reward model"),
        ("reward_model_name_or_path: hub/scorer\n", "key-ignored", "reward_model_multiplier is 0"),
        ("verifiable_reward: 0\n", "online-combination", "the same reward"),
        ("total_episodes: 16\n", "total-episodes", "less than one rollout of 32"),
        ("total_episodes: 320\nmax_steps: 11\n", "total-episodes", "are 10 steps, and max_steps is 11"),
        ("total_episodes: 320\nnum_train_epochs: 2\n", "key-ignored", "total_episodes says how long"),
        ("total_episodes: 320\nstop_after_steps: 11\n", "key-ignored", "the run has 10 steps"),
        ("stop_after_steps: 11\n", "online-combination", "neither total_episodes nor max_steps gives"),
        ("max_completion_length: 2000\n", "max-length", "64 + max_completion_length 2,000 = 2,064 tokens"),
        ("vllm_server_port: 9000\n", "key-ignored", "use_vllm is not true"),
        ("use_vllm: true\nvllm_server_port: 9000\n", "key-ignored", "vllm_mode is not server"),
        ("use_vllm: true\nvllm_max_model_length: 100\n", "max-length", "but vLLM is given 100"),
        ("alarm_entropy_low: 2\nalarm_entropy_high: 1\n", "online-combination", "is not below"),
        ("sync_ref_model: true\n", "moving-reference", "a checkpoint does not hold"),
        (
            "value_model_name_or_path: ./nowhere\n",
            "path-missing",
            "value_model_name_or_path: ./nowhere does not exist",
        ),
        ("max_length: 512\n", "renamed-key", "max_length is called max_completion_length here"),
        ("num_epochs: 4\n", "renamed-key", "num_epochs is called num_iterations here"),
        ("generation_batch_size: 64\n", "refused-key", "global_batch_size × num_minibatches"),
        ("packing: true\n", "other-stage-key", "packing is a key of sft, not of rlvr"),
        ("masking: last_turn\n", "other-stage-key", "masking is a key of dpo, not of rlvr"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, slug: str, words: str, one: One) -> None:
    given = {line.split(":")[0] for line in text.splitlines()}
    base = "".join(line for line in SHORT.splitlines(keepends=True) if line.split(":")[0] not in given)
    problem = one(base + text, stage="rlvr")
    assert problem.slug == slug
    assert words in problem.what


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("response_length: 2048", "max_completion_length: 2048"),
        ("number_samples_per_prompt: 16", "num_generations: 16"),
        ("num_mini_batches: 2", "num_minibatches: 2"),
        ("cliprange: 0.2", "epsilon: 0.2"),
        ("non_stop_penalty_value: -10.0", "non_stop_reward: -10.0"),
        ("verification_reward: 10.0", "verifiable_reward: 10.0"),
        ("max_prompt_token_length: 2048", "max_prompt_length: 2048"),
        ("local_rollout_batch_size: 32", "global_batch_size:"),
    ],
)
def test_open_instruct_s_names_are_translated(theirs: str, ours: str, one: One) -> None:
    problem = one(SHORT + theirs + "\n", stage="rlvr")
    assert (problem.slug, ours in problem.mend) == ("renamed-key", True)


def test_vllm_that_is_not_installed_is_said_at_once(folder: Path) -> None:
    from tulu_recipes.config.check import check_recipe

    (folder / "r.yaml").write_text(f"model_name_or_path: ./model\ndataset_name: rows.jsonl\n{SHORT}use_vllm: true\n")
    recipe = load_recipe(["r.yaml"], "rlvr", environ={})
    problems = check_recipe(recipe, environ={}, has_module=lambda name: name != "vllm")
    assert [problem.slug for problem in problems] == ["library-missing"]


def test_a_scorer_that_another_recipe_trains_is_said_so(folder: Path, one: One) -> None:
    (folder / "reward.yaml").write_text("output_dir: runs/scorer\n")
    problem = one(SHORT + "value_model_name_or_path: runs/scorer\n", stage="rlvr")
    assert (problem.slug, problem.mend) == ("path-missing", "run  python -m tulu_recipes.reward reward.yaml  first.")


def _tokenizer(words: list[str], **added: int) -> str:
    extra = [{"content": token, "id": number} for token, number in added.items()]
    return json.dumps({"model": {"vocab": {word: i for i, word in enumerate(words)}}, "added_tokens": extra})


def test_a_value_model_must_know_the_policy_s_tokens(
    folder: Path, new_model: Callable[..., Path], load: Load, one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SHORT + "value_model_name_or_path: ./scorer\n"
    new_model(folder / "scorer")
    (folder / "scorer" / "model.safetensors").write_bytes(b"")
    (folder / "model" / "tokenizer.json").write_text(_tokenizer(["a", "b", "c"], pad=3))
    (folder / "scorer" / "tokenizer.json").write_text(_tokenizer(["a", "b", "c"], pad=3))
    load(text, stage="rlvr")
    (folder / "scorer" / "tokenizer.json").write_text(_tokenizer(["a", "c", "b"], pad=3))
    problem = one(text, stage="rlvr")
    assert (problem.slug, problem.where) == ("value-model-tokenizer", "rlvr.yaml line 6")
    assert "token 1 is 'c' there and 'b' here" in problem.what
    (folder / "scorer" / "tokenizer.json").write_text(_tokenizer(["a", "b"]))
    assert "it has 2 tokens, the policy has 4" in one(text, stage="rlvr").what


def test_without_tokenizer_files_the_sizes_are_compared(
    folder: Path, new_model: Callable[..., Path], one: One
) -> None:
    new_model(folder / "model", config={"architectures": ["LlamaForCausalLM"], "vocab_size": 200, "eos_token_id": 1})
    new_model(folder / "scorer", config={"architectures": ["LlamaForSequenceClassification"], "vocab_size": 100})
    (folder / "scorer" / "model.safetensors").write_bytes(b"")
    problem = one(SHORT + "value_model_name_or_path: ./scorer\n", stage="rlvr")
    assert (problem.slug, "100 embeddings, the policy has 200" in problem.what) == ("value-model-tokenizer", True)


def test_a_scorer_without_weights_is_refused(folder: Path, new_model: Callable[..., Path], one: One) -> None:
    new_model(folder / "scorer")
    problem = one(SHORT + "value_model_name_or_path: ./scorer\n", stage="rlvr")
    assert (problem.slug, "holds no weights" in problem.what) == ("model-incomplete", True)


def test_an_adapter_is_refused_as_value_model(folder: Path, new_model: Callable[..., Path], one: One) -> None:
    new_model(folder / "scorer", config=None, adapter_config={"base_model_name_or_path": "./model"})
    (folder / "scorer" / "adapter_model.safetensors").write_bytes(b"")
    problem = one(SHORT + "value_model_name_or_path: ./scorer\n", stage="rlvr")
    assert (problem.slug, "holds an adapter" in problem.what) == ("model-incomplete", True)
    assert "merge_and_unload" in problem.mend
