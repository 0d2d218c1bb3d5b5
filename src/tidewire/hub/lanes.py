"""Readers of one topic that want the same bytes at the same time: encoded once, shared by all of them.

This is where the scaling law lives: a flush of M messages to N readers encodes M, joins them once, and hands N
references on. Only readers that lag, conflate or catch up pay for themselves. Who reads in crowds is written to in a
*sweep*, some in each pass of the event loop, so that thousands of them hold up nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidewire.hub.conflator import Conflator
from tidewire.hub.outbox import Batch, Carrier, Writer
from tidewire.hub.subscription import Encode, Subscription
from tidewire.protocol.message import Message
from tidewire.protocol.position import Position, position_of

_BYTES_PER_UNIT = 8192


class Sweep:
    """One batch on its way to those who shared it when it was begun."""

    __slots__ = ("_at", "_groups", "_sent_before", "_shared", "batch", "cost", "left")

    def __init__(self, shared: _Shared, batch: Batch, sent_before: Position | None) -> None:
        self.batch = batch
        # what one write counts in the budget of a pass: large ones take longer
        self.cost = 1 + batch.size_bytes // _BYTES_PER_UNIT
        # who has left meanwhile: not even a return makes this batch theirs
        self.left: set[Writer] = set()
        self._shared = shared
        self._groups = list(shared.groups())
        self._at = 0
        # of the last batch before: what a reader has written that has not queued anything since
        self._sent_before = sent_before

    @property
    def is_done(self) -> bool:
        """Everybody had a turn."""
        return not self._groups

    def step(self, most: int) -> tuple[int, list[Subscription]]:
        """Write to the next ``most``; returns how many had their turn, and those that are to queue it."""
        held: list[Subscription] = []
        turns = 0
        while self._groups and turns < most:
            carrier, writers = self._groups[-1]
            here: Sequence[Writer] = writers[self._at : self._at + most - turns]
            turns += len(here)
            self._at += len(here)
            if self._at == len(writers):
                self._groups.pop()
                self._at = 0
            if self.left:
                here = [writer for writer in here if writer not in self.left]
            held += [self._shared.of[writer] for writer in carrier.write(here, self.batch) if writer in self._shared.of]
        for subscription in held:
            if not subscription.outstanding and self._sent_before is not None:
                # it was ready until now, and this was not noted for each batch
                subscription.sent = max(self._sent_before, subscription.sent or self._sent_before)
        return turns, held


class _Shared:
    """Readers that share batches, by their connections: a flush touches nothing else of who is ready."""

    __slots__ = ("_groups", "_position", "of", "sweep")

    def __init__(self) -> None:
        self.of: dict[Writer, Subscription] = {}
        # the batch that is under way
        self.sweep: Sweep | None = None
        # the connections by who writes to them, until somebody comes or goes
        self._groups: tuple[tuple[Carrier, tuple[Writer, ...]], ...] | None = None
        # of the last batch begun
        self._position: Position | None = None

    def join(self, subscription: Subscription) -> None:
        self.of[subscription.outbox.writer] = subscription
        self._groups = None

    def leave(self, subscription: Subscription) -> None:
        writer = subscription.outbox.writer
        if self.of.get(writer) is subscription:
            del self.of[writer]
            self._groups = None
            if self.sweep is not None:
                self.sweep.left.add(writer)

    def groups(self) -> tuple[tuple[Carrier, tuple[Writer, ...]], ...]:
        """The connections of each carrier."""
        if self._groups is None:
            groups: dict[Carrier, list[Writer]] = {}
            for writer in self.of:
                groups.setdefault(writer.carrier, []).append(writer)
            self._groups = tuple((carrier, tuple(writers)) for carrier, writers in groups.items())
        return self._groups

    def begin(self, batch: Batch) -> None:
        """Start to write ``batch`` to everybody; the one before is done."""
        if self.of:
            self.sweep = Sweep(self, batch, self._position)
        self._position = batch.position

    def step(self, budget: int) -> tuple[int, int, list[Subscription]]:
        """Go on within ``budget``; returns what it has cost, how many had their turn, and who is to queue."""
        sweep = self.sweep
        if sweep is None:
            return 0, 0, []
        turns, held = sweep.step(max(1, budget // sweep.cost))
        if sweep.is_done:
            self.sweep = None
        return turns * sweep.cost, turns, held


class StreamLane:
    """Live readers of a ``Log`` or ``Signal`` topic that share an encoding."""

    __slots__ = ("_encode", "_live")

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._live = _Shared()

    def __len__(self) -> int:
        return len(self._live.of)

    @property
    def is_sweeping(self) -> bool:
        """A batch has not reached everybody yet."""
        return self._live.sweep is not None

    def join(self, subscription: Subscription) -> None:
        """The reader has everything flushed so far."""
        self._live.join(subscription)

    def leave(self, subscription: Subscription) -> None:
        """The reader is gone; twice is nothing."""
        self._live.leave(subscription)

    def begin(self, messages: Sequence[Message]) -> None:
        """Encode once, to be swept to all; nothing is being swept."""
        if self._live.of:
            self._live.begin(self._encode(messages))

    def sweep(self, budget: int) -> tuple[int, int, Batch | None, list[Subscription]]:
        """Go on; returns the cost, messages delivered, the batch, and those that had no room for it."""
        sweep = self._live.sweep
        if sweep is None:
            return 0, 0, None, []
        cost, turns, held = self._live.step(budget)
        full = [subscription for subscription in held if not subscription.offer(sweep.batch)]
        return cost, (turns - len(full)) * sweep.batch.count, sweep.batch, full


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

    __slots__ = ("_encode", "_keys_max", "_lagging", "_last_flush", "_live", "_pending", "_sweeping", "rate")

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
        # the messages that are being swept to them
        self._sweeping: list[Message] = []
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

    @property
    def is_sweeping(self) -> bool:
        """A batch has not reached everybody yet."""
        return self._live.sweep is not None

    def begin(self, now: float) -> list[Subscription]:
        """Carry what is pending to those who lag, and begin to sweep it to the others; nothing is being swept.

        Returns readers that hold back too many keys.
        """
        if not self._pending:
            return []
        self._last_flush = now
        messages = list(self._pending.values())
        self._pending.clear()
        self._settle(position_of(messages[0]))
        lost = self._flush_lagging(messages)
        if self._live.of:
            self._sweeping = messages
            self._live.begin(self._encode(messages))
        return lost

    def sweep(self, budget: int) -> tuple[int, int]:
        """Go on; returns the cost, and messages delivered. Who cannot take it begins to lag."""
        sweep = self._live.sweep
        if sweep is None:
            return 0, 0
        cost, turns, held = self._live.step(budget)
        lags = 0
        for subscription in held:
            if subscription.outstanding >= 2 or not subscription.offer(sweep.batch):
                self._begin_to_lag(subscription, self._sweeping)
                lags += 1
        return cost, (turns - lags) * sweep.batch.count

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
