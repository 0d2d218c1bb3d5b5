"""Topics that are created, filled in batches, closed by an append, and deleted under their readers."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.hub.fakes import CountingEncoder, FakeReader, SlowBroker
from tests.hub.test_hub import Bench, play
from tidewire.brokers.memory import MemoryBroker
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Log
from tidewire.hub.subscription import Gap, State
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind, Stream, Terms
from tidewire.protocol.position import START
from tidewire.testing import ManualClock

TEXT = Stream("text/plain")
LOG = Log()


def draft(*texts: str, closes: bool = False) -> Draft:
    first, *more = [text.encode() for text in texts]
    return Draft(first, Kind.TEXT, more=tuple(more), terms=Terms(must_exist=True, closes=closes))


def test_a_batch_is_one_publish_of_many_messages() -> None:
    async def scenario(bench: Bench) -> None:
        encode = CountingEncoder()
        reader = FakeReader(encode)
        await bench.hub.create("t", LOG, TEXT, draft("a", "b"))
        await bench.hub.subscribe("t", LOG, reader, since=START)
        reader.take()
        encode.calls = 0
        await bench.hub.publish("t", LOG, draft("c", "d", "e"))
        await bench.turn()
        reader.take()
        assert reader.texts == ["a", "b", "c", "d", "e"]
        assert encode.calls == 1
        assert bench.hub.stats.published == 5

    play(scenario)


def test_a_large_batch_lets_readers_of_the_same_loop_read() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder(), messages_max=10)
        await bench.hub.subscribe("t", LOG, reader)
        reader.take()
        taking = asyncio.create_task(_keep_taking(reader))
        for n in range(50):
            await bench.hub.publish("t", LOG, Draft(b"%d" % n, Kind.TEXT, more=tuple([b"x"] * 3)))
        await bench.turn()
        taking.cancel()
        reader.take()
        assert reader.eviction is None
        assert len(reader.messages) == 200

    play(scenario, Limits(gather_messages_max=4))


async def _keep_taking(reader: FakeReader) -> None:
    while True:
        reader.take()
        await asyncio.sleep(0)


def test_the_append_that_closes_reaches_everybody_before_the_end() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder())
        await bench.hub.create("t", LOG, TEXT)
        await bench.hub.subscribe("t", LOG, reader)
        published = await bench.hub.publish("t", LOG, draft("a", "b", closes=True))
        reader.take()
        assert published.closed
        assert reader.texts == ["a", "b"]
        assert reader.end is not None
        assert reader.end.offset == 2

    play(scenario)


def test_readers_of_a_deleted_topic_hear_that_it_is_gone() -> None:
    async def scenario(bench: Bench) -> None:
        readers = [FakeReader(CountingEncoder()) for _ in range(3)]
        await bench.hub.create("t", LOG, TEXT)
        for reader in readers:
            await bench.hub.subscribe("t", LOG, reader)
        await bench.hub.publish("t", LOG, draft("a"))
        assert await bench.hub.drop("t")
        for reader in readers:
            reader.take()
            assert reader.texts == ["a"]
            assert reader.end is not None
            assert reader.end.gone
        assert bench.hub.subscriptions == 0

    play(scenario)


def test_whoever_comes_to_the_next_of_that_name_is_not_told_of_the_end_before() -> None:
    """Readers that have ended are on the topic's list until their sockets are gone; what they heard is theirs."""

    async def scenario(bench: Bench) -> None:
        old, new = FakeReader(CountingEncoder()), FakeReader(CountingEncoder())
        await bench.hub.create("t", LOG, TEXT)
        subscription = await bench.hub.subscribe("t", LOG, old)
        await bench.hub.drop("t")
        await bench.hub.create("t", LOG, TEXT, draft("b"))
        fresh = await bench.hub.subscribe("t", LOG, new, since=START)
        bench.hub.unsubscribe(subscription)
        assert fresh.state is not State.ENDED
        await bench.hub.publish("t", LOG, draft("c"))
        await bench.turn()
        new.take()
        assert new.texts == ["b", "c"]
        assert not [event for event in new.seen if isinstance(event, Gap)]
        assert new.end is None
        assert old.texts == []

    play(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_that_is_catching_up_hears_it_too(seed: int) -> None:
    async def scenario() -> None:
        rng, clock = random.Random(seed), ManualClock()
        broker = SlowBroker(MemoryBroker(clock=clock, rng=rng), rng)
        hub = Hub(broker, clock=clock, limits=Limits(page_messages_max=2), flush_window_s=0.0)
        await hub.start()
        reader = FakeReader(CountingEncoder())
        await hub.create("t", LOG, TEXT, draft(*"abcdefgh"))
        coming = asyncio.create_task(hub.subscribe("t", LOG, reader, since=START))
        for _ in range(rng.randrange(1, 12)):
            await asyncio.sleep(0)
            reader.take(1)
        await hub.drop("t")
        broker.carry()
        for _ in range(40):
            await asyncio.sleep(0)
            reader.take()
        subscription = await coming
        if reader.end is None:
            # it came after the end of the one before: what it reads is the next, which has nothing in it
            assert reader.texts == []
        else:
            assert reader.end.gone
            assert subscription.state is State.ENDED
        hub.unsubscribe(subscription)
        await hub.close()

    asyncio.run(scenario())
