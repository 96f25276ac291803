"""A tiny untrained Llama with its tokenizer, built the same to the byte on every machine.

It stands in for the base model in `recipes/tiny/`: a byte-level BPE trained here on the bundled rows and weights
drawn from a fixed integer stream, so that the demo and the tests need no download.

    python -m tulu_recipes.demo.tiny_model FOLDER
"""

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tulu_recipes.demo import rows

BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<pad>"
VOCABULARY_SIZE = 1024
HIDDEN_SIZE = 128
LAYERS = 2
INITIALIZER_RANGE = 0.05
MAX_LENGTH = 512
SEED = 7


def build(folder: str | Path) -> None:
    """Write the tiny base model and its tokenizer into `folder`; a folder that is already there is left as it is.

    The folder appears whole or not at all: everything is written beside it first and then renamed.
    """
    folder = Path(folder)
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        staging = Path(scratch) / "model"
        tokenizer = build_tokenizer()
        tokenizer.save_pretrained(staging)
        build_model(tokenizer).save_pretrained(staging)
        shutil.move(staging, folder)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so any text comes back as it went in; like Llama's it puts BOS in front of plain text.

    It has no chat template, as a base model's has none: the recipe brings one.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_tokenizer_text(), trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=MAX_LENGTH
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama for `tokenizer`, its matrices uniform with standard deviation `initializer_range`."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=3 * HIDDEN_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).float()
    # torch's normal_ rounds differently on other CPU kinds; raw integers and one product do not.
    stream = np.random.PCG64(SEED)
    bound = np.float32(math.sqrt(3) * INITIALIZER_RANGE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                integers = (stream.random_raw(parameter.numel()) >> 40).astype(np.float32)
                uniform = (integers / np.float32(2**23) - np.float32(1)) * bound
                parameter.copy_(torch.from_numpy(uniform).view_as(parameter))
    return model


def _tokenizer_text() -> list[str]:
    """Each distinct turn of the training rows under its role header, in row order."""
    train, _ = rows.build_rows()
    turns = {f"<|{message['role']}|>\n{message['content']}\n": None for row in train for message in row["messages"]}
    return list(turns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo.tiny_model", description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
