"""`python -m tulu_recipes.sft` with the FSDP2 shim of this folder, for `accelerate launch`."""

import runpy
import sys

import tests.distributed.shim  # noqa: F401

if __name__ == "__main__":
    sys.argv[0] = "tulu_recipes.sft"
    runpy.run_module("tulu_recipes.sft", run_name="__main__")
