"""The value network of PPO: a second transformers Trainer that is never asked to train, only to step.

It brings its own optimizer, schedule, gradient clipping, sharding and checkpoints, on every backend that the policy's
trainer runs on. Two models in one accelerator do not: FSDP2 clips them as one, ZeRO-3 never moves the second.
"""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Trainer
from transformers.modeling_outputs import SequenceClassifierOutput
from trl.trainer.utils import disable_dropout_in_model

from tulu_recipes.algorithms.ppo import clipped_value_loss
from tulu_recipes.errors import Problem, RecipeError
from tulu_recipes.trainers.reward import init_score_head, load_scorer

FOLDER = "value_model"  # within a run folder and within a checkpoint


def load_value_model(name: str, *, fresh_head: bool = False, **kwargs: Any) -> PreTrainedModel:
    """A value network: one number before each token.

    Args:
        name: a reward model, whose head is kept, or a language model, which gets a new one.
        fresh_head: draw a reward model's head anew too.
        kwargs: of `from_pretrained`.
    Raises:
        RecipeError: an architecture whose reward models have no linear head on every token.
    """
    model = load_scorer(name, **kwargs)
    _require_score_head(model, name)
    if fresh_head:
        init_score_head(model)
    score_every_token(model)
    return model


def as_value_model(model: PreTrainedModel) -> PreTrainedModel:
    """A value network with the weights of a reward or language model in memory, which stays as it is.

    Raises:
        RecipeError: an architecture whose reward models have no linear head on every token, or a model with adapters.
    """
    if getattr(model, "scores_every_token", False):
        return model
    config: Any = copy.deepcopy(model.config)
    config.num_labels = 1
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    _require_score_head(network, type(model).__name__)
    missing = network.load_state_dict(model.state_dict(), strict=False).missing_keys
    if missing == ["score.weight"]:
        init_score_head(network)
    elif missing:
        found = f"It lacks weights of a value network, the first {missing[0]}."
        mend = "save it, and give the folder as value_model."
        raise RecipeError(Problem("wrong-architecture", type(model).__name__, found, mend))
    score_every_token(network)
    return network.to(model.device)


def _require_score_head(model: PreTrainedModel, name: str) -> None:
    if not hasattr(model, "score"):
        found = f"{type(model).__name__} has no linear head that could score every token."
        raise RecipeError(Problem("wrong-architecture", name, found, "use a model of the Llama, Qwen or OLMo kind."))


def score_every_token(model: PreTrainedModel) -> None:
    """Let a reward model give the scores (B, T, 1) of all tokens, where its class gives the last one's.

    Its class keeps its name, so that it is saved as the reward model that it is.
    """
    kind = type(model)

    def forward(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        hidden = self.base_model(input_ids=input_ids, **kwargs).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(hidden))

    changed = {"forward": forward, "scores_every_token": True, "__module__": kind.__module__}
    model.__class__ = type(kind.__name__, (kind,), changed)


def token_values(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, T) float32: the value before each completion token, which the hidden state of the token before it gives."""
    input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention_mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].size(1)
    logits: torch.Tensor = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return logits[:, -width - 1 : -1, 0].float()


class Critic(Trainer):
    """Steps the value network whenever its owner, a PPOTrainer, does a micro-batch.

    args: of the owner, whose `value_learning_rate`, `vf_coef`, `cliprange_value` and `loss_type` are read.
    """

    loss_is_scaled_for_ga = True  # by `mean_over_step`, as the policy's loss

    def __init__(self, model: PreTrainedModel, owner: Any) -> None:
        disable_dropout_in_model(model)
        # a copy of the fields: building another one would start the process group's state again
        args = copy.copy(owner.args)
        args.learning_rate = args.learning_rate if args.value_learning_rate is None else args.value_learning_rate
        args.remove_unused_columns = args.push_to_hub = args.load_best_model_at_end = False
        args.report_to, args.eval_strategy, args.deepspeed_plugin = [], "no", None
        super().__init__(
            model=model,
            args=args,
            train_dataset=owner.train_dataset,
            data_collator=lambda rows: rows,
            processing_class=owner.processing_class,
        )
        self.compute_loss_func = _never_called  # what transformers before 5.19 reads for `loss_is_scaled_for_ga`
        self.owner = owner
        self.loss: Any = 0.0  # of the optimizer step at work, on this rank
        self.grad_norm: Any = None

    def prepare(self, max_steps: int, train_dataloader: Any, checkpoint: str | None) -> None:
        """Wrap the network and make its optimizer; `checkpoint`: of the owner, to go on from."""
        folder = str(Path(checkpoint) / FOLDER) if checkpoint else None
        if self.args.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        self.accelerator.free_memory()
        if folder and not self.is_deepspeed_enabled and not self.is_fsdp_enabled:
            self._load_from_checkpoint(folder)
        self._prepare_for_training(self.args.schedule_steps or max_steps, train_dataloader, folder)

    @torch.no_grad()
    def values(self, rollout: dict[str, torch.Tensor], batch_size: int) -> torch.Tensor:
        """(B, T) of a rollout, in chunks; every rank has as many, since each is a collective where weights are
        sharded."""
        self.model_wrapped.eval()
        keys = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        chunks = []
        for start in range(0, len(rollout["prompt_ids"]), batch_size):
            chunk = {key: rollout[key][start : start + batch_size] for key in keys}
            with self.compute_loss_context_manager():
                chunks.append(token_values(self.model_wrapped, chunk))
        return torch.cat(chunks)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        per_token = clipped_value_loss(
            token_values(model, inputs), inputs["values"], inputs["returns"], self.args.cliprange_value
        )
        loss: torch.Tensor = self.owner.mean_over_step(per_token, inputs["value_mask"], inputs["num_values_in_batch"])
        self.loss = self.loss + loss.detach()
        if not torch.isfinite(loss):
            self.owner.stop_not_finite("value loss", float(loss.detach()))
        weighted: torch.Tensor = self.args.vf_coef * loss
        return weighted

    def step(self, inputs: dict[str, torch.Tensor]) -> None:
        """Forward and backward of a micro-batch, and the optimizer's step where the policy's follows."""
        last = self.accelerator.gradient_state.sync_gradients
        self.current_gradient_accumulation_steps = self.owner.current_gradient_accumulation_steps
        alone = not last and not self.is_deepspeed_enabled
        with self.accelerator.no_sync(model=self.model_wrapped) if alone else nullcontext():
            self.training_step(self.model_wrapped, inputs)
        if not last:
            return
        norm = self._clip_grad_norm(self.model_wrapped) if self.args.max_grad_norm > 0 else None
        self.grad_norm = self._get_grad_norm(self.model_wrapped, grad_norm=norm)
        self._stop_unless_finite()
        self.optimizer.step()
        self.lr_scheduler.step()
        self.model_wrapped.zero_grad()

    def _stop_unless_finite(self) -> None:
        scaled = self.accelerator.mixed_precision == "fp16"  # whose scaler skips infinite steps by itself
        if self.grad_norm is None or scaled or torch.isfinite(torch.as_tensor(self.grad_norm)).all():
            return
        norm = float(self.grad_norm)
        self.owner.stop_not_finite("value network's gradient norm", norm, updated=self.is_deepspeed_enabled)

    def save(self, folder: Path, *, state: bool) -> None:
        """The network, as a reward model is saved; with `state` its optimizer and schedule too."""
        self.save_model(str(folder), _internal_call=True)
        if state:
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))


def _never_called(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the critic computes its loss itself")
