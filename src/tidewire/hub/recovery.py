"""How a reader goes from where it was to live: one path for first and later subscriptions.

The order is law (DESIGN 6 rule 4): register buffering, read history, splice, live. A long past is
read in pages as the reader takes them, so that memory stays flat; only the last page is buffered for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tidewire.brokers.base import Broker, History
from tidewire.hub.fanout import Fanout
from tidewire.hub.stats import Stats
from tidewire.hub.subscription import Eviction, Gap, Opened, State, Subscription
from tidewire.limits import ABANDONED_AFTER_S, Limits
from tidewire.protocol.message import Message
from tidewire.protocol.position import NOW, START, Position, Since


class ReaderGone(Exception):
    """The reader ended while it was being brought up to date; nothing is left to do."""


async def begin_signal(fanout: Fanout, subscription: Subscription, broker: Broker) -> None:
    """Nothing is kept: live at once, beginning behind what has gathered already."""
    history = await broker.history(fanout.topic, NOW, 0)
    still_there(subscription)
    fanout.flush()
    subscription.reader.opened(subscription, Opened(None, None, 0))
    fanout.go_live(subscription)
    fanout.end_if_over(subscription, None if history is None else history.end)


class LogRecovery:
    """Bring one reader of a ``Log`` from ``since`` to live."""

    def __init__(
        self,
        fanout: Fanout,
        subscription: Subscription,
        *,
        broker: Broker,
        limits: Limits,
        stats: Stats,
        rest_after_gap: bool = True,
    ) -> None:
        self._fanout = fanout
        self._subscription = subscription
        self._broker = broker
        self._limits = limits
        self._stats = stats
        # whether a reader that lost something gets what is still kept, or begins with what comes
        self._rest_after_gap = rest_after_gap
        self._opened = False

    async def run(self, since: Since, noted: Position | None) -> None:
        """``since`` is what the reader asked for; ``noted`` the position before anybody was asked."""
        asked = isinstance(since, Position)
        cursor: Since = since
        if since is NOW:
            # what is published while the caller is being authorised comes after the noted position
            cursor = START if noted is None else noted
        while not await self._step(cursor, asked):
            cursor = self._cursor
            asked = True

    async def _step(self, cursor: Since, asked: bool) -> bool:
        """Read one page and hand it over; returns whether the reader is live (or at the end)."""
        fanout, subscription = self._fanout, self._subscription
        fanout.begin_buffering(subscription)
        history = await self._broker.history(fanout.topic, cursor, self._limits.page_messages_max)
        still_there(subscription)
        assert history is not None, "an attached topic has state"
        if not history.complete and not self._rest_after_gap:
            history = History([], history.top, history.top, False, history.end)
        self._cursor = Position(history.start.epoch, _last_offset(history))
        small = sum(len(message.payload) for message in history.messages) <= self._limits.outbox_bytes_max // 2
        is_last = self._cursor.offset >= history.top.offset and small and not subscription.buffer_full
        is_said = self._tell_beginning(history, cursor, asked, is_last=is_last)
        buffered = fanout.end_buffering(subscription)
        still_there(subscription)
        if not is_last:
            await self._hand_over(history.messages)
            return False
        if history.messages and not is_said:
            subscription.put(subscription.reader.encode(history.messages))
        self._stats.delivered += len(history.messages)
        subscription.at = self._cursor
        fanout.hand_over(subscription, buffered)
        still_there(subscription)
        fanout.go_live(subscription)
        fanout.end_if_over(subscription, history.end)
        return True

    def _tell_beginning(self, history: History, cursor: Since, asked: bool, *, is_last: bool) -> bool:
        """Returns whether the reader has said the messages itself."""
        is_said = False
        if not self._opened:
            self._opened = True
            replayed = history.top.offset - history.start.offset
            recovered = history.complete if asked else None
            self._stats.recovered += bool(recovered)
            page = history.messages if is_last else ()
            is_said = self._subscription.reader.opened(
                self._subscription, Opened(history.start, recovered, replayed, page)
            )
        if not history.complete:
            self._stats.gaps += 1
            lost_from = cursor if isinstance(cursor, Position) else None
            self._subscription.reader.lost(self._subscription, Gap(lost_from, history.start))
        return is_said

    async def _hand_over(self, messages: Sequence[Message]) -> None:
        """Queue a page in pieces that fit, each when the one before has been written."""
        for piece in split_by_size(messages, self._limits.outbox_bytes_max // 4):
            await _drained(self._fanout, self._subscription)
            self._subscription.put(self._subscription.reader.encode(piece))
            self._stats.delivered += len(piece)
        await _drained(self._fanout, self._subscription)


def _last_offset(history: History) -> int:
    return history.messages[-1].offset if history.messages else history.start.offset


async def _drained(fanout: Fanout, subscription: Subscription) -> None:
    """Wait until the reader took what it has; one that takes nothing for long is given up."""
    try:
        async with asyncio.timeout(ABANDONED_AFTER_S):
            await subscription.outbox.drained()
    except TimeoutError:
        fanout.evict(subscription, Eviction.SLOW)
    still_there(subscription)


def still_there(subscription: Subscription) -> None:
    """Raise ``ReaderGone`` when it is not."""
    if subscription.state is State.ENDED:
        raise ReaderGone


def split_by_size(messages: Sequence[Message], bytes_max: int) -> list[Sequence[Message]]:
    """Runs of messages of at most ``bytes_max`` payload bytes each, or of one message that is larger."""
    pieces: list[Sequence[Message]] = []
    begin = size = 0
    for index, message in enumerate(messages):
        if index > begin and size + len(message.payload) > bytes_max:
            pieces.append(messages[begin:index])
            begin, size = index, 0
        size += len(message.payload)
    if begin < len(messages):
        pieces.append(messages[begin:])
    return pieces


async def begin_latest(
    fanout: Fanout,
    subscription: Subscription,
    *,
    broker: Broker,
    stats: Stats,
    since: Since,
    noted: Position | None,
    snapshot: Sequence[Message] | None,
) -> None:
    """Bring one reader of a ``Latest`` topic up to now: what changed since, or the whole state.

    Its values wait in a conflator and are taken as the reader has room, so the state may be of any size.
    """
    history, buffered = await _read_state(fanout, subscription, broker, since)
    messages, start = history.messages, history.start
    recovered: bool | None = None
    if isinstance(since, Position):
        recovered = history.complete
        stats.recovered += recovered
    if snapshot is not None and not recovered:
        # the function's own state stands at the noted position; what changed after it follows
        after = noted.offset if noted is not None and noted.epoch == history.top.epoch else 0
        messages = [*snapshot, *(message for message in history.messages if message.offset > after)]
        start = Position(history.top.epoch, after)
    subscription.reader.opened(subscription, Opened(start, recovered, len(messages)))
    if recovered is False:
        stats.gaps += 1
        subscription.reader.lost(subscription, Gap(since if isinstance(since, Position) else None, start))
    fanout.go_live_conflated(subscription, messages, history.top)
    if subscription.conflator is not None:
        subscription.conflator.hold(buffered)
        subscription.conflator.release()
        subscription.outbox.pull_from(subscription)
    fanout.end_if_over(subscription, history.end)


async def _read_state(
    fanout: Fanout, subscription: Subscription, broker: Broker, since: Since
) -> tuple[History, list[Message]]:
    """The newest of every key, or what changed since a position, and what was delivered while it was read."""
    retention = fanout.policy.retention
    while True:
        fanout.begin_buffering(subscription)
        begin = since if isinstance(since, Position) else START
        # at most so many values and as many tombstones are kept
        history = await broker.history(fanout.topic, begin, 2 * retention.keep)
        still_there(subscription)
        assert history is not None, "an attached topic has state"
        buffered = fanout.end_buffering(subscription)
        renumbered = bool(buffered) and buffered[-1].epoch > history.top.epoch
        if not subscription.buffer_full and not renumbered:
            return history, buffered
