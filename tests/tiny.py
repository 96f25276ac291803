"""A random two-layer Llama and a tokenizer trained in a moment: what integration tests train on."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tulu_recipes.data.template import TULU_TEMPLATE

WORDS = "the cat sat on a mat and then it said hello how many legs has three four two one red blue green".split()


def tiny_tokenizer(**special: str | None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with BOS, EOS and (unless pad_token=None) a padding token of its own; Tülu template."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | special
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=sorted({name for name in names.values() if name}),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TULU_TEMPLATE.read_text(encoding="utf-8"),
        **{key: value for key, value in names.items() if value},
    )


def tiny_model(vocab_size: int = 320, seed: int = 0, **config: object) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
    } | config
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **settings))


def conversation(number: int, turns: int = 1, answer_words: int = 3) -> dict[str, object]:
    """A deterministic chat whose answers differ in length with `number`."""
    messages = []
    for turn in range(turns):
        start = number * 7 + turn * 3
        length = 1 + (number * 5 + turn) % answer_words
        messages.append({"role": "user", "content": " ".join(WORDS[(start + i) % len(WORDS)] for i in range(4))})
        messages.append(
            {"role": "assistant", "content": " ".join(WORDS[(start + 5 + i) % len(WORDS)] for i in range(length))}
        )
    return {"messages": messages, "source": f"source-{number % 2}"}


def pair(number: int, turns: int = 1) -> dict[str, object]:
    """A deterministic preference pair in the published layout, whose answers differ in length and in no other turn."""
    chosen = conversation(number, turns, 9)["messages"]
    assert isinstance(chosen, list)
    words = [WORDS[(number * 3 + 2 * i) % len(WORDS)] for i in range(1 + (number * 3) % 7)]
    rejected = [*chosen[:-1], {"role": "assistant", "content": " ".join(["no", *words])}]
    source = f"source-{number % 2}"
    return {"prompt": chosen[-2]["content"], "chosen": chosen, "rejected": rejected, "source": source}


def save_base(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **config: object) -> Path:
    """A model folder as `from_pretrained` reads it."""
    tokenizer = tokenizer or tiny_tokenizer()
    model = tiny_model(len(tokenizer), **config)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
