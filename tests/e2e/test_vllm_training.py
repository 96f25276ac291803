"""A real vLLM engine: PPO with weights sent for every rollout, resuming, and the same answers from both engines."""

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.stage import QUIET

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM; `make setup` installs it"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.vllm_training", str(tmp_path_factory.mktemp("vllm"))],
        env=os.environ | QUIET | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]  # the engines ended with it, and in order
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_sampler_and_trainer_agree_on_every_rollout_after_weights_moved(report: dict[str, Any]) -> None:
    start, trained, _ = report["weights"]
    assert start != trained
    assert len(report["differences"]) == 3
    assert max(report["differences"]) <= 1e-3


def test_a_run_resumed_in_the_midst_of_a_rollout_equals_the_unbroken_one(report: dict[str, Any]) -> None:
    _, whole, resumed = report["weights"]
    assert resumed == whole


def test_greedy_answers_are_those_of_transformers(report: dict[str, Any]) -> None:
    greedy = report["vllm"]["greedy"]
    assert greedy == report["transformers"]["greedy"]
    assert len({text for ((text, _, _),) in greedy}) > 1
    _, ids, reason = greedy[0][0]  # ended by a token of the generation config that the tokenizer does not name
    assert (ids[-1], reason) == (report["end"][1], "stop")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_drawn_answers_depend_on_seed_prompt_and_number_alone(report: dict[str, Any], engine: str) -> None:
    found = report[engine]
    assert found["backwards"] == found["drawn"][:1:-1]
    assert found["other seed"] != found["drawn"]
    assert all(first != second for first, second in found["drawn"])
    for _, ids, reason in (answer for answers in found["drawn"] for answer in answers):
        assert reason == ("length" if len(ids) == 12 and ids[-1] not in report["end"] else "stop")
