"""The CPU shim patches names that are there, for gaps that are still open; a red test here says which part can go."""

import inspect
from pathlib import Path

import pytest
import torch

from tests.tiny import save_base
from tests.trainers.vllm_stand_in import NEEDS_TRL_CLIENT, StandIn
from tulu_recipes.trainers.vllm_cpu import CPU_ENGINE, WORKER, CpuWorker, cpu_vllm, keep_weight

pytestmark = [pytest.mark.integration, NEEDS_TRL_CLIENT]


def layer() -> torch.nn.Linear:
    return torch.nn.Linear(128, 128, bias=False).requires_grad_(False)


def test_vllm_still_drops_weights_that_it_packs() -> None:
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    packed = layer()
    dispatch_cpu_unquantized_gemm(packed, remove_weight=True)
    assert packed.weight.numel() == 0
    kept = layer()
    keep_weight(kept, remove_weight=True)
    rows = torch.randn(3, 128)
    assert torch.equal(kept.cpu_linear(rows, kept.weight, None), rows @ kept.weight.T)


def test_trl_still_passes_no_dtype_to_a_colocated_engine() -> None:
    from trl.generation.vllm_generation import VLLMGeneration

    engine = inspect.getsource(VLLMGeneration._init_vllm).split("self.llm = LLM(")[1]
    assert not [name for name in CPU_ENGINE if f"{name}=" in engine]


def test_trl_still_sends_weights_to_accelerators_alone(tmp_path: Path) -> None:
    from trl.generation import vllm_generation

    server = StandIn(save_base(tmp_path), weight_transfer={"backend": "nccl"})
    try:
        client = vllm_generation.VLLMClient(server.url)
        with pytest.raises(NotImplementedError, match="needs a CUDA device"):
            client.init_communicator("cpu")
    finally:
        server.die()


def test_what_is_patched_is_put_back() -> None:
    import vllm.model_executor.layers.utils as layers
    from trl.generation import vllm_generation

    def patched() -> list[object]:
        return [layers.dispatch_cpu_unquantized_gemm, vllm_generation.LLM, vllm_generation.VLLMClient]

    before = patched()
    with cpu_vllm():
        within = patched()
        assert within[0] is keep_weight
        assert within[1].keywords == CPU_ENGINE
        assert issubclass(within[2], before[2])
    assert patched() == before
    assert f"{CpuWorker.__module__}.{CpuWorker.__qualname__}" == WORKER
