"""Rollouts from vLLM, in the trainer's process or from a server: what PPO, GRPO and RLOO need around TRL's own."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from tulu_recipes.errors import Problem, TrainingError
from tulu_recipes.trainers.exact import ExactTrainer
from tulu_recipes.trainers.vllm_cpu import cpu_vllm


class ServedTrainer(ExactTrainer):
    """Trains with vLLM on the CPU too, outlives a server that restarts, and asks it one rollout ahead.

    With `args.rollout_lag: 1` the request for rollout k+1 is sent when rollout k has been collected, with the weights
    of that moment, and answered while k is trained on: one rollout behind, never more, as released [OIr]. The first is
    waited for. A checkpoint holds the answer under way.
    """

    # of TRL's trainers, and of OnlineTrainer
    _step: int
    num_iterations: int
    prompt_sampler: Any
    vllm_generation: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        asked = [value for value in (*args, *kwargs.values()) if isinstance(value, TrainingArguments)]
        on_cpu = any(getattr(one, "use_vllm", False) and one.device.type == "cpu" for one in asked)
        with cpu_vllm() if on_cpu else nullcontext():
            super().__init__(*args, **kwargs)
        self._within_step = False  # some micro-batches of an optimizer step are done
        self._draws = torch.get_rng_state()  # at the end of the last step
        self.served = self.args.use_vllm and self.args.vllm_mode == "server"
        if self.served:
            from tulu_recipes.trainers.vllm_server import over_requests

            self.vllm_generation = over_requests(self.vllm_generation)

    @property
    def lagging(self) -> bool:
        return self.served and bool(self.args.rollout_lag)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self._within_step = not self.accelerator.gradient_state.sync_gradients
        self._draws = torch.get_rng_state()
        return loss

    # ---- generation

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if not self.served:
            return super()._generate_single_turn(*args, **kwargs)
        from tulu_recipes.trainers.vllm_server import ServerLost

        training, first = self.model.training, self.accelerator.is_main_process
        requests = self.vllm_generation.vllm_client if first else None
        if requests is not None:
            requests.collecting = training
        try:
            found = super()._generate_single_turn(*args, **kwargs)
        except ServerLost as lost:
            raise self._stopped(lost, training) from lost
        if requests is not None and training:
            self._log_waiting(requests)
            if self.lagging:
                self._ask_ahead(requests)
        return found

    def _log_waiting(self, requests: Any) -> None:
        metrics = self._metrics["train"]
        metrics["rollout/wait_seconds"].append(requests.waited)
        metrics["rollout/generate_seconds"].append(requests.generated)
        metrics["rollout/overlap"].append(max(0.0, 1 - requests.waited / max(requests.generated, 1e-9)))
        requests.waited = 0.0

    def _ask_ahead(self, requests: Any) -> None:
        every = self.args.steps_per_generation * self.num_iterations  # micro-batches a rollout
        if self._step + every >= self.state.max_steps * self.args.gradient_accumulation_steps:
            return  # this rollout is the last
        rows = self.prompt_sampler.prompts_of(self._step // every + 1)
        requests.ask_ahead(self._tokenize_prompts([self.train_dataset[row]["prompt"] for row in rows])[0])

    # ---- a server that is lost for good

    def _stopped(self, lost: Exception, training: bool) -> TrainingError:
        kept = "Resume from the last checkpoint"
        if training and self.state.global_step and not self._within_step:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            if not (folder / "trainer_state.json").is_file():
                torch.set_rng_state(self._draws)  # a new epoch has drawn since
                self._save_checkpoint(self.model, trial=None)
            kept = f"All that was trained is in {folder}; resume from it"
        return TrainingError(
            Problem(
                "vllm-server-lost",
                f"step {self.state.global_step + 1}, {self.vllm_generation.server_base_url or 'vLLM server'}",
                f"The vLLM server was lost. {lost}",
                f"start it again with the command of docs/vllm.md and look at its log for why it stopped. {kept} with "
                "the same command.",
            )
        )

    # ---- checkpoints

    def ahead_state(self) -> dict[str, Any] | None:
        if not self.lagging or not self.accelerator.is_main_process:
            return None
        state: dict[str, Any] | None = self.vllm_generation.vllm_client.state()
        return state

    def restore_ahead(self, state: dict[str, Any] | None) -> None:
        if state is not None and self.lagging:
            from tulu_recipes.trainers.vllm_server import Ahead

            self.vllm_generation.vllm_client.ahead = Ahead(**state)
