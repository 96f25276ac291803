"""Greedy answers of a saved model to conversations, in batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import deepspeed

from tulu_recipes.data.template import encode_chat


def load_for_sampling(folder: str, *, dtype: str = "auto", revision: str | None = None) -> PreTrainedModel:
    """A model folder or Hub id, ready to generate on the accelerator at hand; adapters are put on their base."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, revision=revision)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


@contextmanager
def outside_zero3() -> Iterator[None]:
    """Load and generate within on this process alone, although the run around it shards its models (ZeRO-3).

    Otherwise `from_pretrained` keeps a shard of each weight, and `generate` waits for ranks that do not take part.
    """
    run_config = deepspeed._hf_deepspeed_config_weak_ref  # transformers has a setter for it, but no getter
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = run_config


@torch.no_grad()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
) -> list[str]:
    """Greedy answer to each conversation, which ends with a user turn; without the end-of-turn token.

    Padding is on the left and masked, with EOS, so that a model without a padding embedding can be sampled too.
    """
    answers = []
    for start in range(0, len(conversations), batch_size):
        batch = conversations[start : start + batch_size]
        prompts = [encode_chat(tokenizer, messages, add_generation_prompt=True)[0] for messages in batch]
        width = max(map(len, prompts))
        input_ids = torch.tensor([[tokenizer.eos_token_id] * (width - len(ids)) + ids for ids in prompts])
        attention_mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        output = model.generate(  # transformers types it as a tensor
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        answers += tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return answers
