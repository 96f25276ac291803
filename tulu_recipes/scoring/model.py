"""Scores of conversations by a reward model, in batches of like length."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase


def load_reward_model(name: str, *, revision: str | None = None, adapter: bool | None = None) -> PreTrainedModel:
    """A reward model on this process's device, in the dtype it was saved in; an adapter is put on its base.

    Args:
        name: folder or Hub id.
        adapter: whether it is an adapter; None looks into the folder.
    """
    if adapter is None:
        adapter = (Path(name) / "adapter_config.json").is_file()
    model: Any
    if adapter:
        from tulu_recipes.trainers.reward import load_adapted_scorer  # with TRL, which takes seconds to import

        model = load_adapted_scorer(name, revision=revision, dtype="auto")
    else:
        model = AutoModelForSequenceClassification.from_pretrained(name, revision=revision, dtype="auto")
    loaded: PreTrainedModel = model.to(PartialState().device).eval()
    return loaded


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """The tokens of a whole conversation. Raises jinja2.TemplateError where the template refuses it."""
    encoded: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
    return list(encoded["input_ids"])


def score_tokens(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int,
    advance: Callable[[int], object] = lambda rows: None,
) -> list[float]:
    """The score of every row, at its last token. Rows must not be empty.

    Args:
        advance: told of every batch how many rows it had.
    """
    # the longest first: what does not fit into memory is known at once
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, score in zip(batch, _score_batch(model, [rows[i] for i in batch]), strict=True):
            scores[i] = score
        advance(len(batch))
    return scores


@torch.no_grad()
def _score_batch(model: PreTrainedModel, rows: list[Sequence[int]]) -> list[float]:
    """transformers takes the score at the last token that is not the padding token; so that this is the last token of
    each row, whatever it is, the batch is padded with a token that ends none of them. Attention does not see it.
    """
    ends = {ids[-1] for ids in rows}
    pad = next(token for token in count() if token not in ends)
    model.config.get_text_config().pad_token_id = pad
    width = max(map(len, rows))
    input_ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in rows])
    attention_mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows])
    logits = model(
        input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device), use_cache=False
    ).logits
    scores: list[float] = logits.float().squeeze(-1).tolist()
    return scores
