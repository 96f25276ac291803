"""PPO with a value network and verifiable rewards as Tülu 3 does it, in plain PyTorch, on a tiny model made here.

    python docs/minimal/ppo.py

One process, about ten seconds: the prompt is a digit, right answers repeat it and end. Read it from top to bottom: a
test holds its formulas against tulu_recipes.algorithms and its weights against PPOTrainer's. `as_released` marks where
the released code differs from what its formulas say. It also sampled one rollout behind (here: never), and shuffled
rows within a rank. What the stage adds (verifiers, vLLM, many GPUs, resuming) is in docs/rlvr.md.

Shapes: B completions of T tokens, prompts of P, all of one length. Masks are 1 where a token counts.
"""

import random
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

DIGITS, EOS = range(4), 4


@dataclass
class Settings:
    rollouts: int = 40
    batch: int = 128  # completions of a rollout
    num_minibatches: int = 1  # optimizer steps of a pass over it
    micro_batch: int = 128  # completions of a forward and backward
    epochs: int = 4  # passes over a rollout
    length: int = 6  # tokens of a completion at most
    temperature: float = 1.0
    verifiable_reward: float = 10.0
    non_stop_reward: float | None = -10.0  # replaces the score of a completion without EOS, right or wrong
    beta: float = 0.05  # of the KL penalty
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    learning_rate: float = 5e-3  # of both networks; it falls linearly to 0
    max_grad_norm: float = 1.0  # of each network
    as_released: bool = False
    rank_batch: int = 128  # as_released: rows of one GPU, which whitened on its own


# ---- a rollout


@torch.no_grad()
def sample(policy, prompts, s):
    """Completions (B, T), and their mask, which ends with the first EOS; what follows it is filling."""
    ids = prompts
    for _ in range(s.length):
        logits = policy(input_ids=ids).logits[:, -1] / s.temperature
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], 1)
    completions = ids[:, prompts.size(1) :]
    is_eos = (completions == EOS).long()
    return completions, (is_eos.cumsum(1) - is_eos == 0).long()


def verified_score(digit, completion, s):
    """completion: the tokens that count. The one thing that the policy is told about its answer."""
    if s.non_stop_reward is not None and completion[-1] != EOS:
        return s.non_stop_reward
    return s.verifiable_reward if digit in completion else 0.0


def outputs_before_completion_tokens(network, batch):
    """(B, T, outputs): what a causal network says at one position is about the token at the next."""
    ids = torch.cat([batch["prompts"], batch["completions"]], 1)
    return network(input_ids=ids).logits[:, batch["prompts"].size(1) - 1 : -1].float()


def log_probs(policy, batch, s):
    """(B, T), at the temperature that sampled."""
    logits = outputs_before_completion_tokens(policy, batch) / (s.temperature + (1e-7 if s.as_released else 0.0))
    return logits.log_softmax(-1).gather(-1, batch["completions"][..., None])[..., 0]


def token_values(value_model, batch):
    """(B, T): the value before each completion token."""
    return outputs_before_completion_tokens(value_model, batch)[..., 0]


# ---- from scores to advantages


def kl_of_tokens(logps, ref_logps, estimator="k1"):
    d = logps - ref_logps
    return {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) - 1 + d}[estimator]


def token_rewards(scores, kl, mask, s):
    """(B, T) rewards, and the mask of the positions with a value.

    -β × KL at each token, and the score at the last. as_released: the score comes one position later where there is
    one, so that it is the reward of a step after EOS, which then has a value.
    """
    rewards, value_mask = -s.beta * kl * mask, mask.clone()
    for row, length in enumerate(mask.sum(1).tolist()):
        at = min(length, mask.size(1) - 1) if s.as_released else length - 1
        rewards[row, at] += scores[row]
        value_mask[row, at] = 1
    return rewards, value_mask


def advantages_and_returns(rewards, values, value_mask, s):
    """GAE. A_t = Σ_k (γλ)^k δ_(t+k) with δ_t = r_t + γ V_(t+1) - V_t, and nothing after the end; returns are A + V."""
    advantages = torch.zeros_like(values)
    for row, length in enumerate(value_mask.sum(1).tolist()):
        following, value_after = 0.0, 0.0
        for t in reversed(range(length)):
            delta = rewards[row, t] + s.gamma * value_after - values[row, t]
            following = delta + s.gamma * s.lam * following
            value_after = values[row, t]
            advantages[row, t] = following
    return advantages, (advantages + values) * value_mask


def whiten(advantages, mask, s):
    """Mean 0 and variance 1 over the tokens of the rollout (as_released: over those of each GPU)."""
    whitened = torch.zeros_like(advantages)
    size = s.rank_batch if s.as_released else len(mask)
    for start in range(0, len(mask), size):
        rows, kept = slice(start, start + size), mask[start : start + size].bool()
        counted = advantages[rows][kept]
        whitened[rows][kept] = (counted - counted.mean()) * torch.rsqrt(counted.var(unbiased=True) + 1e-8)
    return whitened


# ---- losses, per token


def policy_loss(logps, old_logps, advantages, cliprange):
    ratio = torch.exp(logps - old_logps)
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange))


def value_loss(values, old_values, returns, cliprange):
    clipped = torch.clamp(values, old_values - cliprange, old_values + cliprange)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def share_of_mean(per_token, mask, minibatch_mask, num_micro_batches, s):
    """A micro-batch's share of the mean over a minibatch's tokens (as_released: of the mean of such means)."""
    total = (per_token * mask).sum()
    return total / mask.sum() / num_micro_batches if s.as_released else total / minibatch_mask.sum()


# ---- learning


@torch.no_grad()
def prepare(policy, reference, value_model, batch, scores, s):
    """Add what stays fixed for all passes over a rollout; returns the mean KL of a completion in nats."""
    batch["old_logps"] = log_probs(policy, batch, s)
    kl = kl_of_tokens(batch["old_logps"], log_probs(reference, batch, s)) * batch["mask"]
    rewards, batch["value_mask"] = token_rewards(scores, kl, batch["mask"], s)
    batch["old_values"] = token_values(value_model, batch) * batch["value_mask"]
    advantages, batch["returns"] = advantages_and_returns(rewards, batch["old_values"], batch["value_mask"], s)
    batch["advantages"] = whiten(advantages, batch["mask"], s)
    return kl.sum(1).mean().item()


def learn(policy, value_model, optimizers, batch, s):
    """All passes over a rollout, in place; yields the policy's and the value network's loss of each step."""
    count = len(batch["mask"]) // s.num_minibatches
    for _ in range(s.epochs):
        order = torch.randperm(len(batch["mask"]))
        for start in range(0, len(order), count):
            minibatch = {key: column[order[start : start + count]] for key, column in batch.items()}
            losses = torch.zeros(2)
            for first in range(0, count, s.micro_batch):
                b = {key: column[first : first + s.micro_batch] for key, column in minibatch.items()}
                parts = -(-count // s.micro_batch)
                pl = policy_loss(log_probs(policy, b, s), b["old_logps"], b["advantages"], s.cliprange)
                vl = value_loss(token_values(value_model, b), b["old_values"], b["returns"], s.cliprange_value)
                pl = share_of_mean(pl, b["mask"], minibatch["mask"], parts, s)
                vl = share_of_mean(vl, b["value_mask"], minibatch["value_mask"], parts, s)
                (pl + s.vf_coef * vl).backward()  # two networks: each gets the gradient of its own term
                losses += torch.stack([pl.detach(), vl.detach()])
            for network, optimizer in zip((policy, value_model), optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(network.parameters(), s.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            yield losses.tolist()


def train(policy, reference, value_model, prompts_of_rollouts, s):
    """Yields (mean score, mean KL of a completion, value loss) of each rollout."""
    optimizers = [
        torch.optim.AdamW(network.parameters(), lr=s.learning_rate, weight_decay=0.0)
        for network in (policy, value_model)
    ]
    for number, digits in enumerate(prompts_of_rollouts):
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = s.learning_rate * (1 - number / s.rollouts)
        batch = {"prompts": torch.tensor(digits)[:, None]}
        batch["completions"], batch["mask"] = sample(policy, batch["prompts"], s)
        counted = [ids[kept.bool()].tolist() for ids, kept in zip(batch["completions"], batch["mask"], strict=True)]
        scores = torch.tensor([verified_score(*pair, s) for pair in zip(digits, counted, strict=True)])
        kl = prepare(policy, reference, value_model, batch, scores, s)
        losses = list(learn(policy, value_model, optimizers, batch, s))
        yield scores.mean().item(), kl, losses[-1][1]


def tiny(kind, seed=0, **config):
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return kind(LlamaConfig(vocab_size=5, initializer_range=0.1, pad_token_id=EOS, **shape, **config))


def main(s=None, seed=1):
    s = s or Settings()
    policy, reference = tiny(LlamaForCausalLM), tiny(LlamaForCausalLM)
    value_model = tiny(LlamaForTokenClassification, num_labels=1)
    torch.manual_seed(seed)
    digits = random.Random(seed)
    rollouts = [[digits.choice(DIGITS) for _ in range(s.batch)] for _ in range(s.rollouts)]
    scores = []
    for number, (score, kl, of_values) in enumerate(train(policy, reference, value_model, rollouts, s), start=1):
        scores.append(score)
        print(f"rollout {number}/{s.rollouts} · score {score:6.2f} · KL {kl:5.2f} · value loss {of_values:6.2f}")
    return scores


if __name__ == "__main__":
    main()
