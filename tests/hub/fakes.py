"""A reader without a socket, and a broker that takes its time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from tidewire.brokers.base import Created, Deliver, History, Published, Retention
from tidewire.brokers.memory import MemoryBroker
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.subscription import Encode, Eviction, Gap, Opened, Subscription
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.position import Position, Since


class CountingEncoder:
    """An encoder whose items are the messages themselves, and which counts its work."""

    def __init__(self) -> None:
        self.calls = 0
        self.messages = 0

    def __call__(self, messages: Sequence[Message]) -> Batch:
        self.calls += 1
        self.messages += len(messages)
        last = messages[-1]
        position = Position(last.epoch, last.offset) if last.offset else None
        return Batch(tuple(messages), sum(len(m.payload) for m in messages), len(messages), position)


Event = Message | Gap | Opened | End | Eviction


class Courier:
    """Writes to ready readers at once, and counts."""

    def __init__(self) -> None:
        # how many readers each call had
        self.calls: list[int] = []

    def write(self, writers: Sequence[FakeReader], batch: Batch) -> list[FakeReader]:
        self.calls.append(len(writers))
        held = []
        for writer in writers:
            if writer.ready:
                writer.written += batch.items
                writer.seen += batch.items
            else:
                held.append(writer)
        return held


_COURIER = Courier()


class FakeReader:
    """Takes from its outbox only when told to; remembers everything in the order a client would see it."""

    def __init__(
        self, encode: Encode, *, bytes_max: int = 1 << 20, messages_max: int = 1000, carrier: Courier | None = None
    ) -> None:
        self._encode = encode
        self.carrier = carrier or _COURIER
        self._outbox = Outbox(self, bytes_max=bytes_max, messages_max=messages_max)
        self.ready = False
        self.wakes = 0
        # items written without queueing
        self.written: list[Any] = []
        self.seen: list[Event] = []
        self.end: End | None = None
        self.eviction: Eviction | None = None

    @property
    def outbox(self) -> Outbox:
        return self._outbox

    @property
    def encode(self) -> Encode:
        return self._encode

    def wake(self) -> None:
        self.wakes += 1
        self.ready = False

    def rest(self) -> bool:
        """The writer sleeps if there is nothing to be written: a flush may write past the outbox."""
        self.ready = not self._outbox.busy and not self._outbox.closed and self.end is None
        return self.ready

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        self._outbox.put(Batch((Opened(how.start, how.recovered, how.replayed),), 0, 0))
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        self._outbox.put(Batch((gap,), 0, 0))

    def ended(self, subscription: Subscription, end: End) -> None:
        self.end = end
        self._outbox.seal()

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        self.eviction = why
        self._outbox.close()

    def take(self, batches: int = 1_000_000) -> int:
        """Read up to ``batches`` batches; returns how many there were."""
        for taken in range(batches):
            batch = self._outbox.take()
            if batch is None:
                return taken
            self.seen += batch.items
            self._outbox.done()
        return batches

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.seen if isinstance(event, Message)]

    @property
    def texts(self) -> list[str]:
        return [message.payload.decode() for message in self.messages]

    @property
    def opening(self) -> Opened:
        (opened,) = [event for event in self.seen if isinstance(event, Opened)]
        return opened


class SlowBroker:
    """A memory broker behind a wire: answers take passes of the loop, deliveries wait until they are carried."""

    shared = True

    def __init__(self, inner: MemoryBroker, rng: random.Random) -> None:
        self.inner = inner
        self._rng = rng
        self._deliver: Deliver | None = None
        self._carried: deque[tuple[str, Message | End]] = deque()

    async def _pause(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)

    def carry(self, count: int = 1_000_000) -> None:
        """Let ``count`` waiting deliveries arrive."""
        while self._carried and count > 0:
            count -= 1
            topic, event = self._carried.popleft()
            assert self._deliver is not None
            self._deliver(topic, event)

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        await self.inner.start(lambda topic, event: self._carried.append((topic, event)))

    async def close(self) -> None:
        await self.inner.close()

    async def publish(self, topic: str, draft: Draft, retention: Retention) -> Published:
        return await self.inner.publish(topic, draft, retention)

    async def position(self, topic: str) -> Position | None:
        return await self.inner.position(topic)

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        await self._pause()
        history = await self.inner.history(topic, since, limit)
        await self._pause()
        return history

    async def finish(self, topic: str, error: str | None, retention: Retention, terms: Terms | None = None) -> End:
        return await self.inner.finish(topic, error, retention, terms)

    async def create(
        self, topic: str, stream: Stream, first: Draft | None, retention: Retention, *, closed: bool = False
    ) -> Created:
        return await self.inner.create(topic, stream, first, retention, closed=closed)

    async def drop(self, topic: str) -> bool:
        return await self.inner.drop(topic)

    async def attach(self, topic: str, retention: Retention) -> None:
        await self._pause()
        await self.inner.attach(topic, retention)

    async def detach(self, topic: str) -> None:
        await self._pause()
        await self.inner.detach(topic)

    def lose_state(self, topic: str, retention: Retention) -> None:
        """The store loses the topic: numbering restarts, readers stay attached."""
        state = self.inner._topics.pop(topic, None)
        if state is not None and state.attached:
            self.inner._touch(topic, retention).attached = True
