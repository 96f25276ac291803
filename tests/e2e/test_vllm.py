"""The folder that SFT leaves is a model that vLLM serves: its greedy answers are those of transformers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stage import QUIET, run_sft, write_recipe
from tests.tiny import conversation, save_base, write_rows

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM; `make setup` installs it"),
]

# A process of its own: vLLM's engine keeps threads and memory until its process ends. Its CPU build would take
# bfloat16 for a float32 checkpoint, and compile for most of a minute.
ANSWER = """
import json, sys
from vllm import LLM, SamplingParams
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=256, gpu_memory_utilization=0.1)
outputs = llm.chat(prompts, SamplingParams(temperature=0.0, max_tokens=12))
print("\\n" + json.dumps([output.outputs[0].text for output in outputs]))
"""


@pytest.mark.timeout(400)
def test_vllm_and_transformers_give_the_same_answers_with_the_saved_folder(tmp_path: Path) -> None:
    rows = [conversation(i, 1, 9) for i in range(16)]
    heldout = write_rows(tmp_path / "heldout.jsonl", rows)
    save_base(tmp_path / "base", hidden_size=128)  # vLLM's CPU attention knows heads of 32 and more
    recipe = write_recipe(
        tmp_path,
        rows,
        num_train_epochs=30,
        save_strategy="no",
        eval_dataset_name=str(heldout),
        sample_rows=6,
        sample_max_new_tokens=12,
    )
    done = run_sft(recipe, timeout=200)
    assert done.returncode == 0, done.stderr
    samples = json.loads((tmp_path / "run" / "samples.json").read_text(encoding="utf-8"))
    prompts = [[{"role": "user", "content": sample["prompt"]}] for sample in samples]
    served = subprocess.run(
        [sys.executable, "-c", ANSWER, str(tmp_path / "run"), json.dumps(prompts)],
        env=os.environ | QUIET | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert served.returncode == 0, served.stderr[-4000:]
    answers = json.loads(served.stdout.strip().splitlines()[-1])
    assert answers == [sample["after"] for sample in samples]
    assert len(set(answers)) > 1  # it says something, and not always the same
