"""A topic's connection on a socket that was handed over: a real hub, a line without a socket, time moved by hand."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.hub.fakes import SlowBroker
from tests.server.fakes import TOPIC, House, Visitor, opens, passes, until
from tests.wire.fakes import FakeTransport
from tests.wire.frames import BINARY, PING, PONG, TEXT, frame
from tidewire.brokers.memory import MemoryBroker
from tidewire.errors import DrainTimeout, TooManyTopics
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.policy import Latest, Log, Policy, Signal
from tidewire.hub.subscription import Eviction, Subscription
from tidewire.protocol.position import START, Position, parse_since
from tidewire.server.connection import Verdict
from tidewire.server.direct import SocketConnection
from tidewire.server.readers import AS_FRAMES, BareReader
from tidewire.wire.open import OpenSocket

KIB = 1024
WORDINGS = pytest.mark.parametrize("bare", [True, False], ids=["bare", "positions"])
SMALL = {"outbox_bytes_max": 400, "outbox_messages_max": 6}


async def furnish(**options: Any) -> House:
    return await House(**options).start()


async def seated(house: House, *, count: int = 1, bare: bool = True, **options: Any) -> list[Visitor]:
    """Visitors that are live."""
    visitors = [Visitor(house, **options).follow(bare=bare) for _ in range(count)]
    await until(lambda: all(visitor.subscription is not None for visitor in visitors), "the subscriptions")
    await until(lambda: all(visitor.connection.ready for visitor in visitors), "everybody is ready")
    return visitors


def data_of(visitor: Visitor) -> list[str]:
    """The texts that were published, as the peer has them."""
    if visitor.is_bare:
        return visitor.texts
    return [one["text"] for one in visitor.envelopes if "text" in one]


# Writing


@WORDINGS
@opens
async def test_a_flush_is_one_write_to_each_ready_connection(bare: bool) -> None:
    house = await furnish()
    visitors = await seated(house, count=50, bare=bare)
    before = [len(visitor.transport.writes) for visitor in visitors]
    texts = [f"m{n}" for n in range(20)]
    await house.publish(*texts)
    await passes()
    for visitor, count in zip(visitors, before, strict=True):
        assert len(visitor.transport.writes) == count + 1
        assert data_of(visitor) == texts
        assert not visitor.connection.outbox.busy
        assert visitor.connection.ready
    # joined once: the same bytes, and not a copy for each
    assert len({id(visitor.transport.writes[-1]) for visitor in visitors}) == 1
    assert house.hub.stats.delivered == 50 * 20


@opens
async def test_binary_is_binary_and_large_frames_have_their_length() -> None:
    house = await furnish()
    (visitor,) = await seated(house)
    messages = ["a", b"\x00\xff", "b" * 125, "c" * 126, b"d" * 65_535, b"e" * 65_536, ""]
    await house.publish(*messages)
    await passes()
    assert [(one.opcode, one.payload) for one in visitor.frames] == [
        (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message) for message in messages
    ]


@WORDINGS
@opens
async def test_a_peer_that_stops_reading_is_queued_for_and_goes_on_in_order(bare: bool) -> None:
    house = await furnish()
    slow, quick = await seated(house, count=2, bare=bare, high_water=0)
    slow.stall()
    for n in range(6):
        await house.publish(f"m{n}")
        await passes()
    assert data_of(slow) == []
    assert len(slow.transport.writes) == (1 if bare else 2), "what it does not read waits in the outbox"
    assert slow.connection.outbox.count == 5
    assert not slow.connection.ready
    assert data_of(quick) == [f"m{n}" for n in range(6)]
    slow.unstall()
    assert data_of(slow) == [f"m{n}" for n in range(6)], "at once: nothing has to be waited for"
    assert slow.connection.ready
    writes = len(slow.transport.writes)
    await house.publish("after")
    await passes()
    assert data_of(slow)[-1] == "after"
    assert len(slow.transport.writes) == writes + 1


@opens
async def test_a_peer_that_stalls_with_the_last_that_waits_is_not_written_to() -> None:
    house = await furnish()
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    for n in range(2):
        await house.publish(f"m{n}")
        await passes()
    # room for a moment: the one that waits fills it again
    visitor.socket.resume_writing()
    visitor.transport._is_over_water = False
    visitor.socket.pause_writing()
    await passes()
    assert not visitor.connection.ready
    assert not visitor.connection.outbox.busy
    writes = len(visitor.transport.writes)
    await house.publish("m2")
    await passes()
    assert len(visitor.transport.writes) == writes
    visitor.unstall()
    visitor.socket.resume_writing()
    assert visitor.texts == ["m0", "m1", "m2"]


@opens
async def test_what_is_published_between_an_unstall_and_the_next_pass_keeps_its_place() -> None:
    house = await furnish()
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    await house.publish("x" * 20)
    await passes()
    # a wake is under way while somebody flushes
    await house.publish("second")
    house.hub.flush()
    visitor.unstall()
    await house.publish("third")
    house.hub.flush()
    visitor.stall()
    await house.publish("fourth")
    house.hub.flush()
    visitor.unstall()
    await passes()
    assert visitor.texts == ["x" * 20, "second", "third", "fourth"]


@opens
async def test_a_large_outbox_is_written_in_pieces_and_others_have_their_turn_between() -> None:
    house = await furnish(outbox_bytes_max=4096 * KIB)
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    texts = [f"{n:03}" + "x" * 100 * KIB for n in range(20)]
    for text in texts:
        await house.publish(text)
        await passes()
    assert visitor.connection.outbox.count == 19
    visitor.unstall()
    amounts = [len(visitor.transport.taken)]
    while visitor.connection.outbox.busy:
        assert not visitor.connection.ready, "a flush would overtake what waits"
        await asyncio.sleep(0)
        amounts.append(len(visitor.transport.taken))
    pieces = [after - before for before, after in itertools.pairwise(amounts)]
    assert len(pieces) >= 6
    assert max(pieces) < 256 * KIB + 101 * KIB, "a piece ends with the batch that made it large enough"
    assert visitor.texts == texts
    await passes()
    assert visitor.connection.ready


@opens
async def test_a_peer_that_stalls_in_the_middle_of_a_large_outbox_goes_on_there() -> None:
    house = await furnish(outbox_bytes_max=4096 * KIB)
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    texts = [f"{n:03}" + "x" * 200 * KIB for n in range(10)]
    for text in texts:
        await house.publish(text)
        await passes()
    visitor.unstall()
    visitor.stall()
    await passes()
    assert 0 < visitor.connection.outbox.count < 9
    assert not visitor.connection.ready
    visitor.unstall()
    await until(lambda: visitor.connection.ready, "it has everything")
    assert visitor.texts == texts


@opens
async def test_drained_waits_for_a_stalled_one_and_says_how_many() -> None:
    house = await furnish()
    slow, _ = await seated(house, count=2, high_water=0)
    slow.stall()
    for n in range(3):
        await house.publish(f"message {n}")
        await passes()
    waiting = asyncio.create_task(house.hub.drained(TOPIC, 20))
    await passes(50)
    assert not waiting.done()
    slow.unstall()
    await waiting
    slow.stall()
    for n in range(3):
        await house.publish(f"message {n}")
        await passes()
    with pytest.raises(DrainTimeout, match="1"):
        await house.hub.drained(TOPIC, 0.001)


@opens
async def test_pings_are_answered_and_change_nothing() -> None:
    house = await furnish()
    (visitor,) = await seated(house)
    visitor.send(frame(PING, b"p"))
    await house.publish("a")
    await passes()
    assert [one.opcode for one in visitor.frames] == [PONG, TEXT]


# Random histories


POLICIES: dict[str, Policy] = {"log": Log(keep=100_000), "latest": Latest(key="k", max_keys=50), "signal": Signal()}
TIGHT = {
    "outbox_bytes_max": 700,
    "outbox_messages_max": 6,
    "gather_messages_max": 5,
    "gather_bytes_max": 300,
    "flush_writes_max": 2,
    "page_messages_max": 4,
    "evict_drain_s": 1.0,
}


class History:
    """One topic, its visitors, and a plain list of everything that was published."""

    def __init__(self, house: House, rng: random.Random) -> None:
        self.house = house
        self.rng = rng
        self.published: list[dict[str, Any]] = []
        self.visitors: list[Visitor] = []
        # how many had been published when each came, and those that have stalled, or gone
        self.came: dict[Visitor, int] = {}
        self.stalled_once: set[Visitor] = set()
        self.gone: set[Visitor] = set()

    async def live(self, steps: int) -> None:
        acts = (
            [self.publish] * 6 + [self.stall, self.unstall] * 2 + [self.come, self.go, self.wait, self.rest, self.rest]
        )
        for _ in range(steps):
            await self.rng.choice(acts)()
            # every change is met by others in the same pass, in the next, or later
            await passes(self.rng.choice([0, 0, 1, 2, 5]))

    async def publish(self) -> None:
        for _ in range(self.rng.choice([1, 1, 2, 7])):
            n = len(self.published)
            value = {"k": self.rng.choice("abcd"), "n": n, "p": "x" * self.rng.choice([0, 0, 20, 90])}
            self.published.append(value)
            await self.house.publish_value(value)
        if self.rng.random() < 0.3:
            self.house.hub.flush()

    async def stall(self) -> None:
        for visitor in self.some():
            self.stalled_once.add(visitor)
            visitor.stall()

    async def unstall(self) -> None:
        for visitor in self.some():
            visitor.unstall()

    async def come(self) -> None:
        if len(self.visitors) < 6:
            visitor = Visitor(self.house, high_water=self.rng.choice([0, 60, 200]))
            self.visitors.append(visitor)
            self.came[visitor] = len(self.published)
            bare = self.rng.random() < 0.5
            noted = await self.house.hub.note(TOPIC)
            visitor.follow(bare=bare, since=START if self.rng.random() < 0.3 else noted or START)

    async def go(self) -> None:
        if self.rng.random() < 0.3:
            for visitor in self.some():
                self.gone.add(visitor)
                visitor.vanish()

    async def wait(self) -> None:
        self.house.clock.advance(self.rng.choice([0.1, 0.6]))

    async def rest(self) -> None:
        await passes(10)

    def some(self) -> list[Visitor]:
        there = [one for one in self.visitors if one not in self.gone and not one.transport.is_closing()]
        return self.rng.sample(there, min(len(there), 1))

    async def end(self) -> None:
        """Everybody reads to the end."""
        for visitor in self.visitors:
            if visitor not in self.gone and not visitor.transport.is_closing():
                visitor.unstall()
        await until(lambda: all(map(self.rests, self.visitors)), "they rest")
        await self.publish()
        await passes(30)

    @staticmethod
    def rests(visitor: Visitor) -> bool:
        """It has an end, or everything there is."""
        is_live = visitor.subscription is not None and visitor.connection.ready
        return is_live or visitor.connection.verdict is not None

    async def leave(self) -> None:
        for visitor in self.visitors:
            if visitor.goodbye is not None and visitor.transport.is_reading():
                visitor.close()
            visitor.vanish()
        await passes()
        self.house.clock.advance(20)
        await passes()
        self.house.check_empty()

    def check(self, visitor: Visitor) -> None:
        assert visitor.transport.imposed == [], "who does not read is not written to"
        seen = [one.get("data", one) for one in visitor.envelopes if "n" in one or "data" in one]
        numbers = [one["n"] for one in seen]
        assert [self.published[n] for n in numbers] == seen, "what was published, unchanged"
        assert numbers == sorted(set(numbers)), "in order and nothing twice"
        policy, goodbye = self.house.policy, visitor.goodbye
        if isinstance(policy, Log):
            assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True, "nothing is missing"
            assert not numbers or numbers[0] <= self.came[visitor], "from its beginning on"
        if goodbye is not None:
            self.check_goodbye(visitor, goodbye, numbers)
        elif visitor not in self.gone and visitor.connection.verdict is None:
            self.check_complete(visitor, seen, numbers)

    def check_goodbye(self, visitor: Visitor, goodbye: tuple[int, str], numbers: list[int]) -> None:
        assert isinstance(self.house.policy, Log), "others conflate, or drop the oldest"
        if not visitor.is_bare:
            assert goodbye == (3008, "too slow")
            return
        code, reason = goodbye
        assert code == 4001
        said = parse_since(reason.removeprefix("gap "))
        assert isinstance(said, Position)
        if numbers:
            # number n has offset n + 1
            assert said.offset == numbers[-1] + 1, "exactly the last one it was sent"
        else:
            assert said.offset <= self.came[visitor]

    def check_complete(self, visitor: Visitor, seen: list[dict[str, Any]], numbers: list[int]) -> None:
        if isinstance(self.house.policy, Latest):
            newest = {one["k"]: one for one in self.published}
            told = {one["k"]: one for one in seen}
            changed = {one["k"] for one in self.published[self.came[visitor] :]}
            assert {key: told[key] for key in changed} == {key: newest[key] for key in changed}
        elif isinstance(self.house.policy, Log):
            assert numbers[-1] == len(self.published) - 1
        else:
            assert numbers[-1] == len(self.published) - 1
            if visitor not in self.stalled_once and not self.house.hub.stats.dropped:
                assert numbers == list(range(numbers[0], len(self.published)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("block", range(5))
def test_random_histories(policy: str, block: int) -> None:
    evicted = goodbyes = written = 0
    for seed in range(block * 40, block * 40 + 40):

        @opens
        async def live(seed: int = seed) -> None:
            nonlocal evicted, goodbyes, written
            house = await furnish(policy=POLICIES[policy], **TIGHT)
            history = History(house, random.Random(seed))
            await history.come()
            await history.live(60)
            await history.end()
            for visitor in history.visitors:
                history.check(visitor)
                goodbyes += visitor.goodbye is not None
                written += len(visitor.texts)
            evicted += house.hub.stats.evicted
            await history.leave()

        try:
            live()
        except BaseException as error:
            error.add_note(f"policy {policy}, seed {seed}")
            raise
    assert written > 1000
    if policy == "log":
        assert evicted > 20
        assert goodbyes > 10, "of those some have read their goodbye"


# A reader that is too slow


async def overflown(bare: bool = True) -> tuple[House, Visitor, list[Position | None]]:
    """A reader of a ``Log`` that was evicted, and what it has been sent before: two messages that it can read."""
    house = await furnish(**SMALL)
    (visitor,) = await seated(house, bare=bare, high_water=0)
    sent = await house.publish("first")
    await passes()
    visitor.stall()
    sent += await house.publish("second")
    await passes()
    for n in range(7):
        await house.publish(f"waits {n}")
        await passes()
    assert house.hub.stats.evicted == 1
    assert house.hub.subscriptions == 0, "unregistered first"
    return house, visitor, sent


@WORDINGS
@opens
async def test_an_evicted_reader_that_reads_in_time_is_told_where_it_stands(bare: bool) -> None:
    house, visitor, sent = await overflown(bare)
    house.clock.advance(0.9)
    await passes()
    assert visitor.transport.aborts == 0
    visitor.unstall()
    assert data_of(visitor) == ["first", "second"], "what is queued goes nowhere"
    assert visitor.goodbye == ((4001, f"gap {sent[-1]}") if bare else (3008, "too slow"))
    assert not house.site.connections, "its place is free"
    visitor.close(*visitor.goodbye)
    await passes()
    house.clock.advance(10)
    await passes()
    assert visitor.transport.aborts == 0
    house.check_empty()


@WORDINGS
@opens
async def test_an_evicted_reader_that_does_not_read_is_aborted_without_a_word(bare: bool) -> None:
    house, visitor, _ = await overflown(bare)
    before = visitor.transport.buffered
    house.clock.advance(0.99)
    await passes()
    assert visitor.transport.aborts == 0
    assert visitor.transport.buffered == before, "a close frame would wait where nobody reads"
    assert house.site.connections
    house.clock.advance(0.02)
    assert visitor.transport.aborts == 1
    assert not house.site.connections
    await passes()
    assert visitor.goodbye is None
    house.check_empty()


@opens
async def test_a_goodbye_that_stays_in_the_transport_is_no_goodbye() -> None:
    """It reads a little, which makes room for the close frame, and then nothing."""
    house, visitor, _ = await overflown()
    visitor.transport.high_water = 1 << 20
    visitor.unstall()
    visitor.stall()
    house.clock.advance(5)
    await passes()
    assert visitor.transport.aborts == 0, "it has taken it"
    assert visitor.goodbye is not None

    house, visitor, _ = await overflown()
    visitor.transport.high_water = 1 << 20
    # below the mark, and still reading nothing: what is written from now on stays in the buffer
    visitor.transport._is_over_water = False
    visitor.socket.resume_writing()
    assert house.site.connections, "as long as it has not gone"
    house.clock.advance(1)
    assert visitor.transport.aborts == 1
    await passes()
    house.check_empty()


@opens
async def test_an_eviction_in_the_middle_of_a_large_outbox_names_what_was_written() -> None:
    """It reads again, 256 KiB of its outbox are written, and then a publisher overflows the rest."""
    house = await furnish(outbox_bytes_max=1024 * KIB, outbox_messages_max=12)
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    positions = []
    for n in range(10):
        positions += await house.publish(f"{n}" + "x" * 90 * KIB)
        await passes()
    visitor.unstall()
    assert visitor.connection.outbox.count == 6, "a piece of it was written"
    for n in range(9):
        await house.publish(f"m{n}")
        house.hub.flush()
    assert house.hub.stats.evicted == 1
    await passes()
    assert [text[0] for text in visitor.texts] == ["0", "1", "2", "3"]
    assert visitor.goodbye == (4001, f"gap {positions[3]}")


@opens
async def test_a_reader_evicted_before_it_was_sent_anything_is_told_where_it_began() -> None:
    house = await furnish(**SMALL)
    (start,) = await house.publish("before")
    visitor = Visitor(house, high_water=0)
    visitor.stall()
    # the line is full before there is anything to be read
    visitor.transport.write(b"")
    visitor.socket.pause_writing()
    visitor.follow(noted=start)
    await until(lambda: visitor.subscription is not None)
    for n in range(7):
        await house.publish(f"m{n}")
        await passes()
    visitor.socket.resume_writing()
    visitor.unstall()
    assert visitor.goodbye == (4001, f"gap {start}")


@opens
async def test_a_signal_drops_the_oldest_and_latest_conflates() -> None:
    house = await furnish(policy=Signal(), **SMALL)
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    for n in range(10):
        await house.publish(f"m{n}")
        await passes()
    visitor.unstall()
    await passes()
    assert visitor.texts == ["m0", *(f"m{n}" for n in range(4, 10))]
    assert house.hub.stats.dropped == 3

    house = await furnish(policy=Latest(key="k"), **SMALL)
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    for n in range(30):
        await house.publish_value({"k": "ab"[n % 2], "n": n})
        await passes()
    visitor.unstall()
    await passes()
    assert [one["n"] for one in visitor.envelopes][-2:] == [28, 29]
    assert len(visitor.texts) <= 6
    assert visitor.goodbye is None


# Ends


@WORDINGS
@opens
async def test_the_end_of_a_topic_comes_after_everything_then_the_last_words_then_1000(bare: bool) -> None:
    house = await furnish()
    quick, slow = await seated(house, count=2, bare=bare, high_water=0)
    slow.stall()
    for n in range(5):
        await house.publish(f"m{n}")
        await passes()
    await house.finish("no more")
    await passes()
    assert slow.goodbye is None
    assert not slow.connection.ready
    house.clock.advance(5)
    await passes()
    assert slow.transport.aborts == 0, "what is queued is worth waiting for"
    slow.unstall()
    await passes()
    for visitor in (quick, slow):
        assert data_of(visitor) == [f"m{n}" for n in range(5)]
        assert visitor.goodbye == (1000, "no more")
        if not bare:
            assert visitor.envelopes[-1]["end"]["error"] == "no more"
        visitor.close()
    await passes()
    house.check_empty()


@opens
async def test_a_peer_that_does_not_take_the_end_of_a_topic_is_dropped() -> None:
    house = await furnish()
    (visitor,) = await seated(house, bare=False)
    visitor.stall()
    await house.publish("x")
    await house.finish()
    await passes()
    # below the water mark: the goodbye is written, and the kernel takes nothing of it
    assert visitor.transport.buffered.endswith(b"\x88\x02\x03\xe8")
    assert house.site.connections
    house.clock.advance(0.9)
    assert visitor.transport.aborts == 0
    house.clock.advance(0.2)
    assert visitor.transport.aborts == 1
    await passes()
    house.check_empty()


@WORDINGS
@opens
async def test_a_shutdown_sends_everything_that_is_queued_and_1012(bare: bool) -> None:
    house = await furnish()
    quick, slow = await seated(house, count=2, bare=bare, high_water=0)
    slow.stall()
    for n in range(5):
        await house.publish(f"m{n}")
        await passes()
    await house.publish("not flushed yet")
    house.hub.evict_all(Eviction.SHUTDOWN)
    await passes()
    assert quick.goodbye == (1012, "the server stops")
    assert slow.goodbye is None
    slow.unstall()
    await passes()
    for visitor in (quick, slow):
        assert data_of(visitor) == [*(f"m{n}" for n in range(5)), "not flushed yet"]
        assert visitor.goodbye == (1012, "the server stops")
        visitor.close(1012)
    await passes()
    house.check_empty()


@opens
async def test_the_first_decision_stands_and_nothing_comes_after_it() -> None:
    house = await furnish()
    (visitor,) = await seated(house)
    visitor.connection.end(Verdict(4000, "first", abrupt=False))
    visitor.connection.end(Verdict(4002, "second"))
    await house.publish("too late")
    await passes()
    assert visitor.texts == []
    assert visitor.goodbye == (4000, "first")
    assert not visitor.connection.ready


@opens
async def test_a_reason_that_is_too_long_is_cut() -> None:
    house = await furnish()
    (visitor,) = await seated(house)
    visitor.connection.end(Verdict(4000, "ä" * 200))
    await passes()
    assert visitor.goodbye is not None
    assert 100 < len(visitor.goodbye[1].encode()) <= 123


@pytest.mark.parametrize("when", ["resting", "woken", "stalled", "ending", "gone"])
@opens
async def test_dropping_is_an_abort_whatever_was_decided(when: str, caplog: pytest.LogCaptureFixture) -> None:
    house = await furnish()
    (visitor,) = await seated(house, high_water=0)
    if when == "woken":
        visitor.connection.outbox.put(Batch((b"\x81\x01x",), 3, 0))
    elif when == "stalled":
        visitor.stall()
        await house.publish("a")
        await passes()
        await house.publish("b")
        await passes()
    elif when == "ending":
        visitor.connection.end(Verdict(4000, abrupt=False))
    elif when == "gone":
        visitor.vanish()
        await passes()
    before = list(visitor.transport.writes)
    visitor.connection.drop()
    assert not house.site.connections
    assert visitor.transport.aborts
    await passes()
    assert visitor.transport.writes == before, "no word to nobody"
    house.clock.advance(20)
    house.check_empty()
    assert not caplog.records


# The peer goes


async def resting(house: House) -> Visitor:
    return (await seated(house, high_water=0))[0]


async def woken(house: House) -> Visitor:
    visitor = await resting(house)
    visitor.connection.outbox.put(Batch((b"\x81\x01x",), 3, 0))
    return visitor


async def queueing(house: House) -> Visitor:
    visitor = await resting(house)
    visitor.stall()
    for n in range(3):
        await house.publish(f"m{n}")
        await passes()
    return visitor


async def evicted(house: House) -> Visitor:
    visitor = await queueing(house)
    house.hub.evict_all(Eviction.SLOW)
    await passes()
    return visitor


async def finished_and_queueing(house: House) -> Visitor:
    visitor = await queueing(house)
    await house.finish()
    await passes()
    return visitor


async def said_goodbye(house: House) -> Visitor:
    visitor = await resting(house)
    visitor.connection.end(Verdict(4000))
    await passes()
    return visitor


async def subscribing(house: House) -> Visitor:
    return Visitor(house, high_water=0).follow()


async def taking_history(house: House) -> Visitor:
    """In the middle of a past that it does not read."""
    await house.publish(*(f"m{n}" for n in range(200)))
    visitor = Visitor(house, high_water=0)
    visitor.stall()
    visitor.follow(since=START)
    await passes(20)
    assert visitor.subscription is None
    assert house.hub.subscriptions == 1
    return visitor


STATES: list[Callable[[House], Any]] = [
    resting, woken, queueing, evicted, finished_and_queueing, said_goodbye, subscribing, taking_history,
]  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["closes", "vanishes", "vanishes a pass later", "the server hurries"])
@opens
async def test_a_peer_that_goes_leaves_nothing_in_any_state(
    state: Callable[[House], Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = await furnish(page_messages_max=4)
    visitor = await state(house)
    assert house.site.addresses == {"10.0.0.1": 1} or visitor.connection.verdict is not None
    if how == "closes":
        visitor.close(1001, "bye")
    elif how == "the server hurries":
        visitor.socket.shutdown()
        visitor.vanish()
    else:
        await passes("later" in how)
        visitor.vanish()
    await passes()
    visitor.unstall()
    await passes()
    house.clock.advance(30)
    await passes()
    await house.hub.close()
    house.check_empty()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_peer_that_goes_while_a_slow_broker_brings_it_up_to_date_leaves_nothing(policy: str) -> None:
    for seed in range(40):
        try:
            come_and_go(policy, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@opens
async def come_and_go(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    broker = SlowBroker(MemoryBroker(), rng)
    house = await furnish(broker=broker, policy=POLICIES[policy], page_messages_max=4)
    for n in range(20):
        await house.publish_value({"k": "abcd"[n % 4], "n": n})
    visitors = []
    for n in range(8):
        visitor = Visitor(house, high_water=rng.choice([0, 100]), address=f"10.0.0.{n % 3}")
        visitors.append(visitor.follow(bare=bool(n % 2), since=START))
        if rng.random() < 0.3:
            visitor.stall()
    for visitor in rng.sample(visitors, len(visitors)):
        await passes(rng.randrange(4))
        broker.carry(rng.randrange(3))
        if rng.random() < 0.5:
            visitor.vanish()
        else:
            visitor.close()
    await passes(50)
    for visitor in visitors:
        visitor.unstall()
    house.clock.advance(30)
    await until(lambda: len(asyncio.all_tasks()) == 1, "the end of all tasks")
    await passes()
    house.check_empty()
    assert not house.hub.topics, "the topic is not attached for nobody"


# What goes wrong


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TooManyTopics(5), 1013, str(TooManyTopics(5))),
        (LookupError("a bug"), 1011, "the server failed; its log has the error"),
    ],
    ids=["too many topics", "a bug"],
)
@opens
async def test_a_subscription_that_fails_ends_this_connection(
    error: Exception, code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = await furnish()
    (other,) = await seated(house)
    visitor = Visitor(house)

    async def subscribe() -> Subscription:
        raise error

    visitor.connection.follow(subscribe)
    await passes()
    assert visitor.goodbye is not None
    assert visitor.goodbye[0] == code
    assert reason.startswith(visitor.goodbye[1][:100])
    visitor.close(code)
    await house.publish("x")
    await passes()
    assert other.texts == ["x"]
    bugs = [record for record in caplog.records if record.exc_info]
    assert len(bugs) == (code == 1011)
    if bugs:
        assert bugs[0].exc_info is not None and bugs[0].exc_info[1] is error
    other.vanish()
    await passes()
    house.clock.advance(20)
    house.check_empty()


@opens
async def test_who_has_gone_before_it_follows_asks_for_nothing() -> None:
    house = await furnish()
    visitor = Visitor(house)
    visitor.vanish()
    await passes()
    asked = []

    async def subscribe() -> Subscription:
        asked.append(1)
        raise AssertionError

    visitor.connection.follow(subscribe)
    await passes()
    assert not asked
    house.check_empty()


@opens
async def test_a_topic_that_takes_no_messages_says_so_to_the_first() -> None:
    house = await furnish()
    (visitor,) = await seated(house)
    visitor.say("hello", "again")
    await passes()
    assert visitor.goodbye == (1008, "this topic takes no messages from clients")
    visitor.say("more of it")
    visitor.close(1008)
    await passes()
    house.clock.advance(20)
    house.check_empty()


@opens
async def test_an_abrupt_end_drops_what_is_queued() -> None:
    house = await furnish()
    (visitor,) = await seated(house, high_water=0)
    visitor.stall()
    for n in range(3):
        await house.publish(f"m{n}")
        await passes()
    visitor.say("hello")
    await passes()
    assert not visitor.connection.outbox.busy
    visitor.unstall()
    assert visitor.texts == ["m0"]
    assert visitor.goodbye == (1008, "this topic takes no messages from clients")


# Memory


@opens
async def test_an_idle_connection_is_small() -> None:
    """A task, a dict or a deque for each would show: 600 bytes and more."""
    house = await furnish()
    lines = [FakeTransport() for _ in range(1000)]
    connections = []
    keep: list[Any] = []

    async def enter(line: FakeTransport) -> None:
        socket = OpenSocket(line, house.shared, None, max_size=1 << 20)  # type: ignore[arg-type]
        connection = SocketConnection(socket, house.site, "10.0.0.1", None)
        socket.owner = connection
        socket.start()
        reader = BareReader(connection, AS_FRAMES, every_message_counts=True)
        connection.follow(lambda: house.hub.subscribe(TOPIC, house.policy, reader))
        connections.append(connection)

    await enter(FakeTransport())
    await passes()
    gc.collect()
    tracemalloc.start()
    try:
        for line in lines:
            await enter(line)
        await passes(20)
        await house.publish("x")
        await passes(20)
        for line in lines:
            line.writes.clear()
            line.taken = b""
        keep.clear()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(connection.ready for connection in connections)
    print(f"{size / 1000:.0f} bytes each")
    assert size / 1000 < 3000
    assert not hasattr(connections[0], "__dict__")
    assert not hasattr(connections[0].outbox, "__dict__")
    assert isinstance(connections[0].outbox, Outbox)
    assert len(asyncio.all_tasks()) == 1
    for line in lines:
        line.lose()
    await passes()
