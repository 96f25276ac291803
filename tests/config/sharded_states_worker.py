"""One rank of a two-process SFT run on CPU: writes what lives between steps. Started by test_sharded_memory.py."""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

SHARDING, OUTPUT = sys.argv[1], Path(sys.argv[2])
if SHARDING == "fsdp2":
    # accelerate leaves FSDP2 out on CPU and runs DDP instead, without a word; this makes it go on.
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    from accelerate.state import DistributedType, PartialState

    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def live_bytes() -> int:
    """Bytes of every tensor storage that Python can still reach on this rank."""
    import torch

    gc.collect()
    sizes = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            local = thing.to_local() if hasattr(thing, "to_local") else thing
            storage = local.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def main() -> None:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    sizes = json.loads(sys.argv[3])
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    rows = [{"input_ids": torch.randint(3, sizes["vocab_size"], (32,)).tolist()} for _ in range(4)]
    with tempfile.TemporaryDirectory() as directory:
        trainer = SFTTrainer(
            model=LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0, eos_token_id=1, bos_token_id=None)),
            args=SFTConfig(
                output_dir=directory,
                use_cpu=SHARDING != "fsdp2",
                bf16=False,
                max_steps=2,
                per_device_train_batch_size=1,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
        if trainer.accelerator.is_main_process:
            found = {"live": live_bytes(), "processes": trainer.accelerator.num_processes}
            OUTPUT.write_text(json.dumps(found))
        trainer.accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


main()
