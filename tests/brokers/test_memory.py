"""The memory broker: the contract of all brokers, and what only it promises."""

from __future__ import annotations

import asyncio
import random

import pytest

from tidewire.brokers.memory import MemoryBroker
from tidewire.errors import TooManyTopics
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind
from tidewire.testing import BROKER_CONTRACT, BrokerBench, ManualClock
from tidewire.testing.broker_contract import LOG, Check


async def run_on_memory(check: Check) -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock, rng=random.Random(7))

    async def settle() -> None:
        """Everything is delivered already."""

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    bench = BrokerBench(broker, settle, advance)
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
