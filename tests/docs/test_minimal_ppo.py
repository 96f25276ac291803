"""The readable loop of docs/minimal/ppo.py is an independent oracle: no TRL, loops over rows, its own losses."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.tiny import save_base, tiny_model, tiny_tokenizer
from tulu_recipes.algorithms.advantages import compute_gae, whiten
from tulu_recipes.algorithms.kl import ESTIMATORS, estimate_kl
from tulu_recipes.algorithms.ppo import clipped_value_loss, token_rewards
from tulu_recipes.trainers.critic import load_value_model
from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer

pytestmark = pytest.mark.integration

PATH = Path(__file__).parents[2] / "docs/minimal/ppo.py"
MASK = (torch.arange(6) < torch.tensor([[6], [1], [3], [5], [2], [6]])).long()


@pytest.fixture(scope="module")
def minimal():
    assert "import tulu" not in PATH.read_text(encoding="utf-8"), "an oracle does not ask what it checks"
    spec = importlib.util.spec_from_file_location("minimal_ppo", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(seed: int) -> torch.Tensor:
    return torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("as_released", [False, True], ids=["fixed", "as_released"])
def test_same_rewards_advantages_and_whitening(minimal, as_released):
    s = minimal.Settings(as_released=as_released, gamma=0.9, lam=0.8, rank_batch=3)
    kl, values, scores = noise(0), noise(1), noise(2)[:, 0]
    rewards, value_mask = minimal.token_rewards(scores, kl, MASK, s)
    advantages, returns = minimal.advantages_and_returns(rewards, values, value_mask, s)

    placement = "as_released" if as_released else "last_token"
    expected, expected_mask = token_rewards(scores, s.beta * kl, MASK, placement)
    torch.testing.assert_close(rewards, expected)
    assert value_mask.bool().equal(expected_mask)
    assert int(value_mask.sum() - MASK.sum()) == (4 if as_released else 0), "one position more where there is room"
    for found, wanted in zip(
        (advantages, returns), compute_gae(expected, values, expected_mask, 0.9, 0.8), strict=True
    ):
        torch.testing.assert_close(found, wanted)

    whitened = minimal.whiten(advantages, MASK, s)
    ranks = [slice(0, 3), slice(3, 6)] if as_released else [slice(0, 6)]
    torch.testing.assert_close(whitened, torch.cat([whiten(advantages[rows], MASK[rows]) for rows in ranks]))


def test_same_kl_and_value_loss(minimal):
    new, old, returns = noise(3), noise(4), noise(5)
    for name in ESTIMATORS:
        torch.testing.assert_close(minimal.kl_of_tokens(new, old, name), estimate_kl(new, old, name))
    torch.testing.assert_close(minimal.value_loss(new, old, returns, 0.2), clipped_value_loss(new, old, returns, 0.2))


def reward(completion_ids, **_):
    return [float(sum(token % 3 for token in ids)) / len(ids) for ids in completion_ids]


@pytest.mark.parametrize("as_released", [False, True], ids=["fixed", "as_released"])
def test_same_rollout_and_weights_as_the_trainer(minimal, tmp_path, monkeypatch, as_released):
    tokenizer = tiny_tokenizer()
    base = str(save_base(tmp_path / "base", tokenizer))
    policy, value_model = tiny_model(len(tokenizer), seed=1), load_value_model(base, fresh_head=True)
    with torch.no_grad():
        policy.lm_head.weight[tokenizer.eos_token_id] *= 8  # some completions end early
    reference, learner, critic = (copy.deepcopy(model) for model in (policy, policy, value_model))
    policy.save_pretrained(base)
    before = copy.deepcopy(policy.state_dict())
    s = minimal.Settings(
        batch=8, micro_batch=4, epochs=2, length=6, learning_rate=1e-2, temperature=0.7, as_released=as_released
    )
    args = PPOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_iterations=2,
        max_steps=2,
        max_completion_length=6,
        temperature=0.7,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        beta=0.05,
        non_stop_reward=-10.0,
        loss_type="bnpo" if as_released else "dapo",
        score_placement="as_released" if as_released else "last_token",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"how many {number}"}]} for number in range(8)])
    trainer = PPOTrainer(
        model=base,
        value_model=value_model,
        reward_funcs=reward,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()

    chunks = trainer._buffered_inputs  # the rollout, in the order in which its micro-batches were taken
    theirs = {key: torch.cat([chunk[key] for chunk in chunks]) for key in chunks[0] if chunks[0][key].dim() > 1}
    batch = {
        "prompts": theirs["prompt_ids"],
        "completions": theirs["completion_ids"],
        "mask": theirs["completion_mask"],
    }
    counted = [ids[kept.bool()].tolist() for ids, kept in zip(batch["completions"], batch["mask"], strict=True)]
    ended = [ids[-1] == tokenizer.eos_token_id for ids in counted]
    assert theirs["prompt_mask"].all()
    assert 0 < sum(ended) < 8, "some ended and some did not"
    scores = torch.tensor([score if end else -10.0 for score, end in zip(reward(counted), ended, strict=True)])

    minimal.prepare(learner, reference, critic, batch, scores, s)
    kept = batch["mask"].bool()
    torch.testing.assert_close(batch["old_logps"][kept], theirs["old_per_token_logps"][kept], rtol=0, atol=1e-5)
    for ours, name in (("old_values", "values"), ("returns", "returns"), ("advantages", "advantages")):
        torch.testing.assert_close(batch[ours], theirs[name], rtol=1e-4, atol=1e-5, msg=name)

    monkeypatch.setattr(torch, "randperm", torch.arange)  # a mean of means depends on who shares a micro-batch
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.0) for m in (learner, critic)]
    assert len(list(minimal.learn(learner, critic, optimizers, batch, s))) == 2
    for ours, model in ((learner, trainer.model), (critic, trainer.critic.model)):
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(weight, ours.state_dict()[name], rtol=0, atol=2e-4, msg=name)
    assert max(float((learner.state_dict()[name] - before[name]).abs().max()) for name in before) > 1e-2


def test_it_learns(minimal, capsys):
    scores = minimal.main(minimal.Settings(rollouts=8, batch=64, micro_batch=64))
    assert sum(scores[-3:]) / 3 > scores[0] + 2
    assert capsys.readouterr().out.startswith("rollout 1/8 · score ")
