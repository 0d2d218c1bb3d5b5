"""Crowds are written to in passes of the loop: in order, each once, and nobody else waits for them."""

from __future__ import annotations

import asyncio

import pytest

from tests.hub.fakes import CountingEncoder, Courier, FakeReader
from tests.hub.test_hub import Bench, play
from tidewire.hub.policy import Latest, Log, Policy, Signal
from tidewire.hub.subscription import State, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind
from tidewire.protocol.position import NOW, START

PASS = 10
LIMITS = Limits(flush_writes_max=PASS)
POLICIES = pytest.mark.parametrize("policy", [Log(), Latest(key="k"), Signal()], ids=["log", "latest", "signal"])


async def crowd(
    bench: Bench, policy: Policy, count: int, topic: str = "t", carrier: Courier | None = None
) -> tuple[list[FakeReader], list[Subscription]]:
    """Readers that are live and ready."""
    encode = CountingEncoder()
    readers = [FakeReader(encode, carrier=carrier) for _ in range(count)]
    subscriptions = [await bench.hub.subscribe(topic, policy, reader, since=NOW) for reader in readers]
    for key in "ab":
        # the first flush ends joining and lagging
        await bench.publish(policy, f"before {key}", topic, key=key)
        await bench.turn(count)
        for reader in readers:
            reader.take()
            assert reader.rest()
    for reader in readers:
        reader.written.clear()
    return readers, subscriptions


def texts(reader: FakeReader) -> list[str]:
    """What was written past the outbox."""
    return [message.payload.decode() for message in reader.written]


@POLICIES
def test_a_crowd_is_written_to_in_passes_and_each_reader_once(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        courier = Courier()
        readers, _ = await crowd(bench, policy, 5 * PASS, carrier=courier)
        courier.calls.clear()
        await bench.publish(policy, "x", key="k")
        had = []
        while not had or had[-1] < len(readers):
            await bench.turn(1)
            had.append(sum(bool(reader.written) for reader in readers))
            assert len(had) < 10
        assert had[-5:] == [PASS, 2 * PASS, 3 * PASS, 4 * PASS, 5 * PASS]
        assert courier.calls == [PASS] * 5
        await bench.turn(5)
        assert all(texts(reader) == ["x"] for reader in readers)

    play(scenario, LIMITS)


@POLICIES
@pytest.mark.parametrize("kept", [0, 3])
def test_the_first_flush_after_a_restart_goes_to_a_crowd_in_passes_too(policy: Policy, kept: int) -> None:
    async def scenario(bench: Bench) -> None:
        courier = Courier()
        encode = CountingEncoder()
        for n in range(kept):
            # by another process: nothing of it is delivered here
            await bench.broker.publish("t", Draft(str(n).encode(), Kind.TEXT, "k"), policy.retention)
        readers = [FakeReader(encode, carrier=courier) for _ in range(5 * PASS)]
        for reader in readers:
            await bench.hub.subscribe("t", policy, reader, since=NOW)
            reader.take()
            assert reader.rest()
        courier.calls.clear()
        before = encode.calls
        for n in range(3):
            await bench.publish(policy, f"x{n}", key="k")
            await bench.turn(6)
            assert all(texts(reader)[-1] == f"x{n}" for reader in readers)
        assert courier.calls == [PASS] * 15
        assert encode.calls == before + 3
        assert all(len(reader.written) == 3 for reader in readers)

    play(scenario, LIMITS)


def test_large_batches_go_to_fewer_readers_in_a_pass() -> None:
    async def scenario(bench: Bench) -> None:
        courier = Courier()
        readers, _ = await crowd(bench, Log(), 12, carrier=courier)
        courier.calls.clear()
        await bench.publish(Log(), "x" * 8192 * 4)
        await bench.turn(10)
        # each counts five
        assert courier.calls == [2] * 6
        assert all(len(reader.written) == 1 for reader in readers)

    play(scenario, LIMITS)


def test_a_small_topic_does_not_wait_for_a_large_one_that_floods() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Log()
        large, _ = await crowd(bench, policy, 30 * PASS, "large")
        small, _ = await crowd(bench, policy, 1, "small")
        await bench.publish(policy, "1", "large")
        await bench.turn(2)
        await bench.publish(policy, "2", "large")
        await bench.publish(policy, "now", "small")
        await bench.turn(3)
        assert texts(small[0]) == ["now"]
        assert sum(bool(reader.written) for reader in large) < len(large) / 2
        await bench.turn(80)
        assert all(texts(reader) == ["1", "2"] for reader in large)

    play(scenario, LIMITS)


@POLICIES
def test_what_is_published_during_a_sweep_follows_it_as_one_flush(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        courier = Courier()
        readers, _ = await crowd(bench, policy, 3 * PASS, carrier=courier)
        courier.calls.clear()
        await bench.publish(policy, "1", key="a")
        await bench.turn(1)
        assert sum(courier.calls) < len(readers)
        for text, key in (("2", "b"), ("3", "c"), ("4", "b")):
            await bench.publish(policy, text, key=key)
            await bench.turn(1)
        await bench.turn(10)
        # of one key the newest is enough
        expected = ["1", "3", "4"] if isinstance(policy, Latest) else ["1", "2", "3", "4"]
        assert [texts(reader)[-1] for reader in readers] == ["4"] * len(readers)
        assert all(texts(reader) in (expected, ["1", "2", "3", "4"]) for reader in readers)
        assert sum(courier.calls) <= 4 * len(readers)

    play(scenario, LIMITS)


@POLICIES
def test_a_reader_that_leaves_during_a_sweep_gets_nothing_more(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        readers, subscriptions = await crowd(bench, policy, 3 * PASS)
        await bench.publish(policy, "x", key="k")
        await bench.turn(1)
        waiting = next(index for index, reader in enumerate(readers) if not reader.written)
        bench.hub.unsubscribe(subscriptions[waiting])
        await bench.turn(10)
        assert [index for index, reader in enumerate(readers) if not reader.written] == [waiting]

    play(scenario, LIMITS)


def test_a_reader_that_leaves_during_a_sweep_and_returns_is_told_once() -> None:
    """The sweep it left does not reach it; its history does."""

    async def scenario(bench: Bench) -> None:
        policy = Log()
        readers, subscriptions = await crowd(bench, policy, 3 * PASS)
        await bench.publish(policy, "x")
        await bench.turn(1)
        index = next(index for index, reader in enumerate(readers) if not reader.written)
        bench.hub.unsubscribe(subscriptions[index])
        again = readers[index]
        again.seen.clear()
        await bench.hub.subscribe("t", policy, again, since=START)
        await bench.turn(10)
        again.take()
        assert again.texts == ["before a", "before b", "x"]

    play(scenario, LIMITS)


@POLICIES
def test_a_reader_that_comes_during_a_sweep_has_everything_once(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        readers, _ = await crowd(bench, policy, 3 * PASS)
        await bench.publish(policy, "1", key="a")
        await bench.turn(1)
        await bench.publish(policy, "2", key="b")
        late = FakeReader(readers[0].encode)
        subscription = await bench.hub.subscribe("t", policy, late, since=START)
        await bench.publish(policy, "3", key="c")
        await bench.turn(10)
        late.take()
        expected = {"Log": ["before a", "before b", "1", "2", "3"], "Latest": ["1", "2", "3"], "Signal": ["3"]}
        assert late.texts == expected[type(policy).__name__]
        assert subscription.state is State.LIVE
        assert all(texts(reader)[-1] == "3" for reader in readers)

    play(scenario, LIMITS)


@POLICIES
def test_the_end_comes_after_everything_to_everybody(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        readers, _ = await crowd(bench, policy, 3 * PASS)
        await bench.publish(policy, "1", key="a")
        await bench.turn(1)
        await bench.publish(policy, "2", key="a")
        await bench.hub.finish("t", policy, None)
        assert all(texts(reader)[-1] == "2" for reader in readers)
        assert all(reader.end is not None for reader in readers)

    play(scenario, LIMITS)


@POLICIES
def test_drained_waits_for_those_who_have_not_had_their_turn(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        readers, _ = await crowd(bench, policy, 5 * PASS)
        await bench.publish(policy, "x", key="k")
        async with asyncio.timeout(5):
            await bench.hub.drained("t", 5)
        assert all(texts(reader) == ["x"] for reader in readers)

    play(scenario, LIMITS)


def test_a_flood_gathers_no_more_than_it_should_while_a_sweep_goes_on() -> None:
    """A publisher that never lets the loop run ends the sweep itself, before too much has gathered."""

    async def scenario(bench: Bench) -> None:
        policy = Log()
        readers, _ = await crowd(bench, policy, 30 * PASS)
        fanout = bench.hub._fanouts["t"]
        most = 0
        for number in range(3000):
            await bench.broker.publish("t", _draft(number), policy.retention)
            most = max(most, len(fanout._gathered))
        assert most <= 4 * bench.limits.gather_messages_max
        await bench.turn(100)
        assert all(texts(reader) == [str(number) for number in range(3000)] for reader in readers)

    play(scenario, LIMITS)


def _draft(number: int) -> Draft:
    return Draft(str(number).encode(), Kind.TEXT)
