"""What two processes keep between steps under ZeRO and FSDP2, against the estimate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tulu_recipes.config.memory import REDUCE_BUCKET, estimate_memory
from tulu_recipes.config.model_shape import ModelShape

SIZES = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 1536,
    "vocab_size": 2000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LAUNCH = {"num_processes": 2, "num_machines": 1, "mixed_precision": "no", "use_cpu": False}
SMALL_BUCKET = {
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 5_000_000},
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
CONFIGS = {
    "zero2": {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2, "zero3_init_flag": False}},
    "zero3": {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3, "zero3_init_flag": True}},
    "fsdp2": {
        "distributed_type": "FSDP",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
        },
    },
}


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("sharding", CONFIGS)
def test_what_a_rank_keeps_between_steps_is_its_share(sharding, tmp_path):
    config, output = tmp_path / "launch.yaml", tmp_path / "found.json"
    launcher = LAUNCH | CONFIGS[sharding]
    if sharding == "zero2":
        # its bucket is gone between steps, and takes most of a minute to reduce at its full 2 GB
        (tmp_path / "zero2.json").write_text(json.dumps(SMALL_BUCKET))
        launcher |= {"deepspeed_config": {"deepspeed_config_file": str(tmp_path / "zero2.json")}}
        del launcher["mixed_precision"]  # accelerate wants it in that file alone
    config.write_text(yaml.safe_dump(launcher))
    worker = Path(__file__).with_name("sharded_states_worker.py")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    run = subprocess.run(
        [*launch, str(worker), sharding, str(output), json.dumps(SIZES)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert output.exists(), run.stderr[-2000:]
    found = json.loads(output.read_text())
    assert found["processes"] == 2

    memory = estimate_memory(
        ModelShape.from_config({"model_type": "llama"} | SIZES),
        sharding=sharding,
        num_processes=2,
        per_device_train_batch_size=1,
        max_length=32,
        weights_dtype="float32",
        mixed_precision="no",
        device="cpu",
    )
    kept = memory.weights + memory.masters + memory.optimizer
    if sharding == "zero3":  # set aside at the start: its gradients and the reduce bucket
        kept += memory.gradients + 4 * REDUCE_BUCKET
    assert found["live"] == pytest.approx(kept, rel=0.02)
