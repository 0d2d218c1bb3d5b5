"""A publisher and its readers in one event loop (CONTRACTS 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from fastapi import FastAPI
from websockets.asyncio.client import connect

from tidewire import Live, Log
from tidewire.server.run import Server, bind, make_config, url_of

MANY = 100_000
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@asynccontextmanager
async def serving(live: Live) -> AsyncIterator[str]:
    app = FastAPI()
    app.include_router(live.router)
    sock = bind("127.0.0.1", 0)
    listening = asyncio.Event()
    server = Server(make_config(app, log_level="warning"), lambda url: listening.set())
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        async with asyncio.timeout(10):
            await listening.wait()
        yield url_of(sock, "ws")
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_hundred_thousand_publishes_evict_no_reader_that_reads(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    live = Live()

    @live.topic("flood", policy=Log(keep=10))
    async def flood() -> None: ...

    async def read(url: str, live_now: asyncio.Barrier) -> list[int]:
        async with connect(f"{url}/flood?positions=1", compression=None) as socket:
            assert "recovered" in json.loads(await socket.recv())
            await live_now.wait()
            numbers = [json.loads(await socket.recv())["data"] for _ in range(MANY)]
        return numbers

    async def main() -> None:
        async with serving(live) as url, asyncio.timeout(60), asyncio.TaskGroup() as group:
            live_now = asyncio.Barrier(3)
            readers = [group.create_task(read(url, live_now)) for _ in range(2)]
            await live_now.wait()
            for number in range(MANY):
                await live.publish("flood", number)
            for reader in readers:
                assert await reader == list(range(MANY))
        assert live.stats()["evicted"] == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
