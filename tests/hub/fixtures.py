"""The test Hub as a pytest fixture, and the way clients are run against it.

HF_ENDPOINT is read when huggingface_hub is imported, so clients run in a subprocess with `hub.env()`. Several checks
go into one subprocess: its start costs a second.

In the root conftest: `from tests.hub.fixtures import hub, hub_server`.
"""

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.hub.server import HubServer

TOKENS = {
    "write": "hf_AliceWriteToken",
    "read": "hf_AliceReadToken",
    "expired": "hf_AliceExpiredToken",
    "fine": "hf_AliceFineToken",
    "stranger": "hf_BobWriteToken",
    "wrong": "hf_NobodyKnowsThisToken",
}


def client_settings(endpoint: str, token: str, home: str) -> dict[str, str]:
    """The variables that point a Hugging Face client at `endpoint`; token "" means none."""
    quiet = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK", "HF_HUB_DISABLE_PROGRESS_BARS")
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_TOKEN": token}
    # Xet uploads bypass the Hub's own routes; its storage server is not part of the test Hub.
    return settings | {"HF_HUB_DISABLE_XET": "1"} | dict.fromkeys(quiet, "1")


class RunningHub(HubServer):
    """A HubServer on a loopback port."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "server")
        self.root = root
        self.tokens = TOKENS
        self._homes = 0

    def env(self, token: str | None = "write", **more: str) -> dict[str, str]:
        """A client's whole environment with a new HF_HOME; token: its name in TOKENS or its value, None for none."""
        self._homes += 1
        home = str(self.root / f"home-{self._homes}")
        ours = ("HF_", "HUGGING", "TRANSFORMERS_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        value = TOKENS.get(token, token) if token is not None else ""
        return inherited | client_settings(self.endpoint, value, home) | {"OMP_NUM_THREADS": "1"} | more

    def run(self, code: str, token: str | None = "write", *, env: dict[str, str] | None = None) -> Any:
        """Run client code in a subprocess; what it assigns to `result` (JSON) comes back."""
        code = textwrap.dedent(code) + "\nimport json as _json\nprint('\\n' + _json.dumps(result))\n"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env or self.env(token), capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def serve(root: Path) -> Iterator[RunningHub]:
    hub = RunningHub(root)
    listener = socket.create_server(("127.0.0.1", 0))
    hub.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(hub, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the test Hub did not start"
        time.sleep(0.01)
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with serve(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def hub(hub_server: RunningHub) -> RunningHub:
    """An empty Hub, without faults and with an empty log."""
    hub_server.heal()
    hub_server.store.repos.clear()
    hub_server.requests.clear()
    hub_server.quote_token = False
    hub_server.lose_on_commit = {}
    return hub_server
