"""Readers of one topic that want the same bytes at the same time: encoded once, shared by all of them.

This is where the scaling law lives: a flush of M messages to N readers encodes M and puts N references.
Only readers that lag, conflate or catch up pay for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidewire.hub.conflator import Conflator
from tidewire.hub.outbox import Batch, Writer
from tidewire.hub.pump import Pump
from tidewire.hub.subscription import Encode, Subscription
from tidewire.protocol.message import Message
from tidewire.protocol.position import Position, position_of


class _Shared:
    """Readers that share batches, by their connections: a flush touches nothing else of who is ready."""

    __slots__ = ("_position", "_writers", "of")

    def __init__(self) -> None:
        self.of: dict[Writer, Subscription] = {}
        # its keys, until somebody comes or goes
        self._writers: tuple[Writer, ...] | None = None
        # of the last batch before: what a reader has written that has not queued anything since
        self._position: Position | None = None

    def join(self, subscription: Subscription) -> None:
        self.of[subscription.outbox.writer] = subscription
        self._writers = None

    def leave(self, subscription: Subscription) -> None:
        writer = subscription.outbox.writer
        if self.of.get(writer) is subscription:
            del self.of[writer]
            self._writers = None

    def write(self, batch: Batch, pump: Pump) -> list[Subscription]:
        """Write ``batch`` to those that are ready; returns the others, to queue it."""
        if self._writers is None:
            self._writers = tuple(self.of)
        held = [self.of[writer] for writer in pump.write(self._writers, batch) if writer in self.of]
        for subscription in held:
            if not subscription.outstanding and self._position is not None:
                # it was ready until now, and this was not noted for each batch
                subscription.sent = max(self._position, subscription.sent or self._position)
        self._position = batch.position
        return held


class StreamLane:
    """Live readers of a ``Log`` or ``Signal`` topic that share an encoding."""

    __slots__ = ("_encode", "_live")

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._live = _Shared()

    def __len__(self) -> int:
        return len(self._live.of)

    def join(self, subscription: Subscription) -> None:
        """The reader has everything flushed so far."""
        self._live.join(subscription)

    def leave(self, subscription: Subscription) -> None:
        """The reader is gone; twice is nothing."""
        self._live.leave(subscription)

    def flush(self, messages: Sequence[Message], pump: Pump) -> tuple[Batch, list[Subscription]]:
        """Encode once and hand to all; returns the batch and those that had no room for it."""
        batch = self._encode(messages)
        return batch, [held for held in self._live.write(batch, pump) if not held.offer(batch)]


def make_room(subscription: Subscription, batch: Batch) -> int:
    """The overflow rule of ``Signal``: the oldest goes, then ``batch`` is queued. Returns messages dropped."""
    outbox = subscription.outbox
    dropped = 0
    while not outbox.has_room(batch):
        count = outbox.drop_oldest(subscription)
        if not count:
            # other topics of this connection fill it: what is newest here is what goes
            return dropped + batch.count
        subscription.outstanding -= 1
        dropped += count
    subscription.put(batch)
    return dropped


class ConflatedLane:
    """Readers of a ``Latest`` topic that share an encoding and a rate."""

    __slots__ = ("_encode", "_keys_max", "_lagging", "_last_flush", "_live", "_pending", "rate")

    def __init__(self, encode: Encode, rate: float | None, keys_max: int) -> None:
        self._encode = encode
        self._keys_max = keys_max
        # flushes per second at most; None: as often as the hub flushes
        self.rate = rate
        # changed since the last flush, newest value of each key, in the order of offsets
        self._pending: dict[str | None, Message] = {}
        self._last_flush = float("-inf")
        # readers that took everything: they share the batch
        self._live = _Shared()
        # readers that have not: each has a conflator of its own
        self._lagging: dict[Subscription, Conflator] = {}

    def __len__(self) -> int:
        return len(self._live.of) + len(self._lagging)

    def add(self, messages: Iterable[Message]) -> None:
        """Note what has changed."""
        for message in messages:
            self._pending.pop(message.key, None)
            self._pending[message.key] = message

    @property
    def pending(self) -> bool:
        """Whether a flush would carry something."""
        return bool(self._pending)

    def due_in(self, now: float) -> float:
        """Seconds until the rate permits the next flush; 0 or less: now."""
        return 0.0 if self.rate is None else self._last_flush + 1 / self.rate - now

    def join(self, subscription: Subscription, snapshot: Iterable[Message], seen: Position) -> None:
        """Begin with the state at ``seen``; the reader lags until it has taken that."""
        conflator = subscription.conflator = Conflator()
        conflator.load(snapshot, seen)
        self._lagging[subscription] = conflator
        subscription.outbox.pull_from(subscription)

    def leave(self, subscription: Subscription) -> None:
        """The reader is gone."""
        self._live.leave(subscription)
        self._lagging.pop(subscription, None)

    def flush(self, now: float, pump: Pump) -> tuple[int, list[Subscription]]:
        """Carry what is pending to everybody; returns messages queued, and readers that hold back too many keys."""
        if not self._pending:
            return 0, []
        self._last_flush = now
        messages = list(self._pending.values())
        self._pending.clear()
        self._settle(position_of(messages[0]))
        lost = self._flush_lagging(messages)
        return self._flush_live(messages, pump), lost

    def _flush_live(self, messages: list[Message], pump: Pump) -> int:
        if not self._live.of:
            return 0
        batch = self._encode(messages)
        readers, lags = len(self._live.of), 0
        for held in self._live.write(batch, pump):
            if held.outstanding >= 2 or not held.offer(batch):
                self._begin_to_lag(held, messages)
                lags += 1
        return (readers - lags) * batch.count

    def _begin_to_lag(self, subscription: Subscription, messages: list[Message]) -> None:
        self._live.leave(subscription)
        conflator = subscription.conflator = Conflator()
        self._lagging[subscription] = conflator
        self._give(subscription, conflator, messages)

    def _flush_lagging(self, messages: list[Message]) -> list[Subscription]:
        lost = []
        for subscription, conflator in list(self._lagging.items()):
            self._give(subscription, conflator, messages)
            if len(conflator) > 2 * self._keys_max:
                lost.append(subscription)
        return lost

    def _give(self, subscription: Subscription, conflator: Conflator, messages: list[Message]) -> None:
        conflator.hold(messages)
        conflator.release()
        subscription.outbox.pull_from(subscription)

    def _settle(self, oldest_pending: Position) -> None:
        """Let readers that have taken everything up to this flush share batches again."""
        for subscription, conflator in list(self._lagging.items()):
            if not len(conflator) and subscription.outstanding == 0 and conflator.seen < oldest_pending:
                del self._lagging[subscription]
                subscription.conflator = None
                self._live.join(subscription)

    def restart(self, epoch: str) -> None:
        """The topic has lost its state and readers are told: what waits from before ``epoch`` is part of it."""
        self._pending.clear()
        for conflator in self._lagging.values():
            if conflator.seen.epoch != epoch:
                conflator.clear()
