"""The folders that SFT and the reward stage leave are models that vLLM serves: answers and scores of transformers."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.stage import QUIET, run_here, run_sft, write_pair_recipe, write_recipe
from tests.tiny import conversation, pair, save_base, write_rows

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM; `make setup` installs it"),
]

# A process of its own, and one for both engines: vLLM's keep threads and memory until their process ends, and it takes
# long to import. Its CPU build would take bfloat16 for a float32 checkpoint, and compile for most of a minute.
ASK = """
import json, sys
from vllm import LLM, SamplingParams
writer, prompts, scorer, rows = (json.loads(argument) for argument in sys.argv[1:])
engine = dict(dtype="float32", enforce_eager=True, max_model_len=256, gpu_memory_utilization=0.1)
outputs = LLM(writer, **engine).chat(prompts, SamplingParams(temperature=0.0, max_tokens=12))
scores = LLM(scorer, runner="pooling", **engine).classify([{"prompt_token_ids": ids} for ids in rows])
print("\\n" + json.dumps([[one.outputs[0].text for one in outputs], [one.outputs.probs for one in scores]]))
"""


@dataclass(frozen=True)
class Served:
    """What vLLM and what transformers says of the same prompts and conversations."""

    answers: list[str]
    expected_answers: list[str]
    scores: list[list[float]]
    expected_scores: list[float]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("vllm")
    base = save_base(folder / "base", hidden_size=128)  # vLLM's CPU attention knows heads of 32 and more
    samples = train_writer(folder / "writer", base)
    prompts = [[{"role": "user", "content": sample["prompt"]}] for sample in samples]
    rows, expected = train_scorer(folder / "scorer", base)
    arguments = [str(folder / "writer" / "run"), prompts, str(folder / "scorer" / "run"), rows]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *map(json.dumps, arguments)],
        env=os.environ | QUIET | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answers, scores = json.loads(done.stdout.strip().splitlines()[-1])
    return Served(answers, [sample["after"] for sample in samples], scores, expected)


def train_writer(folder: Path, base: Path) -> list[dict[str, str]]:
    """The samples of an SFT run in `folder`/run."""
    folder.mkdir()
    rows = [conversation(i, 1, 9) for i in range(16)]
    recipe = write_recipe(
        folder,
        rows,
        model_name_or_path=str(base),
        num_train_epochs=30,
        save_strategy="no",
        eval_dataset_name=str(write_rows(folder / "heldout.jsonl", rows)),
        sample_rows=6,
        sample_max_new_tokens=12,
    )
    done = run_sft(recipe, timeout=200)
    assert done.returncode == 0, done.stderr
    samples: list[dict[str, str]] = json.loads((folder / "run" / "samples.json").read_text(encoding="utf-8"))
    return samples


def train_scorer(folder: Path, base: Path) -> tuple[list[list[int]], list[float]]:
    """Conversations as tokens, and the scores that the reward run in `folder`/run gives them one by one."""
    keys: dict[str, Any] = {"save_strategy": "no", "learning_rate": 1e-2, "model_name_or_path": str(base)}
    done = run_here("reward", write_pair_recipe(folder, **keys))
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(folder / "run")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "run")
    rows = [tokenizer.apply_chat_template(pair(i, 1 + i % 3)["chosen"], return_dict=False) for i in range(8)]
    with torch.no_grad():
        return rows, [model(input_ids=torch.tensor([ids])).logits.item() for ids in rows]


def test_vllm_and_transformers_give_the_same_answers_with_the_saved_folder(served: Served) -> None:
    assert served.answers == served.expected_answers
    assert len(set(served.answers)) > 1  # it says something, and not always the same


def test_vllm_and_transformers_give_the_same_scores_with_the_saved_folder(served: Served) -> None:
    assert [len(score) for score in served.scores] == [1] * 8
    found = [score[0] for score in served.scores]
    assert found == pytest.approx(served.expected_scores, abs=1e-3)
    assert max(found) > 1  # no sigmoid
    assert len({round(score, 3) for score in found}) > 4
