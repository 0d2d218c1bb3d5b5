"""``Probe``: what an application's own tests would write."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from tidewire import Latest, Limits, Live, Log, Signal
from tidewire.client.errors import TopicFailed
from tidewire.testing import ManualClock, Probe, ProbeTimeout
from tidewire.testing.probe import ProbeRefused


def make(prefix: str = "/live", **options: object) -> tuple[FastAPI, Live]:
    live = Live(**options)  # type: ignore[arg-type]
    app = FastAPI()
    app.include_router(live.router, prefix=prefix)

    def user(request: Request) -> str:
        if "x-user" not in request.headers:
            raise HTTPException(401, "who are you")
        return request.headers["x-user"]

    @live.topic("chat/{room}", policy=Log(keep=50), publish=True)
    async def chat(room: str) -> None: ...

    @live.topic("mine", policy=Log())
    async def mine(user: str = Depends(user)) -> None: ...

    @live.topic("price", policy=Latest(max_per_s=2))
    async def price() -> None: ...

    @live.topic("typing", policy=Signal())
    async def typing() -> None: ...

    return app, live


@pytest.mark.parametrize("prefix", ["/live", "", "/api/v1/live"])
def test_what_is_published_is_next(prefix: str) -> None:
    async def scenario() -> None:
        app, live = make(prefix)
        async with Probe(app) as probe:
            await live.publish("chat/1", {"text": "hi"})
            position = await live.publish("chat/1", "plain")
            first = await probe.next("chat/1")
            second = await probe.next("chat/1")
            assert first.data == {"text": "hi"}
            assert (second.data, second.position, second.gap) == ("plain", position, None)

    asyncio.run(scenario())


def test_nothing_comes_says_so() -> None:
    async def scenario() -> None:
        app, _ = make()
        async with Probe(app) as probe:
            with pytest.raises(ProbeTimeout, match=r"nothing came on 'chat/1' within 0.01 s"):
                await probe.next("chat/1", timeout_s=0.01)

    asyncio.run(scenario())


def test_a_dropped_line_comes_back_with_nothing_missing() -> None:
    async def scenario() -> None:
        app, live = make()
        async with Probe(app) as probe:
            await live.publish("chat/1", 0)
            assert (await probe.next("chat/1")).data == 0
            probe.drop("chat/1")
            for n in (1, 2, 3):
                await live.publish("chat/1", n)
            received = [await probe.next("chat/1") for _ in range(3)]
            assert [message.data for message in received] == [1, 2, 3]
            assert all(message.gap is None for message in received)

    asyncio.run(scenario())


def test_a_dropped_line_is_told_what_is_lost() -> None:
    async def scenario() -> None:
        app, live = make()
        async with Probe(app) as probe:
            first = await live.publish("chat/1", 0)
            await probe.next("chat/1")
            probe.drop()
            for n in range(1, 100):
                await live.publish("chat/1", n)
            message = await probe.next("chat/1")
            assert message.data == 50
            assert message.gap is not None
            assert message.gap.from_position == first
            assert message.gap.missing == 49

    asyncio.run(scenario())


def test_a_stalled_reader_delays_nobody() -> None:
    async def scenario() -> None:
        app, live = make(limits=Limits(outbox_messages_max=10, evict_drain_s=0.01))
        async with Probe(app) as probe:
            stalled = await probe.subscribe("chat/1")
            probe.stall("chat/1")
            other = await probe.subscribe("chat/1")
            for n in range(30):
                await live.publish("chat/1", n)
                assert (await other.next()).data == n
            assert live.stats()["evicted"] == 1
            probe.resume("chat/1")
            assert (await stalled.next()).data == 0
            assert [(await stalled.next()).data for _ in range(29)] == list(range(1, 30))

    asyncio.run(scenario())


def test_time_passes_when_it_is_told_to() -> None:
    async def scenario() -> None:
        app, live = make()
        clock = ManualClock()
        async with Probe(app, clock=clock) as probe:
            await live.publish("price", 1)
            assert (await probe.next("price")).data == 1
            await live.publish("price", 2)
            assert (await probe.next("price")).data == 2
            await live.publish("price", 3)
            await live.publish("price", 4)
            with pytest.raises(ProbeTimeout):
                await probe.next("price", timeout_s=0.02)
            clock.advance(0.5)
            assert (await probe.next("price")).data == 4

    asyncio.run(scenario())


def test_signals_need_a_reader_that_is_there() -> None:
    async def scenario() -> None:
        app, live = make()
        async with Probe(app) as probe:
            await live.publish("typing", "nobody hears")
            reader = await probe.subscribe("typing")
            with pytest.raises(ProbeTimeout):
                await reader.next(timeout_s=0.02)
            await live.publish("typing", "ann")
            message = await reader.next()
            assert (message.data, message.position) == ("ann", None)

    asyncio.run(scenario())


def test_refusals_and_headers() -> None:
    async def scenario() -> None:
        app, live = make()
        async with Probe(app) as probe:
            with pytest.raises(ProbeRefused, match="who are you") as refused:
                await probe.next("mine")
            assert refused.value.status == 401
            reader = await probe.subscribe("mine", headers={"X-User": "ann"})
            await live.publish("mine", 1)
            assert (await reader.next()).data == 1
            with pytest.raises(ProbeRefused, match="no such topic"):
                await probe.subscribe("nowhere")

    asyncio.run(scenario())


def test_a_finished_topic_ends_the_reading() -> None:
    async def scenario() -> None:
        app, live = make()
        async with Probe(app) as probe:
            await live.publish("chat/1", "last")
            await live.finish("chat/1")
            await live.finish("chat/2", error="it broke")
            assert (await probe.next("chat/1")).data == "last"
            with pytest.raises(StopAsyncIteration):
                await probe.next("chat/1")
            with pytest.raises(TopicFailed, match="it broke"):
                await probe.next("chat/2")

    asyncio.run(scenario())


def test_a_client_publishes() -> None:
    async def scenario() -> None:
        app, _ = make()
        async with Probe(app) as probe:
            reader = await probe.subscribe("chat/1")
            await reader.send('{"from": "a client"}')
            assert (await reader.next()).data == {"from": "a client"}

    asyncio.run(scenario())


def test_a_startup_that_fails_is_raised_here() -> None:
    async def scenario() -> None:
        async def broken(scope: object, receive: object, send: object) -> None:
            raise ValueError("no database")

        with pytest.raises(ValueError, match="no database"):
            await Probe(broken).__aenter__()

    asyncio.run(scenario())
