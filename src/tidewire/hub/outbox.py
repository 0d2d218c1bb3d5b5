"""The bounded queue to one connection.

It holds batches: shared, already encoded runs of messages that many outboxes point to. When it is full,
the policy of the topic decides (``Log``: the reader is evicted; ``Signal``: the oldest goes; ``Latest``
never fills it, its values wait in their conflator and are pulled when there is room).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidewire.protocol.position import Position


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of messages as one dialect says it.

    ``items`` are what the connection hands to its socket, one by one (opaque here); ``size_bytes`` and
    ``count`` (messages) are what limits count; ``position`` is that of its last message.
    """

    items: tuple[Any, ...]
    size_bytes: int
    count: int
    position: Position | None = None


class Source(Protocol):
    """What an outbox pulls from when it has room: a subscription that holds values back."""

    def pull(self) -> Batch | None:
        """The next batch, or None when nothing is held back any more."""

    def handed_over(self, batch: Batch) -> None:
        """``batch`` has left for the socket."""


class Carrier(Protocol):
    """Writes one batch to many connections of its kind, in the middle of a flush. Never waits."""

    def write(self, writers: Sequence[Any], batch: Batch) -> list[Any]:
        """Write ``batch`` to every ready one of ``writers``; returns those that have not written all of it."""


class Writer(Protocol):
    """Who writes what an outbox holds: one connection."""

    ready: bool
    """The outbox holds nothing and the peer reads: a flush may write past the outbox."""

    @property
    def carrier(self) -> Carrier:
        """Who does that for this kind of connection."""

    def wake(self) -> None:
        """The outbox has turned from idle to having something, or nothing more will come. No longer ready."""


class _Nobody:
    """Writes nothing: for outboxes whose connections have gone."""

    __slots__ = ("ready",)

    def __init__(self) -> None:
        self.ready = False

    @property
    def carrier(self) -> Carrier:
        return self

    def write(self, writers: Sequence[Any], batch: Batch) -> list[Any]:
        return list(writers)

    def wake(self) -> None:
        pass


_NOBODY = _Nobody()


class Outbox:
    """One connection's queue. The writer is woken when it turns from idle to having something.

    The writer calls ``take`` and, when the batch is written, ``done``. A batch being written still counts.
    """

    __slots__ = (
        "_ahead",
        "_bytes_max",
        "_dirty_sources",
        "_drained",
        "_in_flight",
        "_messages_max",
        "_queue",
        "_sealed",
        "_watches",
        "busy",
        "closed",
        "count",
        "size_bytes",
        "writer",
    )

    def __init__(self, writer: Writer, *, bytes_max: int, messages_max: int) -> None:
        self._bytes_max = bytes_max
        self._messages_max = messages_max
        self.writer = writer
        self._queue: list[tuple[Batch, Source | None]] = []
        # how many at the head of the queue were put ahead of the others
        self._ahead = 0
        # lists: an empty deque takes 600 bytes, and there are two in each of many idle connections
        # taken by the writer and not yet written
        self._in_flight: tuple[Batch, Source | None] | None = None
        # subscriptions to pull from once the queue is empty, in turn
        self._dirty_sources: list[Source] = []
        # resolved when everything has been written; made only while somebody waits
        self._drained: asyncio.Future[None] | None = None
        self.size_bytes = 0
        self.count = 0
        # something waits, or is being written
        self.busy = False
        # where it is listed while it is busy
        self._watches: list[set[Outbox]] = []
        # takes nothing more, but still gives what it has
        self._sealed = False
        self.closed = False

    @property
    def under_pressure(self) -> bool:
        """More than half full."""
        return self.size_bytes * 2 > self._bytes_max or self.count * 2 > self._messages_max

    def has_room(self, batch: Batch) -> bool:
        """Whether ``batch`` fits; there is always room for one when no message waits before it."""
        waiting = self.count if self._in_flight is None else self.count - self._in_flight[0].count
        if not waiting:
            return True
        return self.size_bytes + batch.size_bytes <= self._bytes_max and self.count + batch.count <= self._messages_max

    def offer(self, batch: Batch, source: Source) -> bool:
        """Queue ``batch`` where it fits; False and nothing has happened when it does not: the policy decides.

        What a flush has just begun to write is in the queue's account already and is only given its ``source``.
        """
        if self._in_flight is not None and self._in_flight[0] is batch:
            self._in_flight = (batch, source)
            return True
        if not self.has_room(batch):
            return False
        self.put(batch, source)
        return True

    def begin(self, batch: Batch) -> None:
        """A flush has begun to write ``batch``, and the writer goes on with it."""
        self._set_busy()
        self._in_flight = (batch, None)
        self._count(batch)

    def put(self, batch: Batch, source: Source | None = None) -> None:
        """Queue ``batch`` whether or not there is room: the words of a dialect, and what was made room for."""
        if self._sealed:
            return
        self._queue.append((batch, source))
        self._count(batch)
        self._become_busy()

    def put_ahead(self, batch: Batch) -> None:
        """Queue an answer or a ping behind others of its kind and ahead of everything else.

        Whether or not there is room: who asks is answered as often as it asks, so bound what may be asked.
        """
        if self._sealed:
            return
        self._queue.insert(self._ahead, (batch, None))
        self._ahead += 1
        self._count(batch)
        self._become_busy()

    def watch(self, busy: set[Outbox]) -> None:
        """Be in ``busy`` whenever something waits here, or is being written."""
        self._watches.append(busy)
        if self.busy:
            busy.add(self)

    def unwatch(self, busy: set[Outbox]) -> None:
        """No longer be listed there; twice is nothing."""
        if any(watch is busy for watch in self._watches):
            self._watches = [watch for watch in self._watches if watch is not busy]
            busy.discard(self)

    def _become_busy(self) -> None:
        if not self.busy:
            self._set_busy()
            self.writer.wake()

    def _set_busy(self) -> None:
        self.busy = True
        for watch in self._watches:
            watch.add(self)

    def _count(self, batch: Batch) -> None:
        self.size_bytes += batch.size_bytes
        self.count += batch.count

    def pull_from(self, source: Source) -> None:
        """Ask ``source`` for batches once everything queued has gone."""
        if self._sealed:
            return
        if source not in self._dirty_sources:
            self._dirty_sources.append(source)
        self._become_busy()

    def drop_oldest(self, source: Source) -> int:
        """Drop the oldest queued batch of ``source``; returns how many messages went with it (0: none queued)."""
        for index, (batch, owner) in enumerate(self._queue):
            if owner is source:
                del self._queue[index]
                self._forget(batch)
                return batch.count
        return 0

    def take(self) -> Batch | None:
        """The next batch to write, or None when nothing waits."""
        entry = self._next()
        self._in_flight = entry
        if entry is None:
            self._become_idle()
            return None
        return entry[0]

    def _next(self) -> tuple[Batch, Source | None] | None:
        if self._queue:
            if self._ahead:
                self._ahead -= 1
            return self._queue.pop(0)
        while self._dirty_sources:
            source = self._dirty_sources[0]
            batch = source.pull()
            if batch is not None:
                self._dirty_sources.append(self._dirty_sources.pop(0))
                self._count(batch)
                return batch, source
            self._dirty_sources.pop(0)
        return None

    def done(self) -> None:
        """What ``take`` gave has been written."""
        if self._in_flight is not None:
            batch, source = self._in_flight
            self._in_flight = None
            self._forget(batch)
            if source is not None:
                source.handed_over(batch)
        if not self._queue and not self._dirty_sources:
            self._become_idle()

    def _forget(self, batch: Batch) -> None:
        self.size_bytes -= batch.size_bytes
        self.count -= batch.count

    def discard(self, source: Source) -> None:
        """``source`` has ended without a word to come: drop all that is queued for it."""
        while self.drop_oldest(source):
            pass
        if source in self._dirty_sources:
            self._dirty_sources.remove(source)

    def seal(self) -> None:
        """The connection ends once everything queued by now has been written: ignore what comes later."""
        self._sealed = True
        self.writer.ready = False

    def close(self) -> None:
        """The connection is gone: drop everything, wake nobody but those who wait for the end."""
        self.closed = self._sealed = True
        self.writer.ready = False
        self._queue.clear()
        self._ahead = 0
        self._dirty_sources.clear()
        self._in_flight = None
        self.size_bytes = self.count = 0
        self._become_idle()

    def release(self) -> None:
        """Closed, and nobody reads by it any more: its writer goes, and no cycle is left of the two."""
        self.writer = _NOBODY

    def _become_idle(self) -> None:
        self.busy = False
        for watch in self._watches:
            watch.discard(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drained(self) -> None:
        """Return when everything queued has been written, or the connection is gone."""
        while self.busy:
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
