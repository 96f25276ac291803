"""What vLLM's CPU build and TRL need to train together; nothing here touches a run on a GPU.

Applied by `OnlineTrainer` when a run on the CPU asks for `use_vllm`. Three gaps, each with what ends it:

- vLLM repacks linear layers for its CPU kernels and drops the weight that TRL's sync writes to. Until vLLM's
  `dispatch_cpu_unquantized_gemm` keeps weights that can be loaded again (`load_weights` after the engine is built).
- TRL passes colocated engines no dtype, and `auto` makes bfloat16 of a float32 policy. Until TRL passes the policy's.
- TRL sends weights to a server through NCCL alone. Until vLLM registers a transfer engine that needs no accelerator.
"""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

# Compiling takes most of a minute on a CPU and gives the same numbers.
CPU_ENGINE = {"dtype": "float32", "enforce_eager": True}
WORKER = "tulu_recipes.trainers.vllm_cpu.CpuWorker"


def keep_weight(layer: Any, remove_weight: bool) -> None:
    """In place of vLLM's choice of a packed kernel: the plain product with the weight as it is loaded."""
    layer.cpu_linear = torch.nn.functional.linear


@contextmanager
def cpu_vllm() -> Iterator[None]:
    """Engines and clients that TRL builds within work, and take new weights, on the CPU."""
    import vllm.model_executor.layers.utils as layers
    from trl.generation import vllm_generation

    replaced = [
        (layers, "dispatch_cpu_unquantized_gemm", keep_weight),
        (vllm_generation, "LLM", functools.partial(vllm_generation.LLM, **CPU_ENGINE)),
        (vllm_generation, "VLLMClient", disk_client(vllm_generation.VLLMClient)),
    ]
    originals = [getattr(module, name) for module, name, _ in replaced]
    for module, name, replacement in replaced:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)


def disk_client(base: Any) -> Any:
    """TRL's client, which hands weights to a server on this machine in a file."""

    class DiskClient(base):
        def init_communicator(self, device: Any = 0) -> None:
            self.exchange = Path(tempfile.mkdtemp(prefix="policy-"))
            atexit.register(self.close_communicator)

        def update_named_params(self, metadata: Any, named_params: Iterator[tuple[str, torch.Tensor]]) -> None:
            from safetensors.torch import save_file

            weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in named_params}
            save_file(weights, self.exchange / "model.safetensors")
            body = {"method": "load_policy", "kwargs": {"folder": str(self.exchange)}}
            self._post(f"{self.base_url}/collective_rpc", json=body)

        def close_communicator(self) -> None:
            shutil.rmtree(self.exchange, ignore_errors=True)

    return DiskClient


class CpuWorker:
    """Beside the worker of a CPU server: `--worker-extension-cls tulu_recipes.trainers.vllm_cpu.CpuWorker`."""

    def load_policy(self, folder: str) -> None:
        """Take the weights in a folder. Tied output embeddings are packed anew, which vLLM's reload forgets."""
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        runner: Any = self.model_runner  # type: ignore[attr-defined]
        runner.reload_weights(weights_path=folder)
        dispatch_cpu_unquantized_gemm(runner.get_model().lm_head, remove_weight=False)
