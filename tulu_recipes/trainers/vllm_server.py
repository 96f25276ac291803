"""A vLLM server that is asked one rollout ahead, and that may die and come back: what is put around TRL's client.

Only the main process talks to the server. What every process must do together (weights are gathered from all of them)
is in `ServerGeneration`; what the main process does alone is in `ServerRequests`, and in a thread only the request.
"""

import logging
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import requests
import torch
from accelerate.utils import broadcast_object_list
from requests.adapters import HTTPAdapter
from trl.generation.vllm_generation import VLLMGeneration

logger = logging.getLogger(__name__)

ATTEMPTS = 3  # of one rollout, or of one sending of weights; each waits for the server as long as it may be away
UNANSWERED: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "logprob_token_ids": None}


class ServerLost(RuntimeError):
    """The server did not come back in time. Raised on every process."""


class Ahead:
    """A request under way in a thread, and later its answer."""

    def __init__(self, prompts: list[list[int]], output: dict[str, Any] | None = None, seconds: float = 0.0) -> None:
        self.prompts, self.output, self.seconds = prompts, output, seconds
        self.error: requests.RequestException | None = None
        self._thread: Thread | None = None

    def start(self, call: Callable[[], dict[str, Any]]) -> None:
        # a daemon: a run that stops need not wait for completions that nobody will read
        self._thread = Thread(target=self._work, args=(call,), daemon=True)
        self._thread.start()

    def _work(self, call: Callable[[], dict[str, Any]]) -> None:
        start = time.perf_counter()
        try:
            self.output = call()
        except requests.RequestException as error:
            self.error = error
        self.seconds = time.perf_counter() - start

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            if self.output is None and self.error is None:
                raise RuntimeError("the request for the next rollout failed; its traceback is above")


class ServerRequests:
    """TRL's client (`client`), whose next rollout may be asked for ahead, and whose losses are told, not raised.

    waited, generated: seconds that the trainer stood still for the last rollout, and that the server took for it.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        # TRL's session sends a failed request again for a minute, and so to a restarted server, whose weights are
        # those of its start
        for scheme in ("http://", "https://"):
            client.session.mount(scheme, HTTPAdapter(max_retries=0, pool_maxsize=64))
        client.session.hooks["response"].append(_raise_server_fault)
        self.instance = self._instance()
        self.ahead: Ahead | None = None
        self.error: requests.RequestException | None = None  # of the last request, until the server is reached again
        self.collecting = False  # a training rollout, which may have been asked for ahead
        self.waited = self.generated = 0.0
        self._sampling: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    # ---- rollouts

    def generate(self, prompts: list[list[int]], **sampling: Any) -> dict[str, Any]:
        """As TRL's client; `UNANSWERED` where the server was lost."""
        if not self.collecting:
            return self._answer(prompts, sampling)
        self._sampling = sampling
        asked = self.ahead or Ahead(prompts)
        if asked.prompts != prompts:
            raise RuntimeError(
                "the rollout that was asked for ahead is of other prompts: rollout_lag needs rows in the order of the "
                "sampler, and one turn a completion"
            )
        self.join()
        self.ahead = None
        if asked.output is not None:
            self.generated = asked.seconds
            return asked.output
        self.error = asked.error
        if self.error is not None:
            return UNANSWERED
        start = time.perf_counter()
        output = self._answer(prompts, sampling)
        self.generated = time.perf_counter() - start
        self.waited += self.generated
        return output

    def _answer(self, prompts: list[list[int]], sampling: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.client.generate(prompts=prompts, **sampling)
        except requests.RequestException as error:
            self.error = error
            return UNANSWERED
        return answer

    def ask_ahead(self, prompts: list[list[int]]) -> None:
        """Ask for the rollout after the one just collected, with its sampling parameters, and return at once."""
        sampling = self._sampling
        self.ahead = Ahead(prompts)
        self.ahead.start(lambda: self.client.generate(prompts=prompts, **sampling))

    def join(self) -> None:
        """Wait for the request under way. Its weights must not change before it is answered."""
        if self.ahead is not None:
            start = time.perf_counter()
            self.ahead.join()
            self.waited += time.perf_counter() - start

    def state(self) -> dict[str, Any] | None:
        """The answer under way, for a checkpoint; None without one."""
        self.join()
        if self.ahead is None or self.ahead.output is None:
            return None
        return {"prompts": self.ahead.prompts, "output": self.ahead.output, "seconds": self.ahead.seconds}

    # ---- weights

    def update_named_params(self, metadata: Any, named_params: Iterator[tuple[str, torch.Tensor]]) -> None:
        self.join()
        try:
            self.client.update_named_params(metadata, named_params)
        except requests.RequestException as error:
            self.error = error
            for _ in named_params:  # the other processes gather each of them
                pass

    def reset_prefix_cache(self) -> None:
        try:
            self.client.reset_prefix_cache()
        except requests.RequestException as error:
            self.error = error

    # ---- a server that is away

    def reach(self, seconds: float, device: torch.device) -> str | None:
        """Wait for the server, at most `seconds`; one that was restarted is joined anew. What is wrong, else None."""
        self.join()
        deadline, pause = time.monotonic() + seconds, 0.25
        while True:
            try:
                instance = self._instance()
                if instance != self.instance:
                    logger.warning("The vLLM server at %s was restarted; it gets the weights anew.", self.base_url)
                    self.client.close_communicator()
                    self.client.init_communicator(device)
                    self.instance = instance
                self._forget_loss()
                return None
            except requests.RequestException as error:
                if pause == 0.25:
                    logger.warning(
                        "The vLLM server at %s is lost (%s); waiting up to %.0f s for it to come back.",
                        self.base_url,
                        type(error).__name__,
                        seconds,
                    )
                if time.monotonic() + pause > deadline:
                    return f"It did not come back within {seconds:.0f} s (vllm_server_timeout). {error}"
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    def _forget_loss(self) -> None:
        self.error = None
        if self.ahead is not None and self.ahead.output is None:
            self.ahead = None  # asked for again, with the weights that are sent now

    def _instance(self) -> Any:
        """What tells a server from the one that was started in its place."""
        return self.client.get_server_info().get("instance_id")


def _raise_server_fault(response: requests.Response, *args: Any, **kwargs: Any) -> None:
    if response.status_code >= 500:
        response.raise_for_status()


class ServerGeneration(VLLMGeneration):  # trl is untyped
    """TRL's, beside which the server may be lost. Made of one by `over_requests`. Every process calls both methods."""

    def sync_weights(self) -> None:
        for _ in range(ATTEMPTS):
            self._reach()
            super().sync_weights()
            if self._tell(lambda: self.vllm_client.error is None):
                return
        raise ServerLost(f"It was lost in each of {ATTEMPTS} sendings of the weights.")

    def generate(self, prompts: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        for _ in range(ATTEMPTS):
            found = super().generate(prompts, *args, **kwargs)
            if found[1]:
                return found
            self.sync_weights()
        raise ServerLost(f"It was lost in each of {ATTEMPTS} attempts at one rollout.")

    def _reach(self) -> None:
        wrong = self._tell(lambda: self.vllm_client.reach(self.server_timeout, self.accelerator.device))
        if wrong is not None:
            raise ServerLost(wrong)

    def _tell(self, ask: Callable[[], Any]) -> Any:
        """What the main process answers, on all of them."""
        told = [ask() if self.accelerator.is_main_process else None]
        broadcast_object_list(told, from_process=0)
        return told[0]


def over_requests(generation: Any) -> ServerGeneration:
    """TRL's generation in server mode, made to outlive its server."""
    generation.__class__ = ServerGeneration
    if generation.accelerator.is_main_process:
        generation.vllm_client = ServerRequests(generation.vllm_client)
    survivor: ServerGeneration = generation
    return survivor
