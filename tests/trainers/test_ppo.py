"""PPOTrainer against a slow loop over conversations, and what must not change a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config, Olmo2Config

from tests import ppo_oracle
from tests.online_layouts import (
    Given,
    online_config,
    online_trainer,
    prompt_rows,
    read_model,
    read_value_model,
    samples_of,
    save_models,
    score_of,
    score_some,
    step_lines,
    tokenizer,
    weights_of,
)
from tests.ppo_oracle import Sample, Settings
from tests.tiny import tiny_model
from tulu_recipes.errors import RecipeError
from tulu_recipes.trainers.critic import as_value_model, load_value_model
from tulu_recipes.trainers.ppo import PPOConfig

# TRL says so of `rollout_func`, by which a test gives completions
pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")

EOS = 0
# of 3 tokens and EOS, 1 (EOS alone), 8 without EOS, 2 with EOS, 5 without
FIVE = [[21, 33, 40, EOS], [EOS], [9, 8, 9, 8, 9, 8, 9, 8], [44, EOS], [50, 51, 52, 53, 54]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def ppo(models: Path, folder: Path, layout: tuple[int, int] = (8, 1), **keys: Any) -> Any:
    """A PPOTrainer; `minibatches` and what `online_trainer` takes beside PPOConfig's keys."""
    others = {key: keys.pop(key) for key in OTHERS if key in keys}
    rows, steps = layout
    keys = {"steps_per_generation": steps * keys.pop("minibatches", 1)} | keys
    keys = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps} | keys
    return online_trainer("ppo", models, online_config("ppo", folder, **keys), **others)


OTHERS = ("reference", "reward_funcs", "rows", "value_model", "eval_dataset", "peft_config", "rollout_func")


def step_of_oracle(
    models: Path, minibatches: list[list[list[Sample]]], with_: Settings
) -> tuple[dict[str, torch.Tensor], ppo_oracle.Account]:
    """How far every weight of both networks moved."""
    policy, reference = read_model(models / "base"), read_model(models / "reference")
    critic = read_value_model(models / "scorer")
    networks = {"policy": policy, "value": critic}
    before = named(networks)
    account = ppo_oracle.train(policy, reference, critic, minibatches, with_)
    return {name: before[name] - weight for name, weight in named(networks).items()}, account


def named(networks: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        f"{network}.{name}": parameter.detach().clone()
        for network, model in networks.items()
        for name, parameter in model.named_parameters()
    }


def moved(trainer: Any, models: Path) -> dict[str, torch.Tensor]:
    before = named({"policy": read_model(models / "base"), "value": read_value_model(models / "scorer")})
    return {name: before[name] - weight for name, weight in weights_of(trainer).items()}


def assert_same_moves(found: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    """To 1e-5 of a tensor's largest move, and the rounding of weights near 1 that were moved twice."""
    assert found.keys() == want.keys()
    worst = {name: (found[name] - want[name]).abs().max() - 1e-5 * want[name].abs().max() for name in want}
    assert max(worst.values()) < 3e-7, worst


CASES: dict[str, dict[str, Any]] = {
    "dapo 8x1": {"layout": (8, 1)},
    "dapo 4x2": {"layout": (4, 2), "kl_estimator": "k3", "gradient_checkpointing": True},
    "dapo 1x8": {"layout": (1, 8), "kl_placement": "loss"},
    "bnpo 4x2": {"layout": (4, 2), "loss_type": "bnpo"},
    "bnpo 2x4": {"layout": (2, 4), "loss_type": "bnpo", "kl_placement": "loss", "kl_estimator": "k2"},
    "two minibatches": {"layout": (2, 2), "minibatches": 2, "kl_placement": "loss", "kl_estimator": "k3"},
    "some unscored": {"layout": (2, 4), "reward_funcs": score_some, "kl_placement": "loss", "kl_estimator": "k3"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_steps_of_a_rollout_are_those_of_one_conversation_at_a_time(
    tmp_path: Path, models: Path, case: str
) -> None:
    keys = {"loss_type": "dapo", "minibatches": 1, "beta": 0.3, "gamma": 0.97, "lam": 0.9} | CASES[case]
    steps = 2 * keys["minibatches"]  # two passes
    trainer = ppo(models, tmp_path, reference="reference", num_iterations=2, max_steps=steps, **keys)
    trainer.train()
    batches = samples_of(trainer)
    assert len(batches) == keys["layout"][1] * keys["minibatches"]
    assert len({len(sample.completion) for batch in batches for sample in batch}) > 2
    size = keys["layout"][1]
    with_ = Settings(
        temperature=0.7,
        beta=0.3,
        gamma=0.97,
        lam=0.9,
        epochs=2,
        rate=0.2,
        value_rate=0.5,
        reduction=keys["loss_type"],
        kl_in_loss=keys.get("kl_placement") == "loss",
        estimator=keys.get("kl_estimator", "k1"),
    )
    minibatches = [batches[start : start + size] for start in range(0, len(batches), size)]
    want, account = step_of_oracle(models, minibatches, with_)
    assert_same_moves(moved(trainer, models), want)
    assert account.clipped_tokens > 0  # the second pass is about other ratios than 1
    lines = step_lines(trainer)
    assert [line["value_loss"] for line in lines] == pytest.approx(account.value_losses, rel=1e-4)
    assert lines[0]["clip_ratio/region_mean"] == 0
    if case != "some unscored":
        assert lines[0]["kl"] == pytest.approx(account.mean_kl, rel=1e-4) or keys.get("kl_estimator", "k1") != "k1"


# ---- what must not change a step


def given(models: Path, folder: Path, completions: list[list[int]], **keys: Any) -> Any:
    """A trainer of one micro-batch whose completions are given, of the prompts 0, 1, 2, …; not trained yet."""
    prompts = prompt_rows(len(completions))
    order = keys.pop("order", None)
    layout = {"per_device_train_batch_size": len(completions), "steps_per_generation": 1, "shuffle_dataset": False}
    args = online_config("ppo", folder, **layout | keys.pop("config", {}))
    rows = Dataset.from_list([prompts[i] for i in order]) if order else prompts
    completions = [completions[i] for i in order] if order else completions
    settings = {"rollout_func": Given(completions), "train_dataset": rows} | keys
    return online_trainer("ppo", models, args, **settings)


def rollout_of(trainer: Any) -> dict[str, torch.Tensor]:
    rollout: dict[str, torch.Tensor] = trainer._generate_and_score_completions(list(trainer.train_dataset))
    return rollout


def test_order_and_padding_change_nothing(tmp_path: Path, models: Path) -> None:
    moves = []
    for keys in ({}, {"order": [3, 1, 4, 0, 2]}, {"config": {"pad_to_multiple_of": 64}}):
        trainer = given(models, tmp_path, FIVE, **keys)
        trainer.train()
        assert trainer._buffered_inputs[0]["completion_ids"].shape == (5, 64 if "config" in keys else 8)
        moves.append(moved(trainer, models))
    assert_same_moves(moves[1], moves[0])
    assert_same_moves(moves[2], moves[0])


@pytest.mark.parametrize("placement", ["reward", "loss"])
def test_what_is_behind_a_mask_has_no_influence(tmp_path: Path, models: Path, placement: str) -> None:
    config = {"kl_placement": placement, "num_iterations": 2, "pad_to_multiple_of": 16, "max_steps": 2}
    trainer = given(models, tmp_path, FIVE, config=config)
    trainer.current_gradient_accumulation_steps = 1
    rollout = rollout_of(trainer)
    behind = ~rollout["completion_mask"].bool()
    spoilt = dict(rollout)
    for key in ("advantages", "values", "returns", "old_per_token_logps", "ref_per_token_logps"):
        assert not rollout[key][behind].any() or "logps" in key
        spoilt[key] = rollout[key].masked_fill(behind, 7.0)
    spoilt["completion_ids"] = rollout["completion_ids"].masked_fill(behind, 99)
    spoilt["prompt_ids"] = rollout["prompt_ids"].masked_fill(rollout["prompt_mask"] == 0, 77)
    found = []
    for batch in (rollout, spoilt):
        trainer.model.zero_grad()
        trainer.critic.model.zero_grad()
        trainer.compute_loss(trainer.model, batch).backward()
        trainer.critic.compute_loss(trainer.critic.model, batch).backward()
        found.append([p.grad.clone() for m in (trainer.model, trainer.critic.model) for p in m.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_the_first_step_of_one_pass_has_ratio_1_and_no_distance(tmp_path: Path, models: Path) -> None:
    trainer = ppo(models, tmp_path, temperature=1.0)
    trainer.train()
    [line] = step_lines(trainer)
    assert line["loss"] == pytest.approx(0, abs=1e-6)  # −Σ of whitened advantages
    assert line["kl"] == line["kl_per_completion"] == 0
    assert {value for key, value in line.items() if key.startswith("clip_ratio")} == {0}
    assert line["grad_norm"] > 0.1


def test_a_constant_reward_and_values_of_0_move_the_policy_nowhere(tmp_path: Path, models: Path) -> None:
    value_model = read_value_model(models / "scorer")
    torch.nn.init.zeros_(value_model.score.weight)
    keys = {"reward_funcs": lambda completion_ids, **_: [0.1] * len(completion_ids), "value_model": value_model}
    trainer = given(models, tmp_path, FIVE, config={"lam": 1.0, "learning_rate": 100.0, "beta": 0.0}, **keys)
    trainer.train()
    assert torch.count_nonzero(trainer._buffered_inputs[0]["advantages"]) == 0
    found = moved(trainer, models)
    assert not any(move.any() for name, move in found.items() if name.startswith("policy"))
    assert found["value.score.weight"].any()


# ---- scores


def test_a_completion_that_does_not_end_has_the_penalty_for_a_score_whatever_was_said_of_it(
    tmp_path: Path, models: Path
) -> None:
    def second(completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
        return [None, 4.0, 8.0, 4.0, None]

    for weights in ([1.0, 0.25], [0.0, 0.5]):  # the first function's share may be nothing
        config = {"non_stop_reward": -10.0, "reward_weights": weights}
        trainer = given(models, tmp_path, FIVE, config=config, reward_funcs=[score_some, second])
        rollout_of(trainer)
        scores, scored = trainer.local_scores(5)
        # of the three of FIVE that end, nobody can score the first
        both = [said * weights[0] + 4 * weights[1] for said in (score_of([EOS]), score_of([44, EOS]))]
        assert scores.tolist() == [0.0, both[0], -10.0, both[1], -10.0]
        assert scored.tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("masked", [True, False])
def test_nothing_but_truncated_completions(tmp_path: Path, models: Path, masked: bool) -> None:
    config = {"mask_truncated_completions": masked, "non_stop_reward": -10.0, "max_steps": 2, "beta": 0.1}
    trainer = given(models, tmp_path, [[9] * 8, [8, 6] * 4, [5] * 8], config=config)
    trainer.train()
    assert all(torch.isfinite(weight).all() for weight in weights_of(trainer).values())
    assert any(move.any() for move in moved(trainer, models).values()) != masked
    assert [line["reward"] for line in step_lines(trainer)] == [-10, -10]
    assert [line["num_completion_tokens"] for line in step_lines(trainer)] == ([0, 0] if masked else [24, 48])


def test_where_nothing_could_be_scored_nothing_moves(tmp_path: Path, models: Path) -> None:
    config = {"kl_placement": "loss", "beta": 1.0, "num_iterations": 2, "max_steps": 2}
    none = {"reward_funcs": lambda completion_ids, **_: [None] * len(completion_ids)}
    trainer = given(models, tmp_path, FIVE, config=config, reference="reference", **none)
    trainer.train()
    assert not any(move.any() for move in moved(trainer, models).values())
    assert step_lines(trainer)[0]["reward"] is None


def test_as_released_the_score_is_one_step_behind_the_last_token(tmp_path: Path, models: Path) -> None:
    config = {"score_placement": "as_released", "whiten_advantages": "none", "lam": 0.5, "beta": 0.0}
    rollout = rollout_of(given(models, tmp_path, FIVE, config=config))
    for row, ids in enumerate(FIVE):
        counted = min(len(ids) + 1, 8)
        assert rollout["value_mask"][row].tolist() == [True] * counted + [False] * (8 - counted)
        values, ahead, after = rollout["values"][row].tolist(), 0.0, 0.0
        rewards = [0.0] * (counted - 1) + [score_of(ids)]
        for t in reversed(range(counted)):
            ahead, after = rewards[t] + after - values[t] + 0.5 * ahead, values[t]
            assert rollout["returns"][row, t].item() == pytest.approx(ahead + values[t], abs=1e-5)
            assert rollout["advantages"][row, t].item() == pytest.approx(ahead if t < len(ids) else 0, abs=1e-5)


def test_unknown_words_are_refused_together() -> None:
    wrong = {"loss_type": "grpo", "kl_placement": "nowhere", "whiten_advantages": "yes"}
    with pytest.raises(RecipeError) as caught:
        PPOConfig("out", use_cpu=True, bf16=False, **wrong)
    assert [(problem.slug, problem.where) for problem in caught.value.problems] == [
        ("unknown-choice", "loss_type"),
        ("unknown-choice", "kl_placement"),
        ("unknown-choice", "whiten_advantages"),
    ]
    with pytest.raises(RecipeError, match="num_generations"):
        PPOConfig("out", use_cpu=True, bf16=False, num_generations=0)


# ---- the value network


def test_a_value_network_is_a_reward_model_read_at_every_token(tmp_path: Path, models: Path) -> None:
    scorer = AutoModelForSequenceClassification.from_pretrained(models / "scorer", dtype="float32")
    value_model = load_value_model(str(models / "scorer"))
    ids = torch.tensor([[5, 9, 21, 7]])
    with torch.no_grad():
        every = value_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.equal(every[0, -1], scorer(input_ids=ids).logits[0])
    for name, fresh in (("scorer", True), ("base", False)):
        head = load_value_model(str(models / name), fresh_head=fresh).score.weight.detach()
        assert not torch.equal(head, scorer.score.weight)
        assert float(head.std()) == pytest.approx(33**-0.5, rel=0.4)


SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize("config", [GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2), Olmo2Config(**SMALL)])
def test_any_reward_model_with_a_linear_head_is_a_value_network(tmp_path: Path, config: Any) -> None:
    config.vocab_size, config.num_labels, config.pad_token_id = 64, 1, 0
    scorer = AutoModelForSequenceClassification.from_config(config).eval()
    scorer.save_pretrained(tmp_path / "scorer")
    value_model = load_value_model(str(tmp_path / "scorer"))
    ids = torch.tensor([[5, 9, 21, 7]])
    with torch.no_grad():
        values = value_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :, 0]
        alone = [scorer(input_ids=ids[:, : length + 1]).logits[0, 0] for length in range(4)]
    torch.testing.assert_close(values, torch.stack(alone))
    value_model.save_pretrained(tmp_path / "value")
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "value")) is type(scorer)


def test_a_reward_model_without_a_linear_head_is_refused(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=64, num_labels=1, **SMALL)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="BertForSequenceClassification has no linear head") as caught:
        load_value_model(str(tmp_path))
    assert [problem.slug for problem in caught.value.problems] == ["wrong-architecture"]


def test_models_in_memory_become_value_networks_and_stay_as_they_are(tmp_path: Path, models: Path) -> None:
    scorer = AutoModelForSequenceClassification.from_pretrained(models / "scorer")
    before = {name: weight.clone() for name, weight in scorer.state_dict().items()}
    from_object = ppo(models, tmp_path / "object", value_model=scorer)
    from_object.train()
    from_path = ppo(models, tmp_path / "path", value_model=str(models / "scorer"))
    from_path.train()
    wanted = from_path.critic.model.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in from_object.critic.model.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in scorer.state_dict().items())

    nameless = tiny_model(len(tokenizer()))  # with no files to read a value network from
    network = as_value_model(nameless)
    assert torch.equal(network.model.norm.weight, nameless.model.norm.weight)
    assert network.score.weight.shape == (1, 32)


def test_a_trained_value_network_is_saved_as_a_reward_model(tmp_path: Path, models: Path) -> None:
    trainer = ppo(models, tmp_path, value_model=None)  # the policy's weights under a new head
    start = trainer.critic.model.score.weight.detach().clone()
    assert torch.equal(trainer.critic.model.model.norm.weight, read_model(models / "base").model.norm.weight)
    trainer.train()
    trainer.save_value_model(tmp_path / "value")
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "value", dtype="float32")
    assert type(scorer).__name__ == scorer.config.architectures[0] == "LlamaForSequenceClassification"
    for again in (scorer, load_value_model(str(tmp_path / "value"))):
        assert torch.equal(again.score.weight, trainer.critic.model.score.weight)
        assert not torch.equal(again.score.weight, start)


# ---- what TRL's chassis offers


def test_the_reference_of_an_adapter_is_the_model_without_it(tmp_path: Path, models: Path) -> None:
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    keys = {"gradient_checkpointing": True, "max_steps": 3, "learning_rate": 5.0, "value_learning_rate": 0.1}
    trainer = ppo(models, tmp_path, peft_config=adapter, **keys)
    trainer.train()
    base = read_model(models / "base")
    found = dict(trainer.model.base_model.model.named_parameters())
    assert torch.equal(found["model.layers.0.mlp.up_proj.base_layer.weight"], base.model.layers[0].mlp.up_proj.weight)
    lines = step_lines(trainer)
    assert lines[0]["kl"] == 0
    assert abs(lines[2]["kl"]) > 1e-4
    [batch], sample = trainer._buffered_inputs, samples_of(trainer)[0][0]
    with torch.no_grad():
        want = ppo_oracle.logps(base, sample, temperature=0.7)
    assert torch.allclose(batch["ref_per_token_logps"][0, : len(want)], want, atol=1e-5)


def test_evaluation_and_the_table_of_completions_change_no_weight(tmp_path: Path, models: Path) -> None:
    import pandas

    found = []
    keys = {"max_steps": 2, "per_device_eval_batch_size": 2}
    for name, more in (("plain", {}), ("evaluated", {"eval_strategy": "steps", "eval_steps": 1})):
        config = keys | more | ({"log_completions": True, "num_completions_to_print": 0} if more else {})
        trainer = ppo(models, tmp_path / name, eval_dataset=prompt_rows(3), **config)
        trainer.train()
        found.append((weights_of(trainer), step_lines(trainer)))
    assert all(torch.equal(found[1][0][name], weight) for name, weight in found[0][0].items())
    assert found[1][1] == found[0][1]
    evaluations = [line for line in trainer.state.log_history if "eval_loss" in line]
    assert len(evaluations) == 2
    assert evaluations[0].keys() >= {"eval_reward", "eval_kl", "eval_values/explained_variance"}
    table = pandas.read_parquet(tmp_path / "evaluated/completions/completions_00001.parquet")
    assert len(table) == 8
    assert sorted(table["advantage"]) == sorted(table["advantage"].unique())


# ---- what is known to be best


def test_of_two_arms_the_better_one_is_found(tmp_path: Path, models: Path) -> None:
    """Completions of one token: half of the vocabulary, the even ones, earns 1."""

    def even(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [float(ids[0] % 2 == 0) for ids in completion_ids]

    def share(model: Any) -> float:
        row = trainer._buffered_inputs[0]
        prompt = row["prompt_ids"][0][row["prompt_mask"][0].bool()]
        with torch.no_grad():
            return float(model.eval()(input_ids=prompt[None]).logits[0, -1].softmax(-1)[::2].sum())

    keys = {"optim": "adamw_torch", "learning_rate": 1e-2, "value_learning_rate": 1e-2, "beta": 0.0}
    keys |= {"max_completion_length": 1, "temperature": 1.0, "max_steps": 40, "num_iterations": 2}
    trainer = ppo(models, tmp_path, (16, 1), reward_funcs=even, num_train_epochs=99, logging_steps=20, **keys)
    trainer.train()
    assert share(read_model(models / "base")) < 0.7
    assert share(trainer.model) > 0.95


def test_values_of_fixed_completions_become_their_returns(tmp_path: Path, models: Path) -> None:
    config = {"lam": 1.0, "beta": 0.0, "learning_rate": 0.0, "value_learning_rate": 1e-2, "optim": "adamw_torch"}
    config |= {"vf_coef": 1.0, "max_steps": 30, "num_train_epochs": 99, "logging_steps": 6}
    trainer = given(models, tmp_path, FIVE, config=config)
    trainer.train()
    assert step_lines(trainer)[0]["values/explained_variance"] < 0.9
    assert step_lines(trainer)[-1]["values/explained_variance"] > 0.98
    [batch] = trainer._buffered_inputs
    for values, counted, ids in zip(batch["values"], batch["value_mask"], batch["completion_ids"], strict=True):
        expected = score_of(ids[counted].tolist())
        assert values[counted].tolist() == pytest.approx([expected] * int(counted.sum()), abs=0.4)
