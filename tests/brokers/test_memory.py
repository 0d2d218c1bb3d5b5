"""The memory broker: the contract of all brokers, and what only it promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import pytest

from tidewire.brokers.base import Published
from tidewire.brokers.memory import MemoryBroker
from tidewire.errors import ProducerGap, TooManyTopics
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind, Producer, Stream, Terms
from tidewire.testing import BROKER_CONTRACT, BrokerBench, ManualClock
from tidewire.testing.broker_contract import LOG, Check


async def run_on_memory(check: Check) -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock, rng=random.Random(7))

    async def settle() -> None:
        """Everything is delivered already."""

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    bench = BrokerBench(broker, settle, advance, wall_ms=clock.wall_ms)
    await broker.start(lambda topic, event: bench.delivered.append((topic, event)))
    await check(bench)
    await broker.close()


@pytest.mark.parametrize("check", BROKER_CONTRACT, ids=lambda check: check.__name__)
def test_contract(check: Check) -> None:
    asyncio.run(run_on_memory(check))


def make(topics_max: int = 3, idle_s: float = 100.0) -> tuple[MemoryBroker, ManualClock]:
    clock = ManualClock()
    limits = Limits(topics_max=topics_max, topic_idle_s=idle_s)
    return MemoryBroker(limits=limits, clock=clock, rng=random.Random(7)), clock


async def publish(broker: MemoryBroker, topic: str) -> str:
    published = await broker.publish(topic, Draft(b"x", Kind.TEXT), LOG)
    assert published.position is not None
    return published.position.epoch


def test_topics_with_history_are_never_dropped_for_new_ones() -> None:
    async def scenario() -> None:
        broker, _ = make()
        for name in "abc":
            await publish(broker, name)
        with pytest.raises(TooManyTopics, match="3 topics"):
            await publish(broker, "d")
        assert await broker.position("a") is not None

    asyncio.run(scenario())


def test_idle_empty_topics_make_room() -> None:
    async def scenario() -> None:
        broker, _ = make()
        for name in "abc":
            await broker.attach(name, LOG)
        await broker.detach("b")
        await publish(broker, "d")
        assert await broker.position("b") is None
        assert await broker.position("a") is not None

    asyncio.run(scenario())


def test_an_idle_topic_keeps_its_epoch_until_it_is_forgotten() -> None:
    async def scenario() -> None:
        broker, clock = make(topics_max=10, idle_s=100.0)
        await broker.attach("a", LOG)
        await broker.detach("a")
        before = await broker.position("a")
        clock.advance(99)
        await broker.attach("b", LOG)
        assert await broker.position("a") == before
        clock.advance(2)
        await broker.attach("c", LOG)
        assert await broker.position("a") is None
        await broker.attach("a", LOG)
        after = await broker.position("a")
        assert before is not None
        assert after is not None
        assert after.epoch > before.epoch

    asyncio.run(scenario())


def test_ids_are_bounded() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(limits=Limits(dedup_ids_max=10), clock=ManualClock(), rng=random.Random(7))
        for n in range(50):
            await broker.publish("a", Draft(b"x", Kind.TEXT, id=str(n)), LOG)
        recent = await broker.publish("a", Draft(b"x", Kind.TEXT, id="45"), LOG)
        ancient = await broker.publish("a", Draft(b"x", Kind.TEXT, id="1"), LOG)
        assert recent.duplicate
        assert not ancient.duplicate

    asyncio.run(scenario())


def produce(broker: MemoryBroker, name: str, sequence: int, epoch: int = 0) -> Awaitable[Published]:
    terms = Terms(producer=Producer(name, epoch, sequence))
    return broker.publish("a", Draft(b"x", Kind.TEXT, terms=terms), LOG)


def test_producers_are_bounded_and_the_longest_silent_begins_anew() -> None:
    async def scenario() -> None:
        limits = Limits(producers_max=2)
        broker = MemoryBroker(limits=limits, clock=ManualClock(), rng=random.Random(7))
        for name in ("old", "busy"):
            await produce(broker, name, 0)
        await produce(broker, "new", 0)
        assert (await produce(broker, "busy", 0)).duplicate
        with pytest.raises(ProducerGap) as told:
            await produce(broker, "old", 1)
        assert (told.value.expected, told.value.received) == (0, 1)
        assert not (await produce(broker, "old", 0, epoch=1)).duplicate

    asyncio.run(scenario())


def test_a_silent_producer_is_forgotten_after_its_time() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        broker = MemoryBroker(limits=Limits(producer_remembered_s=100.0), clock=clock, rng=random.Random(7))
        await produce(broker, "p", 0)
        clock.advance(60)
        await produce(broker, "p", 1)
        clock.advance(60)
        assert (await produce(broker, "p", 1)).duplicate, "what counts is when it was last heard"
        clock.advance(60)
        with pytest.raises(ProducerGap):
            await produce(broker, "p", 2)

    asyncio.run(scenario())


def test_streams_that_were_created_make_no_room_until_they_expire() -> None:
    async def scenario() -> None:
        broker, clock = make()
        await broker.create("a", Stream("text/plain"), None, LOG)
        await broker.create("b", Stream("text/plain", ttl_s=10), None, LOG)
        await broker.create("c", Stream("text/plain", expires_ms=clock.wall_ms() + 20_000), None, LOG)
        with pytest.raises(TooManyTopics):
            await publish(broker, "d")
        clock.advance(11)
        await publish(broker, "d")
        with pytest.raises(TooManyTopics):
            await publish(broker, "e")
        clock.advance(10)
        await publish(broker, "e")
        assert await broker.position("a") is not None
        assert await broker.position("b") is None
        assert await broker.position("c") is None

    asyncio.run(scenario())
