"""PPO with a value network on TRL's GRPOTrainer, whose generation, logging and policy loss it keeps.

TRL removed its own PPOTrainer in 1.13. GRPOTrainer takes advantages per token from subclasses; this one computes them
from a value network (trainers/critic.py), with the KL penalty in the reward as in Tülu 3.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel
from trl import GRPOConfig as _TrlGRPOConfig
from trl import GRPOTrainer as _TrlGRPOTrainer

from tulu_recipes.algorithms.advantages import compute_gae, whiten
from tulu_recipes.algorithms.kl import ESTIMATORS, Estimator, estimate_kl
from tulu_recipes.algorithms.ppo import ScorePlacement, explained_variance, token_rewards
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.critic import FOLDER, Critic, as_value_model, load_value_model
from tulu_recipes.trainers.online import OnlineConfig, OnlineTrainer, Rollout

KLPlacement = Literal["reward", "loss"]
Whitening = Literal["all_ranks", "per_rank", "none"]
LOSSES = ("dapo", "bnpo")


class _AnySize(int):
    """Passes TRL's check that a group has two completions, which only a group's mean as baseline needs."""

    def __lt__(self, other: object) -> bool:
        return False


@dataclass
class PPOConfig(OnlineConfig, _TrlGRPOConfig):  # trl is untyped
    """TRL's GRPOConfig and what PPO needs. Defaults are Tülu 3's where it has one [P:T21], [OIr].

    num_generations: samples a prompt; 1 is enough.
    num_iterations: passes over a rollout (PPO epochs). loss_type: dapo (one mean over the tokens of a step) | bnpo
        (mean over micro-batches of their means, as released).
    beta: KL coefficient; 0: no reference model.
    """

    num_generations: int = 1
    beta: float = 0.05
    kl_placement: KLPlacement = field(
        default="reward", metadata={"help": "KL as a penalty per token, or in the loss."}
    )
    kl_estimator: Estimator = field(default="k1", metadata={"help": "k1, k2 or k3."})
    score_placement: ScorePlacement = field(
        default="last_token", metadata={"help": "as_released: one position after the last token."}
    )
    whiten_advantages: Whitening = field(default="all_ranks", metadata={"help": "per_rank: as released."})
    gamma: float = field(default=1.0, metadata={"help": "Discount."})
    lam: float = field(default=0.95, metadata={"help": "λ of generalised advantage estimation."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float = field(default=0.2, metadata={"help": "How far a value may move in one rollout."})
    value_learning_rate: float | None = field(default=None, metadata={"help": "None: learning_rate."})

    def __post_init__(self) -> None:
        samples, self.num_generations = self.num_generations, _AnySize(self.num_generations)
        if samples < 1:
            raise RecipeError(Problem("out-of-range", "num_generations", f"It is {samples}.", "use 1 or more."))
        super().__post_init__()
        self.num_generations = samples
        problems = [
            Problem(
                "unknown-choice", name, f"{getattr(self, name)!r} is not known.", f"use one of {', '.join(known)}."
            )
            for name, known in (
                ("loss_type", LOSSES),
                ("kl_placement", get_args(KLPlacement)),
                ("kl_estimator", ESTIMATORS),
                ("score_placement", get_args(ScorePlacement)),
                ("whiten_advantages", get_args(Whitening)),
            )
            if getattr(self, name) not in known
        ]
        if problems:
            raise RecipeError(problems)


class PPOTrainer(OnlineTrainer, _TrlGRPOTrainer):  # trl is untyped
    """TRL's GRPOTrainer with a value network instead of group baselines.

    value_model: a reward or language model, the path of one, or None: the policy's weights under a new head.
    The other arguments are TRL's. Completions that no reward function could score move nothing.
    Source: [OIr] ppo_vllm_thread_ray_gtrl.py; docs/decisions/0009-ppo.md.
    """

    _tag_names = ("trl", "ppo")
    _name = "PPO"
    args: PPOConfig
    # of TRL's trainer
    num_generations: int
    current_gradient_accumulation_steps: int

    def __init__(self, *args: Any, value_model: PreTrainedModel | str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.model.config._name_or_path if value_model is None else value_model
        if isinstance(name, str) and name:
            network = load_value_model(name, fresh_head=value_model is None, dtype=self.model.dtype)
        else:
            network = as_value_model(self.model if value_model is None else value_model)
        self.critic = Critic(network, owner=self)
        # which gave every rank the same seed: all would sample the same completions
        set_seed(self.args.seed, device_specific=True)
        self._minibatch: Rollout = {}
        self._policy_logps = torch.zeros(0)

    # ---- a rollout: scores become advantages per token

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Rollout:
        rollout = super()._generate_and_score_completions(inputs)
        mask = rollout["completion_mask"]
        sampled = mask * rollout.get("tool_mask", 1)  # without what a tool answered
        scores, scored = self.local_scores(len(inputs))
        learned = sampled.bool() & scored[:, None]
        penalties = self._kl_penalties(rollout, sampled)
        rewards, value_mask = token_rewards(scores, penalties, mask, self.args.score_placement)
        values = self.critic.values(rollout, self._forward_batch_size()).masked_fill(~value_mask, 0.0)
        advantages, returns = compute_gae(rewards, values, value_mask, self.args.gamma, self.args.lam)
        value_mask = value_mask & scored[:, None]
        self._log_values(values, returns, value_mask)
        rollout["advantages"] = self._whitened(advantages, learned)
        rollout["tool_mask"] = learned.to(mask.dtype)  # TRL's name for the part of completions that the loss is about
        rollout |= {"values": values, "returns": returns, "value_mask": value_mask}
        for key, counted in (("num_items_in_batch", learned), ("num_values_in_batch", value_mask)):
            rollout[key] = self._sum_over_ranks(counted.sum())
        self._show_advantages(rollout["advantages"], learned)
        return rollout

    def _forward_batch_size(self) -> int:
        training = self.mode == "train"
        size = self.args.per_device_train_batch_size if training else self.args.per_device_eval_batch_size
        return int(size)

    def _kl_penalties(self, rollout: Rollout, mask: torch.Tensor) -> torch.Tensor:
        """(B, T): β × KL of each token where it is taken from the reward, else 0. The KL is logged either way."""
        if "ref_per_token_logps" not in rollout:
            return torch.zeros(mask.shape, device=mask.device)
        logps = rollout.get("old_per_token_logps")
        if logps is None:  # which TRL leaves out where the first ratio is 1 anyway
            logps = self._current_logps(rollout)
        kl = estimate_kl(logps, rollout["ref_per_token_logps"], self.args.kl_estimator) * mask
        metrics = self._metrics[self.mode]
        total, tokens = self._sum_over_ranks(torch.stack([kl.sum(), mask.sum().float()])).tolist()
        metrics["kl"].append(total / max(tokens, 1))
        metrics["kl_per_completion"].append(total / (len(kl) * self.accelerator.num_processes))
        return self.beta * kl if self.args.kl_placement == "reward" else torch.zeros_like(kl)

    @torch.no_grad()
    def _current_logps(self, rollout: Rollout) -> torch.Tensor:
        ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
        attention = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
        width = rollout["completion_ids"].size(1)
        logps: torch.Tensor = self._get_per_token_logps_and_entropies(
            self.model, ids, attention, width, batch_size=self._forward_batch_size()
        )[0]
        return logps

    def _whitened(self, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.args.whiten_advantages == "none":
            return advantages.masked_fill(~mask, 0.0)
        if self.args.whiten_advantages == "per_rank":
            return whiten(advantages, mask)
        return whiten(advantages, mask, self._sum_over_ranks)

    def _sum_over_ranks(self, total: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.accelerator.reduce(total, reduction="sum")
        return summed

    def _log_values(self, values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> None:
        metrics = self._metrics[self.mode]
        sums = torch.stack([(values * mask).sum(), (returns * mask).sum(), mask.sum()])
        of_values, of_returns, count = self._sum_over_ranks(sums).tolist()
        metrics["values/mean"].append(of_values / max(count, 1))
        metrics["returns/mean"].append(of_returns / max(count, 1))
        metrics["values/explained_variance"].append(explained_variance(values, returns, mask, self._sum_over_ranks))

    def _show_advantages(self, advantages: torch.Tensor, mask: torch.Tensor) -> None:
        """Each completion's mean advantage into the table of completions, where TRL wrote its group's."""
        means = self.accelerator.gather((advantages * mask).sum(1) / mask.sum(1).clamp(min=1)).tolist()
        shown = self._logs["advantages"]
        for _ in range(min(len(means), len(shown))):
            shown.pop()
        shown.extend(means)

    # ---- a step: TRL's policy loss, then the value network

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._policy_logps = found[0]  # the last of a loss, for the KL term in it
        return found

    def _compute_loss(self, model: Any, inputs: Rollout) -> torch.Tensor:
        self._minibatch = inputs
        beta, self.beta = self.beta, 0.0  # TRL's own KL term: always k3, and always in the loss
        try:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        if beta and self.args.kl_placement == "loss":
            kl = estimate_kl(self._policy_logps, inputs["ref_per_token_logps"], self.args.kl_estimator)
            loss = loss + beta * self.mean_over_step(kl, inputs["tool_mask"], inputs["num_items_in_batch"])
        self._policy_logps = self._policy_logps.detach()
        return loss

    def mean_over_step(self, per_token: torch.Tensor, mask: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """This micro-batch's share (a scalar) of the mean over an optimizer step, as `loss_type` takes it.

        Args:
            per_token, mask: (b, T).
            count: tokens of the mask in the whole rollout, over all ranks.
        Source: TRL's _compute_loss, for dapo and bnpo.
        """
        total = (per_token * mask).sum()
        accumulated = self.current_gradient_accumulation_steps if self.mode == "train" else 1
        if self.args.loss_type == "bnpo":
            return total / mask.sum().clamp(min=1) / accumulated
        steps = self.args.steps_per_generation if self.mode == "train" else 1
        share: torch.Tensor = total / (count.clamp(min=1) / self.accelerator.num_processes * accumulated / steps)
        return share

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.critic.step(self._minibatch)
        self._log_value_step()
        return loss

    def _log_value_step(self) -> None:
        if not self.accelerator.gradient_state.sync_gradients:
            return
        metrics = self._metrics["train"]
        metrics["value_loss"].append(float(self.accelerator.gather(self.critic.loss).mean()))
        metrics["value_grad_norm"].append(float(self.critic.grad_norm))
        self.critic.loss = 0.0

    # ---- both models

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self.critic.prepare(max_steps, train_dataloader, resume_from_checkpoint)
        return prepared

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        self.critic.save(folder / FOLDER, state=not self.args.save_only_model)
        super()._save_checkpoint(model, trial)

    def save_value_model(self, folder: str | Path) -> None:
        """The value network in a folder of its own, as a reward model is saved. Collective."""
        self.critic.save(Path(folder), state=False)
