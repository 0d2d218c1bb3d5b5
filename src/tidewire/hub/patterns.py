"""Readers of patterns: what is delivered on every topic that matches, as one stream of its own.

A pattern has no history and no positions. Its messages are numbered here, in the order of delivery, so that lanes,
conflation and overflow are those of a single topic; each says which topic it is of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgspec

from tidewire.brokers.base import Broker, PatternBroker
from tidewire.errors import TooManyTopics
from tidewire.hub.fanout import Fanout
from tidewire.hub.recovery import still_there
from tidewire.hub.subscription import Opened, Subscription
from tidewire.protocol.message import Message
from tidewire.protocol.patterns import PatternIndex, is_pattern, parse_pattern
from tidewire.protocol.position import START, Position

# the numbering of one pattern on one node: it is never told
_EPOCH = "pattern"

Admits = Callable[[str], bool]
"""Whether a pattern reaches a topic that matches: who may read it decides that, not the hub."""


class PatternGroup:
    """All readers of one pattern: their fan-out, and what they may see."""

    __slots__ = ("_admits", "_offset", "fanout", "segments")

    def __init__(self, fanout: Fanout, segments: tuple[str, ...], admits: Admits) -> None:
        self.fanout = fanout
        self.segments = segments
        self._admits = admits
        # messages numbered so far
        self._offset = 0

    @property
    def position(self) -> Position:
        """Of the newest message."""
        return Position(_EPOCH, self._offset)

    def take(self, topic: str, message: Message) -> Message | None:
        """``message`` as one of this pattern; None when it is not for its readers."""
        if not self._admits(topic):
            return None
        self._offset += 1
        return _renumbered(topic, message, self._offset)

    async def read_state(self, broker: Broker, limit: int) -> list[Message]:
        """The newest values of every topic of the pattern (``Latest``). Raises ``TooManyTopics``."""
        assert isinstance(broker, PatternBroker)
        state: list[Message] = []
        topics = [topic for topic in await broker.topics(self.fanout.topic) if self._admits(topic)]
        if len(topics) > limit:
            raise TooManyTopics(limit)
        for topic in topics:
            history = await broker.history(topic, START, self.fanout.policy.retention.keep)
            if history is not None:
                state += [_renumbered(topic, one, self._offset) for one in history.messages if not one.removed]
        return state


def _renumbered(topic: str, message: Message, offset: int) -> Message:
    """Values of different topics are different values: a key is one of its topic."""
    key = topic if message.key is None else f"{topic}\0{message.key}"
    return msgspec.structs.replace(message, topic=topic, epoch=_EPOCH, offset=offset, key=key)


def begin_live(group: PatternGroup, subscription: Subscription) -> None:
    """Nothing is replayed: live at once, beginning behind what has gathered already."""
    still_there(subscription)
    group.fanout.flush()
    subscription.reader.opened(subscription, Opened(None, None, 0))
    group.fanout.go_live(subscription)


async def begin_latest_of(group: PatternGroup, subscription: Subscription, broker: Broker, limit: int) -> None:
    """The newest values first, then what changes; of what changes meanwhile the newest counts."""
    fanout = group.fanout
    fanout.flush()
    seen = group.position
    fanout.begin_buffering(subscription)
    try:
        state = await group.read_state(broker, limit)
        # many topics: others have had no turn
        await asyncio.sleep(0)
    finally:
        buffered = fanout.end_buffering(subscription)
    still_there(subscription)
    subscription.reader.opened(subscription, Opened(None, None, len(state)))
    fanout.go_live_conflated(subscription, state, seen)
    if subscription.conflator is not None:
        subscription.conflator.hold(buffered)
        subscription.conflator.release()
        subscription.outbox.pull_from(subscription)


class Patterns:
    """The patterns that this process has readers of."""

    def __init__(self) -> None:
        self._groups: dict[Fanout, PatternGroup] = {}
        self._index: PatternIndex[PatternGroup] = PatternIndex()

    def __len__(self) -> int:
        return len(self._groups)

    def open(self, pattern: str, admits: Admits, make_fanout: Callable[[], Fanout]) -> PatternGroup:
        """The group of a pattern, made for its first reader. Raises ``BadTopic``."""
        segments = parse_pattern(pattern)
        fanout = make_fanout()
        group = self._groups.get(fanout)
        if group is None:
            group = self._groups[fanout] = PatternGroup(fanout, segments, admits)
            self._index.set(segments, group)
        return group

    def close(self, fanout: Fanout) -> None:
        """The last reader is gone; nothing for topics that are no patterns."""
        group = self._groups.pop(fanout, None)
        if group is not None:
            self._index.remove(group.segments)

    def take(self, topic: str, message: Message) -> Iterator[tuple[Fanout, Message]]:
        """To whom a message goes, and as what."""
        for group in self._index.find(topic):
            taken = group.take(topic, message)
            if taken is not None:
                yield group.fanout, taken


async def carry(broker: Broker, fanout: Fanout) -> None:
    """Have ``broker`` deliver what the readers of ``fanout`` want."""
    if is_pattern(fanout.topic):
        assert isinstance(broker, PatternBroker), "refused otherwise"
        await broker.attach_pattern(fanout.topic)
    else:
        await broker.attach(fanout.topic, fanout.policy.retention)


async def carry_no_longer(broker: Broker, fanout: Fanout) -> None:
    """They are gone."""
    if is_pattern(fanout.topic):
        assert isinstance(broker, PatternBroker), "refused otherwise"
        await broker.detach_pattern(fanout.topic)
    else:
        await broker.detach(fanout.topic)
