"""A publisher and its readers in one event loop (CONTRACTS 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from websockets.asyncio.client import connect

from tidewire import Live, Log
from tidewire.server.run import Server, bind, make_config, url_of

MANY = 100_000


@asynccontextmanager
async def serving(live: Live) -> AsyncIterator[str]:
    app = FastAPI()
    app.include_router(live.router)
    (sock,) = bind("127.0.0.1", 0)
    listening = asyncio.Event()
    server = Server(make_config(app, log_level="warning"), lambda url: listening.set())
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        async with asyncio.timeout(10):
            await listening.wait()
        yield url_of(sock).removeprefix("http")
    finally:
        server.should_exit = True
        await task


async def read_websocket(url: str, live_now: asyncio.Barrier) -> list[int]:
    async with connect(url, compression=None) as socket:
        await live_now.wait()
        return [int(await socket.recv()) for _ in range(MANY)]


async def read_events(url: str, live_now: asyncio.Barrier) -> list[int]:
    headers = {"accept": "text/event-stream"}
    numbers: list[int] = []
    async with httpx.AsyncClient() as client, client.stream("GET", url, headers=headers) as answer:
        await live_now.wait()
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and not line.startswith("data: {"):
                numbers.append(int(line[6:]))
            if len(numbers) == MANY:
                break
    return numbers


def test_a_hundred_thousand_publishes_evict_no_reader_that_reads() -> None:
    live = Live()

    @live.topic("flood", policy=Log(keep=10))
    async def flood() -> None: ...

    async def main() -> None:
        async with serving(live) as url, asyncio.timeout(60), asyncio.TaskGroup() as group:
            live_now = asyncio.Barrier(3)
            readers = [
                group.create_task(read_websocket(f"ws{url}/flood", live_now)),
                group.create_task(read_events(f"http{url}/flood", live_now)),
            ]
            await live_now.wait()
            while live.stats()["subscriptions"] < len(readers):
                await asyncio.sleep(0)
            for number in range(MANY):
                await live.publish("flood", number)
            for reader in readers:
                assert await reader == list(range(MANY))
        assert live.stats()["evicted"] == 0

    # the loop that our server runs on: uvloop where there is one
    with asyncio.Runner(loop_factory=make_config("").get_loop_factory()) as runner:
        runner.run(main())
