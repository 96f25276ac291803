"""The reference of DPO: a model beside the policy, or its log-probs on disk, computed before the first step."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, broadcast_object_list
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from trl.models import prepare_deepspeed

from tulu_recipes.config.model_files import describe_weights
from tulu_recipes.data.pairs import SIDES, TRAINED
from tulu_recipes.data.template import template_digest
from tulu_recipes.errors import DataError, Problem, RecipeError
from tulu_recipes.trainers.pairs import PairTrainer
from tulu_recipes.trainers.ref_cache import LogProbs, RefCache, digest_rows


def cache_folder(args: Any) -> Path:
    """Where a DPOConfig keeps reference log-probs."""
    return Path(args.ref_log_probs_cache or Path(args.output_dir) / "ref_log_probs")


def describe_pairs(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, args: Any) -> dict[str, Any]:
    """What reference log-probs depend on beside the model. args: a DPOConfig."""
    return {
        "rows": digest_rows(dataset, TRAINED),
        "chat_template": template_digest(tokenizer),
        "masking": args.masking,
        "mask_termination_tokens": args.mask_termination_tokens,
        "max_length": args.max_length,
        "ld_alpha": args.ld_alpha,
    }


def check_cache(args: Any, sets: Mapping[str, Dataset | None], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a cache that was made for other pairs, before a model is loaded. sets: by name, as the trainer's.

    Raises:
        DataError: what is different.
    """
    folder = cache_folder(args)
    if folder.is_file():
        what = "The cache of reference log-probs is to be a folder, and this is a file."
        raise DataError(Problem("ref-cache-other", str(folder), what, "name another ref_log_probs_cache."))
    caches = [
        RefCache(folder / name, describe_pairs(dataset, tokenizer, args), len(dataset))
        for name, dataset in sets.items()
        if dataset is not None and (folder / name).exists()
    ]
    problems = [problem for cache in caches if (problem := cache.problem(whole=False))]
    if problems:
        raise DataError(problems, headline="The reference log-probs are refused, nothing was started.")


class ReferenceTrainer(PairTrainer):
    """The part of DPOTrainer that deals with the reference; beside TRL's DPOTrainer."""

    # of TRL's trainer
    data_collator: Any
    compute_ref_log_probs: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    _precompute_engine: Any
    _precompute_model_hash: str | None
    _tokenizer: PreTrainedTokenizerBase

    @property
    def ref_model(self) -> Any:
        return self._ref_model

    @ref_model.setter
    def ref_model(self, model: Any) -> None:
        sharded = isinstance(model, FSDPModule | FullyShardedDataParallel)
        if model is not None and self.is_fsdp_enabled and not sharded:
            self._send_weights(model)
        self._ref_model = model

    def _send_weights(self, model: torch.nn.Module) -> None:
        """The main process's weights, to every rank.

        Under FSDP transformers reads a model on the first process of a machine alone (`cpu_ram_efficient_loading`).
        accelerate sends the policy's weights on; TRL's `prepare_fsdp` shards a reference of zeros.
        """
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.copy_(broadcast(tensor.data.to(self.accelerator.device)))

    def passes(self, model: Any, see: Callable[[torch.Tensor], None] | None = None) -> Callable[..., Any]:
        """How a batch is run through a model; see DPOTrainer."""
        raise NotImplementedError

    # ---- log-probs on disk

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The rows with the columns ref_chosen_logps and ref_rejected_logps, from the cache as far as it is there.

        Raises:
            DataError: the cache was made for something else.
        """
        cache = self._open_cache(dataset, name)
        missing = self._agree([part for part in cache.parts() if cache.read(part) is None])
        model = self._precompute_model() if missing else None
        for part in self._shown(missing, name):
            values = self._ref_logps_of(model, dataset.select(part), batch_size)
            if self.accelerator.is_main_process:
                cache.write(part, values)
        self.accelerator.wait_for_everyone()
        found = cache.read_all()
        for side in SIDES:
            dataset = dataset.add_column(f"ref_{side}_logps", found[side].numpy())
        return dataset

    def _open_cache(self, dataset: Dataset, name: str) -> RefCache:
        """The same on every rank; what only one process should read or decide is the main one's."""
        folder = cache_folder(self.args) / name
        identity = self._agree(self._describe_reference(dataset) if self.accelerator.is_main_process else None)
        cache = RefCache(folder, identity, len(dataset))
        problem, damaged = self._agree((cache.problem(), [part for part in cache.parts() if cache.is_damaged(part)]))
        if problem is not None:
            raise DataError(problem)
        if damaged and self.accelerator.is_main_process:
            sys.stderr.write(f"{folder}: {len(damaged)} damaged file(s) of reference log-probs are computed again.\n")
        return cache

    def _describe_reference(self, dataset: Dataset) -> dict[str, Any]:
        """Everything that reference log-probs depend on."""
        config = self.accelerator.unwrap_model(self.ref_model or self.model).config
        return describe_pairs(dataset, self._tokenizer, self.args) | {
            "weights": describe_weights(config._name_or_path, config._commit_hash) or self._precompute_model_hash,
            "dtype": str(self.model.dtype),
            "autocast": self.accelerator.mixed_precision,
        }

    def _agree(self, value: Any) -> Any:
        """The main process's value, on every rank."""
        values = [value]
        broadcast_object_list(values, from_process=0)
        return values[0]

    def _precompute_model(self) -> Any:
        """What computes reference log-probs before training: TRL prepares the policy where it is sharded already.

        Raises:
            RecipeError: it would be a policy that FSDP has not handed its weights yet.
        """
        if self.ref_model is None and self.is_fsdp_enabled:
            raise RecipeError(
                Problem(
                    "ref-cache-fsdp-adapter",
                    "precompute_ref_log_probs",
                    "Under FSDP only the first process holds the model's weights before training, so the log-probs "
                    "of a model whose adapter is switched off cannot be computed then.",
                    "write  precompute_ref_log_probs: false  (an adapter needs no second model), or use DeepSpeed.",
                )
            )
        if self.ref_model is None and self.is_deepspeed_enabled:
            self._precompute_engine = self._precompute_engine or prepare_deepspeed(self.model, self.accelerator)
            return self._precompute_engine
        return self.ref_model or self.model

    def _ref_logps_of(self, model: Any, dataset: Dataset, batch_size: int) -> LogProbs:
        """Summed log-probs of these rows, gathered in their order: chosen and rejected (rows,) float32."""
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator, shuffle=False)
        found: dict[str, list[torch.Tensor]] = {side: [] for side in SIDES}
        for batch in self.accelerator.prepare_data_loader(loader):
            both = self.compute_ref_log_probs(self.passes(model), batch)
            for side, values in zip(SIDES, self.accelerator.gather_for_metrics(both), strict=True):
                found[side].append(values.float().cpu())
        return {side: torch.cat(values) for side, values in found.items()}

    def _shown(self, parts: list[range], name: str) -> Iterator[range]:
        """The parts one by one, with what is done and left on the terminal of the main process."""
        console = Console(stderr=True, quiet=not self.accelerator.is_main_process)
        yield from track(parts, f"Reference log-probs ({name})", console=console, disable=not parts)
