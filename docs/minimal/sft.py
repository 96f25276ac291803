"""Supervised fine-tuning as Tülu 3 does it, in plain PyTorch: what `tulu_recipes.sft` computes, and nothing around it.

    python docs/minimal/sft.py MODEL ROWS.jsonl OUTPUT_FOLDER

One process, one conversation at a time, whole model in float32. Read it from top to bottom: a test holds its losses
and weights against those of SFTTrainer. What the stage adds (checks, many GPUs, resuming) is in docs/sft.md.
"""

import json
import math
import random
import sys

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer


def render(messages, eos):
    """The conversation as text, and the character spans that the assistant wrote (its EOS included)."""
    text, spans = "", []
    for number, message in enumerate(messages, start=1):
        text += f"<|{message['role']}|>\n"
        if message["role"] == "assistant":
            spans.append((len(text), len(text) + len(message["content"] + eos)))
            text += message["content"] + eos + ("\n" if number < len(messages) else "")
        else:
            text += message["content"] + "\n"
    return text, spans


def encode(messages, tokenizer, max_length):
    """Token ids (L,), and labels (L,): the same ids where the assistant wrote, -100 (no loss) elsewhere."""
    text, spans = render(messages, tokenizer.eos_token)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(start <= begin < end for start, end in spans) else -100
        for token, (begin, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return torch.tensor(encoded["input_ids"][:max_length]), torch.tensor(labels[:max_length])


def batches(rows, sequences_per_step, epochs, seed):
    """Every row once an epoch, in a new order each time; the last batch of an epoch may be short."""
    order = random.Random(seed)
    for _ in range(epochs):
        shuffled = order.sample(rows, len(rows))
        for start in range(0, len(rows), sequences_per_step):
            yield shuffled[start : start + sequences_per_step]


def learning_rate_factor(step, num_steps, warmup_steps):
    """0 to 1 over the warm-up, then 1 to 0 over the rest."""
    if step < warmup_steps:
        return step / warmup_steps
    return (num_steps - step) / (num_steps - warmup_steps)


def train(model, steps, *, learning_rate=5e-6, warmup_fraction=0.03, max_grad_norm=1.0):
    """Train in place on `steps`, a list of batches of (ids, labels); yields the mean token loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    warmup_steps = math.ceil(warmup_fraction * len(steps))
    model.train()
    for number, batch in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(number, len(steps), warmup_steps)
        loss_sum, num_tokens = 0.0, 0
        for ids, labels in batch:
            logits = model(input_ids=ids[None]).logits[0]
            # the logits at one position are about the token at the next
            token_losses = cross_entropy(logits[:-1].float(), labels[1:], reduction="sum", ignore_index=-100)
            # The sum loss: token losses of the whole batch over its number of sequences. Every token of the batch
            # weighs the same, and a batch with more tokens makes a larger step (before clipping).
            (token_losses / len(batch)).backward()
            loss_sum += token_losses.item()
            num_tokens += int((labels[1:] != -100).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss_sum / num_tokens


def main(model_name, rows_path, output_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32)
    with open(rows_path, encoding="utf-8") as lines:
        rows = [encode(json.loads(line)["messages"], tokenizer, max_length=4096) for line in lines]
    rows = [row for row in rows if (row[1] != -100).any()]
    steps = list(batches(rows, sequences_per_step=128, epochs=2, seed=123))
    for number, loss in enumerate(train(model, steps), start=1):
        print(f"step {number}/{len(steps)} · loss {loss:.4f}")
    model.save_pretrained(output_folder)
    tokenizer.save_pretrained(output_folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
