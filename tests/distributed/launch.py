"""Start two processes as a user does, on a port of their own."""

import os
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import psutil

from tests.stage import QUIET

ROOT = Path(__file__).parents[2]
CONFIGS = Path(__file__).with_name("configs")
# A minute and a half of these is for the first launch of a machine, when DeepSpeed compiles its shared-memory operator
TIMEOUT = 240.0


def launch_command(config: str, *script: str) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*accelerate, "--config_file", str(CONFIGS / f"{config}.yaml"), "--main_process_port", str(port), *script]


def environment() -> dict[str, str]:
    # DeepSpeed compiles again whenever another environment (by its path) was the last to use the cache
    cache = Path.home() / ".cache" / "torch_extensions" / f"tests-{zlib.crc32(sys.prefix.encode()):08x}"
    cache.mkdir(parents=True, exist_ok=True)
    own = {"CUDA_VISIBLE_DEVICES": "", "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", str(cache))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | QUIET | own | {"PYTHONPATH": os.pathsep.join(paths)}


def kill_all(process: subprocess.Popen[str]) -> None:
    """kill -9 for the launcher and its ranks, which torch starts in sessions of their own."""
    launcher = psutil.Process(process.pid)
    for found in [launcher, *launcher.children(recursive=True)]:
        found.send_signal(signal.SIGKILL)


def launch(config: str, *script: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run to the end, and leave no process behind when that takes too long."""
    process = subprocess.Popen(
        launch_command(config, *script),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_all(process)
        output, _ = process.communicate()
        raise AssertionError(f"{config} did not end in {timeout:.0f} s:\n{output[-4000:]}") from None
    return subprocess.CompletedProcess(script, process.returncode, output)
