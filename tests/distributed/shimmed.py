"""`python -m MODULE …` with the FSDP2 shim of this folder, for `accelerate launch`: shimmed.py MODULE …"""

import runpy
import sys

import tests.distributed.shim  # noqa: F401

if __name__ == "__main__":
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__")
