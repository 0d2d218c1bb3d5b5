"""Streamed calls, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.client.servers import run
from tests.client.session.test_with_server import Relay, serving
from tidewire import CallError, CallRefused, Client, ConsumerTooSlow, Disconnected, Live, NoAnswer, WrongType


@dataclass
class Step:
    n: int


class Jobs:
    """Functions that yield, and how they have ended."""

    def __init__(self) -> None:
        self.live = Live()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

        @self.live.call("count")
        async def count(to: int) -> AsyncIterator[Step]:
            try:
                for n in range(to):
                    yield Step(n)
                if to == 0:
                    yield Step(-1)
                    await asyncio.Event().wait()
            finally:
                self.ended.put_nowait("count")

        @self.live.call("fail")
        async def fail() -> AsyncIterator[int]:
            yield 1
            raise CallError(1500, "no more")

        @self.live.call("plain")
        async def plain() -> int:
            return 1

        @self.live.topic("t", publish=True)
        async def topic() -> None: ...


@pytest.mark.parametrize("protobuf", [False, True])
def test_items_come_in_their_types(protobuf: bool) -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Client(url, protobuf=protobuf) as client:
            assert [item async for item in client.stream("count", {"to": 500}, type=Step)] == [
                Step(n) for n in range(500)
            ]
            assert [item async for item in client.stream("count", {"to": 2})] == [{"n": 0}, {"n": 1}]
            assert await jobs.ended.get() == "count"
            assert len(client._shell.machine.streams) == 0

    run(main())


def test_two_streams_and_messages_side_by_side() -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Client(url) as client, client.subscribe("t") as messages:

            async def take(n: int) -> list[Any]:
                return [item["n"] async for item in client.stream("count", {"to": n})]

            both = asyncio.gather(take(100), take(50))
            await client.publish("t", "beside")
            assert (await messages.next()).data == "beside"
            assert await both == [list(range(100)), list(range(50))]

    run(main())


def test_what_goes_wrong_is_told_behind_the_items() -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Client(url) as client:
            items = client.stream("fail")
            assert await anext(items) == 1
            with pytest.raises(CallRefused, match="no more"):
                await anext(items)
            with pytest.raises(StopAsyncIteration):
                await anext(items)
            with pytest.raises(CallRefused, match="does not stream"):
                await anext(client.stream("plain"))
            with pytest.raises(CallRefused, match="method not found"):
                await anext(client.stream("nowhere"))
            with pytest.raises(WrongType):
                await anext(client.stream("count", {"to": 1}, type=int))

    run(main())


def test_leaving_early_ends_the_function() -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Client(url) as client:
            async with client.stream("count", {"to": 0}) as items:
                assert await anext(items) == {"n": -1}
            assert await jobs.ended.get() == "count"
            waiting = asyncio.create_task(anext(client.stream("count", {"to": 0}), None))
            assert await waiting == {"n": -1}
            items = client.stream("count", {"to": 0})
            await anext(items)
            stuck = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
            assert await jobs.ended.get() == "count"

    run(main())


def test_a_consumer_that_is_too_slow_is_told() -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Client(url) as client:
            items = client.stream("count", {"to": 500}, buffer=10)
            assert await anext(items) == {"n": 0}
            await jobs.ended.get()
            await client.call("plain")
            with pytest.raises(ConsumerTooSlow):
                async for _ in items:
                    pass

    run(main())


def test_a_stream_does_not_survive_its_connection() -> None:
    async def main() -> None:
        jobs = Jobs()
        async with serving(jobs.live) as url, Relay.before(url) as (relay, through), Client(through) as client:
            items = client.stream("count", {"to": 0})
            assert await anext(items) == {"n": -1}
            relay.cut()
            with pytest.raises((NoAnswer, Disconnected)):
                await anext(items)
            assert await jobs.ended.get() == "count"
            assert await client.call("plain") == 1

    run(main())
