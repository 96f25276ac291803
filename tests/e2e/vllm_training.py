"""PPO with a colocated vLLM engine, resumed in the midst of a rollout, and both engines of sampling: one process.

Prints a JSON line. vLLM's engines keep threads and memory until their process ends, and take long to import.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.tiny import save_base, tiny_tokenizer
from tests.trainers.vllm_stand_in import checksum, even_tokens
from tulu_recipes.sampling import load_sampler
from tulu_recipes.trainers.ppo import PPOConfig, PPOTrainer

PROMPTS = [f"how many legs has {word}" for word in ("the cat", "it", "a blue mat and a red one", "four", "one hello")]


def trained(base: Path, folder: Path, checkpoint: str | None = None) -> Any:
    args = PPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_iterations=2,
        max_completion_length=8,
        max_steps=6,
        learning_rate=1e-3,
        save_steps=3,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=128,
        vllm_gpu_memory_utilization=0.05,
        logging_steps=1,
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}]} for prompt in PROMPTS])
    run = PPOTrainer(
        model=str(base), reward_funcs=even_tokens, args=args, train_dataset=rows, processing_class=tiny_tokenizer()
    )
    run.train(resume_from_checkpoint=checkpoint)
    return run


def sampled(sampler: Any) -> dict[str, Any]:
    drawn = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9, "seed": 3}
    return {
        "greedy": sampler.generate(PROMPTS, max_new_tokens=12),
        "drawn": sampler.generate(PROMPTS, n=2, **drawn),
        "backwards": sampler.generate(PROMPTS[:1:-1], n=2, **drawn),
        "other seed": sampler.generate(PROMPTS, n=2, **drawn | {"seed": 4}),
    }


def main(folder: Path) -> None:
    # heads of 32, which vLLM's CPU attention needs; tied embeddings are the harder case for new weights
    base = save_base(folder / "base", hidden_size=128, tie_word_embeddings=True)
    whole = trained(base, folder / "run")
    resumed = trained(base, folder / "run", str(folder / "run" / "checkpoint-3"))
    start = checksum(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    report: dict[str, Any] = {
        "eos": tiny_tokenizer().eos_token_id,
        "differences": [
            line["sampling/sampling_logp_difference/max"]
            for line in whole.state.log_history
            if "sampling/sampling_logp_difference/max" in line
        ],
        "weights": [start, checksum(whole.model), checksum(resumed.model)],
    }
    policy = folder / "policy"
    whole.save_model(str(policy))
    free = load_sampler(str(policy)).generate(PROMPTS[:1], max_new_tokens=12)[0][0].token_ids
    report["end"] = whole.model.generation_config.eos_token_id = [report["eos"], free[4]]
    whole.model.generation_config.save_pretrained(policy)
    for engine, options in (("transformers", {}), ("vllm", {"max_model_len": 128, "gpu_memory_utilization": 0.05})):
        report[engine] = sampled(load_sampler(str(policy), engine=engine, **options))
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
