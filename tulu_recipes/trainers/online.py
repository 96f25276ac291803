"""What PPO, GRPO and RLOO have in common: scores without EOS, evaluation that changes nothing, exact resume."""

import random
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast, gather, set_seed
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from trl.trainer.utils import RepeatSampler

from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.exact import ExactTrainer
from tulu_recipes.trainers.served import ServedTrainer

Rollout = dict[str, Any]


@dataclass
class OnlineConfig:
    """What is added to TRL's configuration of every online trainer: `class GRPOConfig(OnlineConfig, trl.GRPOConfig)`.

    non_stop_reward: the whole score of a completion that did not end by itself; PPO −10, Tülu 3.1 0 [OIr].
    rollout_lag: 1: a vLLM server generates the next rollout while this one is trained on.
    schedule_steps: of the learning rate, where the run ends earlier than its schedule; None: the run's.
    """

    non_stop_reward: float | None = field(
        default=None, metadata={"help": "Replaces the score of a completion without EOS."}
    )
    schedule_steps: int | None = field(default=None, metadata={"help": "Steps of the schedule; None: max_steps."})
    rollout_lag: int = field(default=0, metadata={"help": "1: generate the next rollout while training on this one."})

    def __post_init__(self) -> None:
        trl_config: Any = super()
        trl_config.__post_init__()
        if self.rollout_lag not in (0, 1):
            raise RecipeError(Problem("out-of-range", "rollout_lag", f"It is {self.rollout_lag}.", "use 0 or 1."))
        keys: Any = self
        if self.rollout_lag and not (keys.use_vllm and keys.vllm_mode == "server"):
            raise RecipeError(
                Problem(
                    "rollout-lag",
                    f"use_vllm: {keys.use_vllm}, vllm_mode: {keys.vllm_mode}",
                    "rollout_lag: 1 generates while the learner trains, which an engine within the learner cannot.",
                    "set use_vllm: true and vllm_mode: server (docs/vllm.md), or rollout_lag: 0.",
                )
            )


class PromptSampler(RepeatSampler):  # trl is untyped
    """TRL's sampler whose order is a function of the epoch, so that a resumed run draws the prompts it would have.

    TRL's own has a generator that a resumed run starts anew: it repeats the first epoch's order.
    """

    trainer: Any

    def prompts_of(self, rollout: int) -> list[int]:
        """Row numbers of the prompts of a rollout, each once; rollouts are counted from the start of the run."""
        epoch, chunk = divmod(rollout, self.num_samples // self.batch_size)
        order = torch.arange(self.num_samples)
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=torch.Generator().manual_seed((self.seed or 0) + epoch))
        rows: list[int] = order[chunk * self.batch_size : (chunk + 1) * self.batch_size].tolist()
        return rows

    def __iter__(self) -> Any:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + int(self.trainer.state.epoch or 0))
        return super().__iter__()


def send_weights(model: torch.nn.Module, device: torch.device) -> None:
    """The main process's weights, to every rank.

    Under FSDP transformers reads a model on the first process of a machine alone (`cpu_ram_efficient_loading`).
    accelerate sends the policy's weights on; TRL shards, or copies, other models as they are: zeros.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.copy_(broadcast(tensor.data.to(device)))


def grow_embeddings(model: Any, policy: Any) -> None:
    """A row for every token of the policy, whose vocabulary may have grown by a padding token since it was saved.

    Such rows are never attended to: TRL reads the reference from the files that the policy was read from.
    """
    rows = policy.get_input_embeddings().num_embeddings
    if model.get_input_embeddings().num_embeddings < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)


class OnlineTrainer(ServedTrainer):
    """Base beside one of TRL's online trainers: `class PPOTrainer(OnlineTrainer, trl.GRPOTrainer)`.

    `args.non_stop_reward` replaces the whole score of a completion that did not end by itself, whatever the reward
    functions say of it [OIr]. Evaluation samples from seeds of its own: how often it runs changes no weights.
    Checkpoints hold the rollout at work, also in the midst of its epochs and minibatches.
    """

    # of TRL's trainers
    beta: float
    eos_token_ids: list[int]
    reward_funcs: list[Any]
    reward_weights: torch.Tensor
    _buffered_inputs: list[Rollout] | None
    _logs: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rewards_per_func = torch.zeros(0)  # (ranks × B, functions) of the rollout at work, NaN: not scored
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            for function in self.reward_funcs:
                if isinstance(function, torch.nn.Module):
                    send_weights(function, self.accelerator.device)

    @property
    def ref_model(self) -> Any:
        return self._ref_model

    @ref_model.setter
    def ref_model(self, model: Any) -> None:
        sharded = isinstance(model, FSDPModule | FullyShardedDataParallel)
        if model is not None and not sharded:
            grow_embeddings(model, self.model)
        if model is not None and self.is_fsdp_enabled and not sharded:
            send_weights(model, self.accelerator.device)
        self._ref_model = model

    # ---- the account of a rollout

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Rows of prompts, which have nothing to count yet."""
        if self.is_over:
            return [], None
        return super(ExactTrainer, self).get_batch_samples(epoch_iterator, num_batches, device)

    def account(self) -> dict[str, float]:
        return {
            "episodes": self.progress.sequences,
            "num_completion_tokens": self.progress.supervised_tokens,
            "row_order_crc32": self.progress.row_order_crc32,
        }

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Rollout:
        rollout: Rollout = super()._generate_and_score_completions(inputs)
        if self.num_generations == 1:  # of one completion TRL says that all in its group are equal
            self._metrics[self.mode].pop("frac_reward_zero_std", None)
        if self.mode == "train":
            self._count(rollout)
        return rollout

    @property
    def mode(self) -> str:
        return "train" if self.model.training else "eval"

    def _count(self, rollout: Rollout) -> None:
        completions, mask = rollout["completion_ids"], rollout["completion_mask"]
        self.progress.sequences += len(completions) * self.accelerator.num_processes
        self.progress.supervised_tokens += int(self.accelerator.reduce(mask.sum(), reduction="sum"))
        for ids in (rollout["prompt_ids"], completions):
            self.progress.row_order_crc32 = zlib.crc32(ids.cpu().numpy().tobytes(), self.progress.row_order_crc32)
        self._window = [rollout]

    # ---- scores

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        penalty = self.args.non_stop_reward
        if penalty is not None:
            ended = torch.tensor(
                [bool(ids) and ids[-1] in self.eos_token_ids for ids in completion_ids_list], device=rewards.device
            )
            ended = gather(ended)
            rewards = torch.where(ended[:, None], rewards, torch.nan)
            # all of it in one function's share, so that the weighted sum is the penalty; a weight may be 0
            bearer = int(self.reward_weights.abs().argmax())
            share = penalty / float(self.reward_weights[bearer])
            rewards[:, bearer] = torch.where(ended, rewards[:, bearer], share)
        self.rewards_per_func = rewards
        return rewards

    def local_scores(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of this rank's completions: scores (B,), and which could be scored (B,); the others' score is 0."""
        start = self.accelerator.process_index * rows
        rewards = self.rewards_per_func[start : start + rows]
        weighted = rewards * self.reward_weights.to(rewards.device)
        return weighted.nansum(dim=1), ~rewards.isnan().all(dim=1)

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().compute_loss(*args, **kwargs)
        self.stop_unless_finite(loss)
        return loss

    def recent_completions(self, most: int = 16) -> list[dict[str, Any]]:
        """The last completions, with their prompts and rewards, on the main process."""
        logs = self._logs
        shown = [
            {"prompt": prompt, "completion": completion, "rewards": {name: scores[row] for name, scores in rewards}}
            for row, (prompt, completion) in enumerate(zip(logs["prompt"], logs["completion"], strict=True))
            for rewards in [list(logs["rewards"].items())]
        ]
        return shown[-most:]

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        return super().create_scheduler(self.args.schedule_steps or num_training_steps, *args, **kwargs)

    # ---- evaluation beside training

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        others = random.getstate(), np.random.get_state()  # reward functions may draw from them
        with torch.random.fork_rng(devices=devices):
            set_seed(self.args.seed, device_specific=True)
            try:
                return super().evaluation_loop(*args, **kwargs)
            finally:
                random.setstate(others[0])
                np.random.set_state(others[1])

    # ---- exact resume

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        sampler.__class__ = PromptSampler
        sampler.trainer = self
        self.prompt_sampler = sampler
        return sampler

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.rollout_state(), self._rollout_file(folder))
        self.accelerator.wait_for_everyone()  # trainer_state.json, written last, says that all is there
        super()._save_checkpoint(model, trial)

    def rollout_state(self) -> dict[str, Any]:
        """What this rank must have to go on in the midst of a rollout."""
        logs = {key: _as_lists(value) for key, value in self._logs.items()}
        return {"step": self._step, "buffer": self._buffered_inputs, "logs": logs, "ahead": self.ahead_state()}

    def _rollout_file(self, folder: str | Path) -> Path:
        return Path(folder) / f"rollout-rank-{self.args.process_index}.pt"

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        path = self._rollout_file(resume_from_checkpoint or "")
        if resume_from_checkpoint and path.is_file():  # a checkpoint of plain TRL has none, and resumes as TRL does
            device = self.accelerator.device
            # with vLLM in the process it is "cpu:0", where torch.load puts nothing
            place = "cpu" if device.type == "cpu" else device
            self.restore_rollout(torch.load(path, map_location=place, weights_only=True))
        return prepared

    def restore_rollout(self, state: dict[str, Any]) -> None:
        self._step, self._buffered_inputs = state["step"], state["buffer"]
        self.restore_ahead(state.get("ahead"))
        for key, values in state["logs"].items():
            if isinstance(values, dict):
                for name, column in values.items():
                    self._logs[key][name].extend(column)
            else:
                self._logs[key].extend(values)


def _as_lists(value: Any) -> Any:
    return list(value) if isinstance(value, deque) else {name: list(column) for name, column in value.items()}
