"""What stands before the test Hub's routes: the log of requests, and outages on command."""

import asyncio
import re
from dataclasses import dataclass

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.hub.answers import bearer, drain


@dataclass
class Fault:
    """An outage of the routes whose "METHOD /path" matches: a status, or the connection cut in mid-body."""

    pattern: re.Pattern[str]
    left: int | None  # calls still to fail; None: until healed
    status: int
    drop: bool
    delay: float

    def heal(self) -> None:
        self.left = 0


@dataclass(frozen=True)
class Logged:
    method: str
    path: str
    status: int
    token: str | None
    sent: int  # bytes of the answer's body


class Gate:
    """Logs and, where a fault says so, fails what would go to `routes`."""

    def __init__(self) -> None:
        self.requests: list[Logged] = []
        self.faults: list[Fault] = []
        self.routes: ASGIApp

    def fail_next(
        self, pattern: str, times: int | None = 1, status: int = 503, *, drop: bool = False, delay: float = 0.0
    ) -> Fault:
        """Fail the next calls whose "METHOD /path" matches; status 0 with a delay only makes them slow."""
        fault = Fault(re.compile(pattern), times, status, drop, delay)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        self.faults.clear()

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, f"{request.method} {request.path}") is not None for request in self.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # uvicorn's lifespan
            return await self.routes(scope, receive, send)
        # Routed undecoded: Starlette would take the %2F of refs%2Fpr%2F1 and of slashed branches for a separator.
        path = scope["path"] = scope["raw_path"].decode()
        status = sent = 0

        async def logged_send(message: Message) -> None:
            nonlocal status, sent
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, logged_send)
        finally:
            self.requests.append(Logged(scope["method"], path, status, bearer(scope), sent))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._next_fault(f"{scope['method']} {scope['path']}")
        if fault is not None:
            await asyncio.sleep(fault.delay)
            if fault.drop:  # headers that promise a body, then the end: uvicorn cuts the connection
                await receive()
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
                return
            if fault.status:
                await drain(receive)
                await PlainTextResponse("outage", fault.status)(scope, receive, send)
                return
        await self.routes(scope, receive, send)

    def _next_fault(self, call: str) -> Fault | None:
        for fault in self.faults:
            if fault.left != 0 and fault.pattern.search(call):
                fault.left = None if fault.left is None else fault.left - 1
                return fault
        return None
