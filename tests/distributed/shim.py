"""Test only: lets accelerate run FSDP2 on CPU processes, which it otherwise runs as DDP without a word.

accelerate 1.15 engages FSDP for distributed_type MULTI_GPU only; it calls two gloo processes on the CPU MULTI_CPU.
Import before TrainingArguments are made, with use_cpu left false.
Expires: when accelerate runs `distributed_type: FSDP` on CPU itself; test_fallbacks.py then fails, and this file goes.
"""

import os
from typing import Any

from accelerate.state import DistributedType, PartialState


def _gloo_as_if_on_gpus(self: PartialState, *args: Any, **kwargs: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
PartialState._prepare_backend = _gloo_as_if_on_gpus
