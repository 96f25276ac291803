"""A stand-in for a vLLM server on loopback: TRL's protocol over the tiny model, slow, mortal, and with a memory.

What it says is a function of its weights, the prompt and the sample's number, so that runs can be compared.
"""

import importlib.util
import json
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.tiny import tiny_tokenizer

NEEDS_TRL_CLIENT = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="TRL's client is there with vLLM alone"
)


class StandIn:
    """events: what it was asked, in order: ("weights", checksum) and ("rollout", prompts, checksum at its end)."""

    def __init__(self, base: Path, weight_transfer: dict[str, str] | None = None) -> None:
        self.base, self.weight_transfer = base, weight_transfer
        self.delay = 0.0  # seconds a rollout
        self.events: list[tuple[Any, ...]] = []
        self.dies_at: int | None = None  # the rollout (from 0) at whose request it dies
        self.comes_back_after: float | None = None
        self.rollouts = self.starts = 0
        self._server = self._listen(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> ThreadingHTTPServer:
        self.model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()
        self.starts += 1
        handler = type("Handler", (_Handler,), {"stand_in": self})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    def die(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self.comes_back_after is not None:
            threading.Timer(self.comes_back_after, self.start).start()
            self.comes_back_after = None

    def start(self) -> None:
        self._server = self._listen(self.port)

    def checksum(self) -> int:
        return checksum(self.model)

    # ---- what it answers

    def get(self, path: str) -> dict[str, Any]:
        return {
            "/health": {},
            "/get_world_size": {"world_size": 1},
            "/v1/models": {"data": [{"id": "policy"}]},
            "/server_info": {
                "vllm_config": {
                    "instance_id": str(self.starts),
                    "weight_transfer_config": self.weight_transfer,
                    "model_config": {"logprobs_mode": "processed_logprobs"},
                }
            },
        }[path.split("?")[0]]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/v1/completions":
            return self._rollout(body)
        if path == "/collective_rpc":
            assert body["method"] == "load_policy"
            weights = load_file(Path(body["kwargs"]["folder"]) / "model.safetensors")
            self.model.load_state_dict(weights, strict=False)
            self.events.append(("weights", self.checksum()))
        return {}

    def _rollout(self, body: dict[str, Any]) -> dict[str, Any] | None:
        number, self.rollouts = self.rollouts, self.rollouts + 1
        if number == self.dies_at:
            self.die()
            return None
        time.sleep(self.delay)
        choices = [
            self._complete(prompt, sample, body["max_tokens"])
            for prompt in body["prompt"]
            for sample in range(body["n"])
        ]
        self.events.append(("rollout", body["prompt"], self.checksum()))
        return {"choices": choices}

    @torch.no_grad()
    def _complete(self, prompt: list[int], sample: int, length: int) -> dict[str, Any]:
        draws = torch.Generator().manual_seed(zlib.crc32(json.dumps([prompt, sample]).encode()))
        ids, logprobs = list(prompt), []
        for _ in range(length):
            scores = self.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(torch.multinomial(scores.exp(), 1, generator=draws)))
            logprobs.append(float(scores[ids[-1]]))
            if ids[-1] == self.model.config.eos_token_id:
                break
        answer = ids[len(prompt) :]
        tokens = [f"token_id:{token}" for token in answer]
        return {
            "prompt_token_ids": prompt,
            "token_ids": answer,
            "logprobs": {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": [{}] * len(tokens)},
        }


def checksum(model: torch.nn.Module) -> int:
    value = 0
    for tensor in model.parameters():
        value = zlib.crc32(tensor.detach().numpy().tobytes(), value)
    return value


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn

    def do_GET(self) -> None:
        self._send(self.stand_in.get(self.path))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        answer = self.stand_in.post(self.path, body)
        if answer is not None:  # else it died over it: the connection closes without a word
            self._send(answer)

    def _send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


# ---- runs over it


def even_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def trainer(base: Path, server: StandIn, folder: Path, reward: Callable[..., Any] = even_tokens, **keys: Any) -> Any:
    """PPO of 8 steps, 2 a rollout of 4 prompts; an epoch is 2 rollouts."""
    from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer

    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "steps_per_generation": 1,
        "num_iterations": 2,
        "max_completion_length": 4,
        "max_steps": 8,
        "learning_rate": 1e-3,
        "rollout_lag": 1,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 1.05,
        "save_strategy": "no",
    } | keys
    args = PPOConfig(
        output_dir=str(folder),
        use_vllm=True,
        vllm_mode="server",
        vllm_server_base_url=server.url,
        logging_steps=1,
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
        **settings,
    )
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"the cat sat on {i}"}]} for i in range(10)])
    return PPOTrainer(
        model=str(base), reward_funcs=reward, args=args, train_dataset=rows, processing_class=tiny_tokenizer()
    )


def logged(run: Any, key: str) -> list[float]:
    return [line[key] for line in run.state.log_history if key in line]
