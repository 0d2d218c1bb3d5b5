"""Run an ASGI application's lifespan by function calls (ASGI specification, "Lifespan Protocol")."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Lifespan:
    """``async with Lifespan(app) as state``: started on entry, stopped on exit, its errors raised here."""

    def __init__(self, app: Any, *, timeout_s: float = 10.0) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> dict[str, Any]:
        self._task = asyncio.create_task(self._run())
        await self._say("startup")
        return self._state

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        try:
            await self._say("shutdown")
        finally:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        await self._app(scope, self._to_app.get, self._from_app.put)

    async def _say(self, word: str) -> None:
        assert self._task is not None
        self._to_app.put_nowait({"type": f"lifespan.{word}"})
        answer = asyncio.create_task(self._from_app.get())
        async with asyncio.timeout(self._timeout_s):
            await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            # the application raised instead of answering
            self._task.result()
            return
        event = answer.result()
        if event["type"] == f"lifespan.{word}.failed":
            raise RuntimeError(f"the application's {word} failed: {event.get('message', '')}")
