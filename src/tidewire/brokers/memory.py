"""The broker of one process: topics in memory, gone with it. The honest word after a restart is a new epoch."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict

from tidewire.brokers.base import Created, Deliver, History, Published, Retention
from tidewire.brokers.history import make_history
from tidewire.brokers.ledger import Ledger
from tidewire.brokers.topic import Emit, RecentIds, Topic
from tidewire.clock import Clock, LoopClock
from tidewire.errors import NotRunning, TooManyTopics, TopicFinished, UnknownStream
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.patterns import PatternIndex, matches, parse_pattern
from tidewire.protocol.position import Position, Since

# topics compared with a pattern before others have their turn
_NAMES_PER_PASS = 2000


class _Place:
    """A topic here, and what is of this process."""

    __slots__ = ("attached", "topic", "touched_at")

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        # whether the hub has readers
        self.attached = False
        # when somebody last changed anything: the order of sweeping
        self.touched_at = 0.0


class MemoryBroker:
    """Implements ``brokers.base.Broker``; every verb finishes without waiting.

    ``clock`` and ``rng`` are arguments so that tests move time and repeat chance.
    """

    shared = False

    def __init__(
        self, *, limits: Limits | None = None, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self._limits = limits or Limits()
        self.clock: Clock = clock or LoopClock()
        self._rng = rng or random.SystemRandom()
        # least recently touched first, which is the order of sweeping
        self._topics: OrderedDict[str, _Place] = OrderedDict()
        # patterns that the hub has readers of
        self._patterns: PatternIndex[str] = PatternIndex()
        self._last_epoch_ms = 0
        self._deliver: Deliver | None = None

    async def start(self, deliver: Deliver) -> None:
        """Begin to deliver."""
        self._deliver = deliver

    async def close(self) -> None:
        """Forget everything."""
        self._deliver = None
        self._topics.clear()

    async def publish(self, topic: str, draft: Draft, retention: Retention) -> Published:
        """Append and deliver in one go: nothing else runs in between."""
        if retention.keep == 0:
            return self._carry_unnumbered(topic, draft)
        place = self._touch_where_there(topic, retention, draft.terms)
        return place.topic.publish(draft, place.touched_at, self._emit_of(place))

    def _touch_where_there(self, topic: str, retention: Retention, terms: Terms | None) -> _Place:
        if terms is not None and terms.must_exist and self._find(topic) is None:
            raise UnknownStream(topic)
        return self._touch(topic, retention)

    def _emit_of(self, place: _Place) -> Emit | None:
        name = place.topic.name
        if place.attached or self._is_followed(name):
            return lambda event: self._carry(name, event)
        return None

    def _carry_unnumbered(self, topic: str, draft: Draft) -> Published:
        place = self._topics.get(topic)
        if place is not None and place.topic.end is not None:
            raise TopicFinished(topic)
        if (place is not None and place.attached) or self._is_followed(topic):
            self._carry(
                topic,
                Message(draft.payload, draft.kind, key=draft.key, removed=draft.removed, publisher=draft.publisher),
            )
        return Published(None)

    def _is_followed(self, topic: str) -> bool:
        """Whether some pattern with readers matches."""
        return len(self._patterns) > 0 and bool(self._patterns.find(topic))

    async def attach_pattern(self, pattern: str) -> None:
        """Deliver every topic that matches from now on."""
        self._patterns.set(parse_pattern(pattern), pattern)

    async def detach_pattern(self, pattern: str) -> None:
        """Deliver them no longer for its sake."""
        self._patterns.remove(parse_pattern(pattern))

    async def topics(self, pattern: str) -> list[str]:
        """All names are looked at, some in each pass of the loop."""
        segments = parse_pattern(pattern)
        found = []
        for index, topic in enumerate(list(self._topics)):
            if matches(segments, topic) and topic in self._topics and self._topics[topic].topic.top:
                found.append(topic)
            if index % _NAMES_PER_PASS == _NAMES_PER_PASS - 1:
                await asyncio.sleep(0)
        return found

    def _carry(self, topic: str, event: Message | End) -> None:
        if self._deliver is None:
            raise NotRunning("the memory broker is closed")
        self._deliver(topic, event)

    async def position(self, topic: str) -> Position | None:
        """The newest position; asking makes no state."""
        place = self._find(topic)
        return None if place is None else place.topic.position

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """Continue ``since`` exactly, or start at the oldest kept and say so."""
        place = self._find(topic)
        return None if place is None else place.topic.read(since, limit, self.clock.now())

    async def finish(self, topic: str, error: str | None, retention: Retention, terms: Terms | None = None) -> End:
        """Nothing is appended afterwards."""
        place = self._touch_where_there(topic, retention, terms)
        # those who follow a pattern hear messages only
        emit = self._emit_of(place) if place.attached else None
        return place.topic.finish(error, terms, place.touched_at, emit)

    async def create(
        self, topic: str, stream: Stream, first: Draft | None, retention: Retention, *, closed: bool = False
    ) -> Created:
        """Make it, fill it and close it: nothing else runs in between."""
        place = self._find(topic)
        if place is None or not place.topic.exists:
            place = self._touch(topic, retention)
        return place.topic.create(stream, first, self.clock.now(), self._emit_of(place), closed=closed)

    async def drop(self, topic: str) -> bool:
        """Forget it; readers that are attached stay so, under a new epoch."""
        place = self._find(topic)
        if place is None or not place.topic.exists:
            return False
        self._drop(place, "the stream was deleted")
        return True

    def _drop(self, place: _Place, why: str) -> None:
        name = place.topic.name
        del self._topics[name]
        if place.attached:
            fresh = self._topics[name] = self._new_place(name, place.topic.retention)
            fresh.attached = True
            fresh.touched_at = fresh.topic.used_at = self.clock.now()
            self._carry(name, place.topic.gone(why))

    async def attach(self, topic: str, retention: Retention) -> None:
        """Deliver ``topic`` from now on."""
        self._touch(topic, retention).attached = True

    async def detach(self, topic: str) -> None:
        """Deliver it no longer; its state stays for those who come back."""
        place = self._topics.get(topic)
        if place is not None:
            place.attached = False
            place.touched_at = place.topic.used_at = self.clock.now()

    def _find(self, topic: str) -> _Place | None:
        """The topic's state; what has expired is dropped first."""
        place = self._topics.get(topic)
        if place is None or not self._is_expired(place):
            return place
        self._drop(place, "the stream has expired")
        return self._topics.get(topic)

    def _is_expired(self, place: _Place) -> bool:
        if place.topic.stream is None:
            return False
        return place.topic.is_expired(self.clock.now(), self.clock.wall_ms(), attached=place.attached)

    def _new_place(self, name: str, retention: Retention) -> _Place:
        limits = self._limits
        topic = Topic(
            name,
            self._next_epoch(),
            retention,
            history=make_history(retention),
            ids=RecentIds(window_s=limits.dedup_window_s, most=limits.dedup_ids_max),
            new_ledger=self._new_ledger,
        )
        return _Place(topic)

    def _new_ledger(self) -> Ledger:
        limits = self._limits
        return Ledger(producers_max=limits.producers_max, remembered_s=limits.producer_remembered_s)

    def _touch(self, topic: str, retention: Retention) -> _Place:
        """The topic's state, made when there is none; making one also sweeps idle ones out."""
        place = self._find(topic)
        if place is None:
            full = len(self._topics) >= self._limits.topics_max
            self._sweep(64 if full else 2, idle_s=0.0 if full else self._limits.topic_idle_s)
            if len(self._topics) >= self._limits.topics_max:
                raise TooManyTopics(self._limits.topics_max)
            place = self._topics[topic] = self._new_place(topic, retention)
        else:
            self._topics.move_to_end(topic)
        place.touched_at = place.topic.used_at = self.clock.now()
        place.topic.history.trim(place.touched_at)
        return place

    def _sweep(self, count: int, idle_s: float) -> None:
        """Look at the ``count`` longest untouched topics; drop those expired, or empty and idle for ``idle_s``."""
        now = self.clock.now()
        for _ in range(min(count, len(self._topics))):
            name, place = next(iter(self._topics.items()))
            place.topic.history.trim(now)
            if place.attached or not self._may_go(place, now, idle_s):
                self._topics.move_to_end(name)
            else:
                del self._topics[name]

    def _may_go(self, place: _Place, now: float, idle_s: float) -> bool:
        if place.topic.stream is not None:
            return self._is_expired(place)
        return not len(place.topic.history) and now - place.touched_at >= idle_s

    def _next_epoch(self) -> str:
        """Sixteen hex digits: milliseconds, so that later sorts after earlier, and chance against twins."""
        self._last_epoch_ms = max(self.clock.wall_ms(), self._last_epoch_ms + 1)
        return f"{self._last_epoch_ms:011x}{self._rng.getrandbits(20):05x}"
