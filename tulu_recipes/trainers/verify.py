"""A run is done when what it saved, loaded again, computes what it trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from tulu_recipes.errors import Problem, TrainingError
from tulu_recipes.trainers.reward import load_adapted_scorer

PROBE_TOKENS = 64


def probe_logits(trainer: Trainer, input_ids: Sequence[int]) -> torch.Tensor:
    """Logits of the trained model on one row, float32 on the CPU: (1, L, V), of a reward model (1, 1). All ranks."""
    with trainer.accelerator.autocast():
        return _logits(trainer.model_wrapped, input_ids, trainer.args.device)


def _logits(model: torch.nn.Module, input_ids: Sequence[int], device: torch.device | str) -> torch.Tensor:
    ids = torch.tensor([list(input_ids[:PROBE_TOKENS])], device=device)
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return logits.float().cpu()


def check_saved(
    folder: Path,
    trained: torch.Tensor,
    input_ids: Sequence[int],
    *,
    exact: bool,
    scorer: bool = False,
    adapted_dtype: torch.dtype = torch.float32,
    **load: Any,
) -> float:
    """Load `folder` on the CPU, where it fits beside the training state, and compare logits with the trained model.

    Args:
        trained: from `probe_logits`, before or after saving.
        exact: whether training computed in the dtype it stores, so that float32 must agree closely.
        scorer: a reward model, whose one logit is a score.
        adapted_dtype: that adapters were trained over; their folder does not say.
        load: further arguments of `from_pretrained` (quantisation, trust in remote code).
    Returns:
        Largest absolute difference divided by the largest absolute logit.
    Raises:
        TrainingError: the folder cannot be loaded, lacks weights, or computes something else.
    """
    # else the copy is sharded over ranks that do not take part
    unset_hf_deepspeed_config()
    adapter = (folder / "adapter_config.json").is_file()
    dtype = adapted_dtype if adapter else AutoConfig.from_pretrained(folder).dtype
    info: dict[str, Any] = {}
    adapted: Any = load_adapted_scorer if scorer else AutoPeftModelForCausalLM.from_pretrained
    whole: Any = AutoModelForSequenceClassification if scorer else AutoModelForCausalLM
    try:
        if adapter:
            model: Any = adapted(str(folder), dtype=dtype, **load)
        else:
            loaded: Any = whole.from_pretrained(folder, dtype=dtype, output_loading_info=True, **load)
            model, info = loaded
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise TrainingError(_broken(folder, f"cannot be loaded: {error}")) from error
    missing = sorted(info.get("missing_keys", []))
    if missing:
        raise TrainingError(_broken(folder, f"lacks {len(missing)} weights, the first {missing[0]}"))
    saved = _logits(model, input_ids, model.device)
    difference = float((saved - trained).abs().max() / trained.abs().max().clamp(min=1e-6))
    tolerance = 1e-3 if exact and dtype == torch.float32 else 5e-2  # the copy runs on the CPU, training may not
    if not difference <= tolerance:
        raise TrainingError(
            _broken(folder, f"computes other logits than the trained model (relative difference {difference:.2g})")
        )
    return difference


def _broken(folder: Path, what: str) -> Problem:
    return Problem(
        "saved-model-differs",
        str(folder),
        f"The saved model {what}.",
        "the checkpoints are kept: load the newest checkpoint-* folder instead, and run the same command again.",
    )
