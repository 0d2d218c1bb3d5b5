"""The hub: what a publish costs, what happens to readers that are slow, who waits for whom."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.hub.fakes import CountingEncoder, FakeReader, SlowBroker
from tidewire.brokers.memory import MemoryBroker
from tidewire.errors import DrainTimeout
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Latest, Log, Policy, Signal
from tidewire.hub.subscription import Eviction, Gap, State, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind, Message
from tidewire.protocol.position import NOW, START, Position
from tidewire.testing import ManualClock

Scenario = Callable[["Bench"], Awaitable[None]]


class Bench:
    """A hub on a memory broker, with a clock that stands still."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = ManualClock()
        self.limits = limits or Limits()
        self.broker = MemoryBroker(clock=self.clock, limits=self.limits, rng=random.Random(1))
        self.hub = Hub(self.broker, clock=self.clock, limits=self.limits, flush_window_s=0.0)

    async def publish(self, policy: Policy, text: str = "x", topic: str = "t", key: str | None = None) -> None:
        await self.hub.publish(topic, policy, Draft(text.encode(), Kind.TEXT, key))

    async def turn(self, passes: int = 3) -> None:
        for _ in range(passes):
            await asyncio.sleep(0)


def play(scenario: Scenario, limits: Limits | None = None) -> None:
    async def run() -> None:
        bench = Bench(limits)
        await bench.hub.start()
        await scenario(bench)
        await bench.hub.close()

    asyncio.run(run())


# The scaling law


@pytest.mark.parametrize("policy", [Log(), Latest(key="k"), Signal()], ids=["log", "latest", "signal"])
@pytest.mark.parametrize(("messages", "readers"), [(1, 1), (20, 50), (200, 7), (5, 1000)])
def test_a_flush_of_m_messages_to_n_readers_costs_m_plus_n(policy: Policy, messages: int, readers: int) -> None:
    """Counted, not timed: M encodings in one call, N references, N wakes. Nothing else grows with M x N."""

    async def scenario(bench: Bench) -> None:
        encode = CountingEncoder()
        crowd = [FakeReader(encode) for _ in range(readers)]
        for reader in crowd:
            await bench.hub.subscribe("t", policy, reader)
        await bench.publish(policy, "warm", key="w")
        await bench.turn()
        for reader in crowd:
            reader.take()
            reader.wakes = 0
        await bench.publish(policy, "warmer", key="w")
        await bench.turn()
        for reader in crowd:
            reader.take()
            reader.wakes = 0
        encode.calls = encode.messages = 0
        for n in range(messages):
            await bench.publish(policy, str(n), key=str(n))
        await bench.turn()
        assert encode.calls == 1
        assert encode.messages == messages
        batches = {id(reader.outbox.take()) for reader in crowd}
        assert len(batches) == 1, "everybody points to the same batch"
        assert [reader.wakes for reader in crowd] == [1] * readers

    play(scenario)


def test_a_ready_reader_is_written_to_once_per_flush_and_never_queued() -> None:
    async def scenario(bench: Bench) -> None:
        encode = CountingEncoder()
        crowd = [FakeReader(encode) for _ in range(100)]
        subscriptions = [await bench.hub.subscribe("t", Log(), reader) for reader in crowd]
        for reader in crowd:
            reader.take()
            reader.ready, reader.wakes = True, 0
        await bench.publish(Log(), "0")
        await bench.turn()
        for reader in crowd:
            reader.written.clear()
        encode.calls = 0
        for n in range(1, 21):
            await bench.publish(Log(), str(n))
        await bench.turn()
        assert encode.calls == 1
        assert len({tuple(map(id, reader.written)) for reader in crowd}) == 1, "everybody points to the same batch"
        assert [len(reader.written) for reader in crowd] == [20] * 100
        assert not any(reader.wakes or reader.outbox.busy for reader in crowd)
        # who is no longer ready queues, and then knows what it had written before
        crowd[0].ready = False
        await bench.publish(Log(), "21")
        await bench.turn()
        assert crowd[0].outbox.busy
        assert subscriptions[0].sent == Position(crowd[0].messages[-1].epoch, 21)
        crowd[0].take()
        assert all(reader.texts == [str(n) for n in range(22)] for reader in crowd)

    play(scenario)


@pytest.mark.parametrize("policy", [Log(), Signal(), Latest()])
def test_a_ready_reader_that_has_left_or_comes_late_is_noticed(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        encode = CountingEncoder()
        readers = [FakeReader(encode) for _ in range(3)]
        subscriptions = []
        for n, reader in enumerate(readers):
            subscriptions.append(await bench.hub.subscribe("t", policy, reader))
            for _ in range(2):
                reader.take()
                reader.ready = True
                await bench.publish(policy, f"with {n}")
                await bench.turn()
        assert {tuple(reader.texts[-2:]) for reader in readers} == {("with 2", "with 2")}
        bench.hub.unsubscribe(subscriptions[0])
        await bench.publish(policy, "last")
        await bench.turn()
        for reader in readers:
            reader.take()
        assert [reader.texts[-1] for reader in readers] == ["with 2", "last", "last"]

    play(scenario)


def test_only_laggards_of_a_latest_topic_pay_for_themselves() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Latest(key="k"), CountingEncoder()
        crowd = [FakeReader(encode) for _ in range(10)]
        slow = FakeReader(encode)
        for reader in [*crowd, slow]:
            await bench.hub.subscribe("t", policy, reader)
        for round_ in range(6):
            for key in "ab":
                await bench.publish(policy, f"{key}{round_}", key=key)
            await bench.turn()
            encode.calls = 0
            for reader in crowd:
                reader.take()
        for key in "ab":
            await bench.publish(policy, f"{key}6", key=key)
        await bench.turn()
        assert encode.calls == 1
        for reader in crowd:
            reader.take()
        slow.take()
        assert slow.texts[-2:] == ["a6", "b6"], "the newest of each key"
        assert len(slow.texts) < 14, "and not every value"

    play(scenario)


# Overflow


def test_a_slow_reader_of_a_log_is_evicted_and_the_others_have_everything() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Log(keep=1000), CountingEncoder()
        healthy = [FakeReader(encode, messages_max=10) for _ in range(5)]
        stalled = FakeReader(encode, messages_max=10)
        for reader in [*healthy, stalled]:
            await bench.hub.subscribe("t", policy, reader)
        for n in range(40):
            await bench.publish(policy, str(n))
            await bench.turn()
            for reader in healthy:
                reader.take()
        assert stalled.eviction is Eviction.SLOW
        assert stalled.outbox.size_bytes == 0
        assert all(reader.texts == [str(n) for n in range(40)] for reader in healthy)
        assert bench.hub.stats.evicted == 1
        assert bench.hub.subscriptions == 5

    play(scenario)


def test_an_evicted_reader_comes_back_to_everything_or_is_told_the_gap() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Log(keep=10), CountingEncoder()
        first = FakeReader(encode, messages_max=5)
        subscription = await bench.hub.subscribe("t", policy, first)
        await bench.publish(policy, "0")
        await bench.turn()
        first.take()
        for n in range(1, 9):
            await bench.publish(policy, str(n))
            await bench.turn()
        assert first.eviction is Eviction.SLOW
        assert subscription.sent is not None
        again = FakeReader(encode)
        await bench.hub.subscribe("t", policy, again, since=subscription.sent)
        again.take()
        assert again.opening.recovered is True
        assert again.texts == [str(n) for n in range(1, 9)]
        for n in range(9, 30):
            await bench.publish(policy, str(n))
        late = FakeReader(encode)
        await bench.hub.subscribe("t", policy, late, since=subscription.sent)
        late.take()
        assert late.opening.recovered is False
        gaps = [event for event in late.seen if isinstance(event, Gap)]
        assert gaps == [Gap(subscription.sent, Position(subscription.sent.epoch, 20))]
        assert late.texts == [str(n) for n in range(20, 30)]

    play(scenario)


def test_a_signal_that_overflows_loses_the_oldest_and_counts() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder(), messages_max=3)
        await bench.hub.subscribe("t", Signal(), reader)
        for n in range(10):
            await bench.publish(Signal(), str(n))
            await bench.turn()
        reader.take()
        assert reader.texts == ["7", "8", "9"]
        assert bench.hub.stats.dropped == 7
        assert reader.eviction is None

    play(scenario)


def test_latest_memory_is_the_number_of_keys() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Latest(key="k", max_keys=5)
        reader = FakeReader(CountingEncoder())
        subscription = await bench.hub.subscribe("t", policy, reader)
        for n in range(2000):
            await bench.publish(policy, str(n), key=str(n % 5))
            await bench.turn(1)
        assert subscription.conflator is not None
        assert len(subscription.conflator) <= 5
        assert reader.outbox.count <= 10
        reader.take()
        assert sorted(reader.texts[-5:]) == ["1995", "1996", "1997", "1998", "1999"]

    play(scenario)


def test_a_reader_that_holds_back_too_many_keys_is_evicted_and_its_lane_goes_with_it() -> None:
    """Removed keys are told too, so a reader that takes nothing can hold back more than there are keys."""

    async def scenario(bench: Bench) -> None:
        policy = Latest(key="k", max_keys=3)
        stalled, healthy = FakeReader(CountingEncoder()), FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", policy, stalled)
        await bench.hub.subscribe("t", policy, healthy)
        for n in range(40):
            await bench.publish(policy, str(n), key=str(n))
            await bench.turn()
            healthy.take()
        assert stalled.eviction is Eviction.SLOW
        assert healthy.eviction is None
        values = [text for text in healthy.texts if text.isdigit()]
        assert values == [str(n) for n in range(40)], "the flush that evicted one reached the others"
        assert bench.hub.subscriptions == 1

    play(scenario)


def test_one_message_larger_than_the_outbox_still_fits_an_empty_one() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder(), bytes_max=10)
        await bench.hub.subscribe("t", Log(), reader)
        await bench.publish(Log(), "x" * 100)
        await bench.turn()
        reader.take()
        assert reader.eviction is None
        assert reader.texts == ["x" * 100]

    play(scenario)


# Publishing without evicting


def test_a_hundred_thousand_publishes_in_one_loop_evict_no_reader_that_reads() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Log(keep=10), CountingEncoder()
        readers = [FakeReader(encode, messages_max=1000) for _ in range(3)]
        for reader in readers:
            await bench.hub.subscribe("t", policy, reader)

        async def read_whenever_it_can(reader: FakeReader) -> None:
            count = 0
            while count < 100_000 and reader.eviction is None:
                reader.take(1)
                count += len(reader.seen)
                reader.seen.clear()
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(read_whenever_it_can(reader)) for reader in readers]
        for n in range(100_000):
            await bench.publish(policy, str(n))
        await asyncio.gather(*tasks)
        assert bench.hub.stats.evicted == 0
        assert bench.hub.stats.delivered == 300_000

    play(scenario)


def test_publish_never_waits_for_a_stalled_reader() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", Log(), reader)
        async with asyncio.timeout(20):
            for _ in range(3000):
                await bench.publish(Log(), "x")
        assert reader.eviction is Eviction.SLOW

    play(scenario)


def test_what_is_published_within_the_window_goes_out_together() -> None:
    async def scenario(bench: Bench) -> None:
        bench.hub.flush_window_s = 0.001
        encode = CountingEncoder()
        reader = FakeReader(encode)
        await bench.hub.subscribe("t", Log(), reader)
        await bench.publish(Log(), "0")
        await bench.turn()
        reader.take()
        assert reader.texts == ["0"], "at once when nothing was flushed for a while"
        for n in range(1, 4):
            await bench.publish(Log(), str(n))
            await bench.turn()
        reader.take()
        assert reader.texts == ["0"]
        bench.clock.advance(0.001)
        reader.take()
        assert reader.texts == ["0", "1", "2", "3"]
        assert encode.calls == 2

    play(scenario)


def test_a_timer_that_comes_early_does_not_end_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.hub.flush_window_s = 0.001
        later = bench.clock.call_later
        monkeypatch.setattr(bench.clock, "call_later", lambda delay_s, callback: later(delay_s * 0.4, callback))
        encode = CountingEncoder()
        reader = FakeReader(encode)
        await bench.hub.subscribe("t", Log(), reader)
        for n in range(3):
            await bench.publish(Log(), str(n))
            await bench.turn()
            # as uvloop does, which counts in whole milliseconds
            bench.clock.advance(0.0003)
            reader.take()
            assert reader.texts == ["0"]
        bench.clock.advance(0.001)
        reader.take()
        assert reader.texts == ["0", "1", "2"]
        assert encode.calls == 2

    play(scenario)


# Rates


def test_a_rate_bounds_the_flushes_and_the_newest_value_wins() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Latest(key="k", max_per_s=5), CountingEncoder()
        reader = FakeReader(encode)
        await bench.hub.subscribe("t", policy, reader, rate=5)
        flushes = []
        for tick in range(100):
            for key in "ab":
                await bench.publish(policy, f"{key}{tick}", key=key)
            await bench.turn()
            if reader.take():
                flushes.append(bench.clock.now())
            bench.clock.advance(0.01)
        bench.clock.advance(1)
        reader.take()
        assert reader.texts[-2:] == ["a99", "b99"]
        assert len(flushes) <= 6, "one second at five a second, and the opening"
        gaps = [later - earlier for earlier, later in itertools.pairwise(flushes[1:])]
        assert all(gap >= 0.199 for gap in gaps)

    play(scenario)


def test_readers_with_different_rates_each_get_theirs() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Latest(), CountingEncoder()
        fast, slow = FakeReader(encode), FakeReader(encode)
        await bench.hub.subscribe("t", policy, fast)
        await bench.hub.subscribe("t", policy, slow, rate=1)
        for n in range(100):
            await bench.publish(policy, str(n))
            await bench.turn()
            fast.take()
            slow.take()
            bench.clock.advance(0.02)
        assert len(fast.texts) == 100
        assert 2 <= len(slow.texts) <= 4

    play(scenario)


def test_too_many_rates_share_the_slowest() -> None:
    async def scenario(bench: Bench) -> None:
        policy, encode = Latest(), CountingEncoder()
        for rate in (1.0, 2.0, 3.0, 4.0):
            await bench.hub.subscribe("t", policy, FakeReader(encode), rate=rate)
        assert {lane.rate for lane in bench.hub._fanouts["t"]._conflated.values()} == {1.0, 2.0}

    play(scenario, Limits(rates_per_topic_max=2))


# Coming and going


def test_a_first_reader_hears_what_comes_and_may_ask_for_what_was() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.publish(Log(), "before")
        fresh, curious = FakeReader(CountingEncoder()), FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", Log(), fresh, since=NOW, noted=await bench.hub.note("t"))
        await bench.hub.subscribe("t", Log(), curious, since=START)
        await bench.publish(Log(), "after")
        await bench.turn()
        fresh.take()
        curious.take()
        assert fresh.texts == ["after"]
        assert (fresh.opening.recovered, fresh.opening.replayed) == (None, 0)
        assert curious.texts == ["before", "after"]
        assert (curious.opening.recovered, curious.opening.replayed) == (None, 1)

    play(scenario)


def test_what_is_published_while_the_caller_is_asked_is_not_missed() -> None:
    async def scenario(bench: Bench) -> None:
        nothing_yet = await bench.hub.note("t")
        await bench.publish(Log(), "0")
        noted = await bench.hub.note("t")
        await bench.publish(Log(), "1")
        first, second = FakeReader(CountingEncoder()), FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", Log(), first, noted=nothing_yet)
        await bench.hub.subscribe("t", Log(), second, noted=noted)
        first.take()
        second.take()
        assert first.texts == ["0", "1"]
        assert second.texts == ["1"]

    play(scenario)


def test_a_long_past_is_read_as_the_reader_takes_it() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Log(keep=500)
        for n in range(500):
            await bench.publish(policy, str(n))
        reader = FakeReader(CountingEncoder(), messages_max=30)
        task = asyncio.create_task(bench.hub.subscribe("t", policy, reader, since=START))
        most = 0
        while not task.done():
            await asyncio.sleep(0)
            most = max(most, reader.outbox.count)
            reader.take(1)
        reader.take()
        assert reader.texts == [str(n) for n in range(500)]
        assert most <= 20, "never more than two pages in memory"

    play(scenario, Limits(page_messages_max=10))


def test_a_reader_that_leaves_while_it_catches_up_leaves_nothing_behind() -> None:
    async def scenario(bench: Bench) -> None:
        for n in range(50):
            await bench.publish(Log(), str(n))
        reader = FakeReader(CountingEncoder())
        task = asyncio.create_task(bench.hub.subscribe("t", Log(), reader, since=START))
        await bench.turn()
        reader.outbox.close()
        task.cancel()
        await asyncio.wait([task])
        await bench.turn()
        assert (bench.hub.topics, bench.hub.subscriptions) == (0, 0)

    play(scenario, Limits(page_messages_max=5))


def test_the_last_reader_detaches_the_topic_and_the_next_attaches_it_again() -> None:
    async def scenario(bench: Bench) -> None:
        first = await bench.hub.subscribe("t", Log(), FakeReader(CountingEncoder()))
        bench.hub.unsubscribe(first)
        bench.hub.unsubscribe(first)
        await bench.turn()
        assert bench.hub.topics == 0
        reader = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", Log(), reader)
        await bench.publish(Log(), "x")
        await bench.turn()
        reader.take()
        assert reader.texts == ["x"]

    play(scenario)


def test_a_reader_that_comes_while_the_topic_is_being_detached_is_attached() -> None:
    async def scenario(bench: Bench) -> None:
        broker = SlowBroker(bench.broker, random.Random(3))
        hub = Hub(broker, clock=bench.clock, flush_window_s=0.0)
        await hub.start()
        for _ in range(20):
            subscription = await hub.subscribe("t", Log(), FakeReader(CountingEncoder()))
            hub.unsubscribe(subscription)
            await asyncio.sleep(0)
            reader = FakeReader(CountingEncoder())
            second = await hub.subscribe("t", Log(), reader, noted=await hub.note("t"))
            await hub.publish("t", Log(), Draft(b"x", Kind.TEXT))
            broker.carry()
            await bench.turn()
            reader.take()
            assert reader.texts == ["x"]
            hub.unsubscribe(second)

    play(scenario)


# Ends


@pytest.mark.parametrize("policy", [Log(), Latest(), Signal()], ids=["log", "latest", "signal"])
def test_the_end_comes_after_the_rest_and_to_those_who_come_later(policy: Policy) -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder())
        subscription = await bench.hub.subscribe("t", policy, reader)
        await bench.publish(policy, "last")
        await bench.hub.finish("t", policy, "broken")
        reader.take()
        assert reader.texts == ["last"]
        assert reader.end is not None
        assert reader.end.error == "broken"
        assert subscription.state is State.ENDED
        late = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", policy, late, since=START)
        late.take()
        assert late.end == reader.end
        assert late.texts == ([] if isinstance(policy, Signal) else ["last"])

    play(scenario)


# Snapshots


def test_a_snapshot_is_sent_first_and_followed_by_what_changed_meanwhile() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Latest(key="k")
        await bench.publish(policy, "old-a", key="a")
        noted = await bench.hub.note("t")
        assert noted is not None
        await bench.publish(policy, "new-b", key="b")
        state = [Message(b"from the function", Kind.TEXT, noted.epoch, noted.offset, "a", snapshot=True)]
        reader = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", policy, reader, noted=noted, snapshot=state)
        reader.take()
        await bench.publish(policy, "newer-a", key="a")
        await bench.turn()
        reader.take()
        assert reader.opening.start == noted
        assert reader.texts == ["from the function", "new-b", "newer-a"]

    play(scenario)


def test_a_recovered_reader_needs_no_snapshot() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Latest(key="k")
        await bench.publish(policy, "1", key="a")
        since = await bench.hub.note("t")
        assert since is not None
        await bench.publish(policy, "2", key="a")
        state = [Message(b"state", Kind.TEXT, *since, "a", snapshot=True)]
        reader = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", policy, reader, since=since, noted=since, snapshot=state)
        reader.take()
        assert reader.opening.recovered is True
        assert reader.texts == ["2"]

    play(scenario)


def test_a_state_larger_than_the_outbox_is_handed_over_in_pieces() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Latest(key="k", max_keys=2000)
        for n in range(2000):
            await bench.publish(policy, json.dumps({"k": n, "pad": "." * 100}), key=str(n))
        reader = FakeReader(CountingEncoder(), bytes_max=100_000, messages_max=300)
        await bench.hub.subscribe("t", policy, reader)
        most = 0
        while reader.take(1):
            most = max(most, reader.outbox.count)
        assert len(reader.texts) == 2000
        assert most <= 256
        assert reader.eviction is None

    play(scenario)


# Draining


def test_drained_waits_for_every_reader_and_names_how_many_are_behind() -> None:
    async def scenario(bench: Bench) -> None:
        encode = CountingEncoder()
        readers = [FakeReader(encode) for _ in range(3)]
        for reader in readers:
            await bench.hub.subscribe("t", Log(), reader)
            reader.take()
        await bench.publish(Log(), "x")
        waiting = asyncio.create_task(bench.hub.drained("t", timeout_s=5))
        await bench.turn()
        assert not waiting.done()
        for reader in readers:
            reader.take()
        await waiting
        await bench.publish(Log(), "y")
        readers[0].outbox.take()
        with pytest.raises(DrainTimeout, match="3 subscriptions"):
            await bench.hub.drained("t", timeout_s=0.01)
        await bench.hub.drained("nobody reads this", timeout_s=0.01)

    play(scenario)


def test_drained_counts_values_that_a_rate_holds_back() -> None:
    async def scenario(bench: Bench) -> None:
        policy = Latest(max_per_s=1)
        reader = FakeReader(CountingEncoder())
        await bench.hub.subscribe("t", policy, reader, rate=1)
        for text in ("0", "1"):
            await bench.publish(policy, text)
            await bench.turn()
            reader.take()
        waiting = asyncio.create_task(bench.hub.drained("t", timeout_s=5))
        await bench.turn()
        assert not waiting.done()
        bench.clock.advance(1)
        reader.take()
        await bench.turn(6)
        assert waiting.done()
        await waiting
        assert reader.texts[-1] == "1"

    play(scenario)


def test_a_reader_that_goes_away_does_not_keep_drained_waiting() -> None:
    async def scenario(bench: Bench) -> None:
        reader = FakeReader(CountingEncoder())
        subscription = await bench.hub.subscribe("t", Log(), reader)
        await bench.publish(Log(), "x")
        waiting = asyncio.create_task(bench.hub.drained("t", timeout_s=5))
        await bench.turn()
        bench.hub.unsubscribe(subscription)
        reader.outbox.close()
        await waiting

    play(scenario)


def test_a_reader_that_ends_its_subscription_at_a_gap_gets_nothing_behind_it() -> None:
    async def scenario(bench: Bench) -> None:
        class Leaving(FakeReader):
            def lost(self, subscription: Subscription, gap: Gap) -> None:
                super().lost(subscription, gap)
                bench.hub.unsubscribe(subscription)

        reader = Leaving(CountingEncoder())
        await bench.publish(Log(), "1")
        subscription = await bench.hub.subscribe("t", Log(), reader)
        fanout, at = bench.hub._fanouts["t"], subscription.at
        assert at is not None
        # what a reader that is not level yet is handed: messages are missing before this one
        fanout.hand_over(subscription, [Message(b"9", Kind.TEXT, at.epoch, at.offset + 8)])
        reader.take()
        assert isinstance(reader.seen[-1], Gap)
        assert [message.payload for message in reader.messages] == [b"1"]

    play(scenario)
