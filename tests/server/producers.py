"""What the tests of runs publish from: producers that note what is done with them, and topics for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI

from tests.server.driver import SocketCall, play_with
from tidewire import Live, Log, Signal

MANY = 10_000


def declare(live: Live) -> None:
    @live.topic("out/{name}", policy=Log(keep=MANY))
    async def out(name: str) -> None: ...

    @live.topic("json", payload="json")
    async def only_json() -> None: ...

    @live.topic("signal", policy=Signal())
    async def signal() -> None: ...


def play(scenario: Callable[[FastAPI, Live], Awaitable[None]], **options: Any) -> None:
    async def bounded(app: FastAPI, live: Live) -> None:
        async with asyncio.timeout(20):
            await scenario(app, live)

    play_with(declare, bounded, **options)


class Producer:
    """Gives ``items`` one at a time, each when it is let go on; notes how often it began, and how it ended."""

    def __init__(self, *items: Any, free: bool = True, error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.began = 0
        self.closed = 0
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        if free:
            self.go.set()

    async def __call__(self) -> AsyncIterator[Any]:
        self.began += 1
        try:
            for item in self.items:
                self.asked.set()
                await self.go.wait()
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class Unused:
    """An async iterator that is not a generator: closing it is seen."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = asyncio.Event()

    def __aiter__(self) -> Unused:
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed.set()


async def read_all(app: FastAPI, topic: str) -> tuple[list[Any], Any]:
    """Every message of a finished topic and what its end says."""
    socket = await SocketCall(app, f"/live/{topic}?positions=1&since=-1").open()
    await socket.closed()
    _, *messages, end = socket.envelopes
    return [m.get("data", m.get("text", m.get("base64"))) for m in messages], end["end"]["error"]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
