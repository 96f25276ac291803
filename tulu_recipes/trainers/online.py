"""What PPO, GRPO and RLOO have in common: scores without EOS, evaluation that changes nothing, exact resume."""

import zlib
from collections import deque
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, gather, set_seed
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from trl.trainer.utils import RepeatSampler

from tulu_recipes.trainers.exact import ExactTrainer
from tulu_recipes.trainers.served import ServedTrainer

Rollout = dict[str, Any]


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


class OnlineTrainer(ServedTrainer):
    """Base beside one of TRL's online trainers: `class PPOTrainer(OnlineTrainer, trl.GRPOTrainer)`.

    `args.non_stop_reward` replaces the whole score of a completion that did not end by itself, whatever the reward
    functions say of it [OIr]. Evaluation samples from seeds of its own: how often it runs changes no weights.
    Checkpoints hold the rollout at work, also in the midst of its epochs and minibatches.
    """

    # of TRL's trainers
    beta: float
    eos_token_ids: list[int]
    reward_weights: torch.Tensor
    _buffered_inputs: list[Rollout] | None
    _logs: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rewards_per_func = torch.zeros(0)  # (ranks × B, functions) of the rollout at work, NaN: not scored
        super().__init__(*args, **kwargs)

    @property
    def ref_model(self) -> Any:
        return self._ref_model

    @ref_model.setter
    def ref_model(self, model: Any) -> None:
        sharded = isinstance(model, FSDPModule | FullyShardedDataParallel)
        if model is not None and self.is_fsdp_enabled and not sharded:
            send_weights(model, self.accelerator.device)
        self._ref_model = model

    # ---- the account of a rollout

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Rows of prompts, which have nothing to count yet."""
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
            # the first function's share, so that the weighted sum is the penalty
            rewards[:, 0] = torch.where(ended, rewards[:, 0], penalty / float(self.reward_weights[0]))
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

    # ---- evaluation beside training

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            set_seed(self.args.seed, device_specific=True)
            return super().evaluation_loop(*args, **kwargs)

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
