"""Calls without sessions and ports: a handshake made by hand, and a loop whose time is moved."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from tidewire.errors import CallError
from tidewire.limits import Limits
from tidewire.server.calls import Calls
from tidewire.server.identity import Identity
from tidewire.server.inner import Inner
from tidewire.server.invocation import CallStream


class MovedLoop(asyncio.SelectorEventLoop):
    """A loop whose deadlines come when a test says so."""

    moved_s = 0.0

    def time(self) -> float:
        return super().time() + self.moved_s


def let_time_pass(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MovedLoop)
    loop.moved_s += seconds


async def passes(count: int) -> None:
    """Let the loop go round ``count`` times."""
    for _ in range(count):
        await asyncio.sleep(0)


def only_this_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


class Desk:
    """Calls, and who asks for them."""

    def __init__(self, app: Starlette | None = None, **limits: Any) -> None:
        # however slow this machine is, nothing is left behind unless a test is about that
        self.calls = Calls(Inner(deadline_s=10), Limits(**{"call_close_s": 1e6, **limits}))
        self._app = app
        # what opened and closed, and whatever else a test notes
        self.seen: list[Any] = []

    def declare(self, method: str, function: Callable[..., Any], **options: Any) -> None:
        self.calls.declare(method, function, **options)

    def connection(self, *, query: str = "", headers: dict[str, str] | None = None) -> HTTPConnection:
        scope: dict[str, Any] = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/live/-/session",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("10.0.0.1", 4321),
            "server": ("test", 80),
        }
        if self._app is not None:
            scope["app"] = self._app
        return HTTPConnection(scope)

    async def invoke(
        self, method: str, data: bytes = b"", *, identity: Identity | None = None, **handshake: Any
    ) -> bytes | CallStream:
        return await self.calls.invoke(method, data, self.connection(**handshake), identity)

    async def ask(self, method: str, data: Any = None, **options: Any) -> Any:
        """The value that comes back; without ``data`` the call carries none."""
        answer = await self.invoke(method, b"" if data is None else json.dumps(data).encode(), **options)
        assert isinstance(answer, bytes)
        return json.loads(answer)

    async def open(self, method: str, data: Any = None, **options: Any) -> CallStream:
        stream = await self.invoke(method, b"" if data is None else json.dumps(data).encode(), **options)
        assert isinstance(stream, CallStream)
        return stream

    async def fail(self, method: str, data: Any = None, **options: Any) -> tuple[int, str, bool]:
        """How the call fails."""
        try:
            answer = await self.ask(method, data, **options)
        except CallError as error:
            return error.code, error.message, error.temporary
        raise AssertionError(f"it did not fail: {answer}")


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it; afterwards no task may be left, and no exception that nobody took."""
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await scenario()
        await until(only_this_task)
        # the young ones: who complains about an exception that nobody took does so when it is collected
        gc.collect(1)

    with asyncio.Runner(loop_factory=MovedLoop) as runner:
        runner.run(run())
    assert complaints == []
