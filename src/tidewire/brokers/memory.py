"""The broker of one process: topics in memory, gone with it. The honest word after a restart is a new epoch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict

from tidewire.brokers.base import Created, Deliver, History, Published, Retention
from tidewire.brokers.history import Kept, make_history
from tidewire.brokers.ledger import Ledger, check_content, is_expired
from tidewire.clock import Clock, LoopClock
from tidewire.errors import NotRunning, ProducerGap, TooManyTopics, TopicFinished, UnknownStream
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Kind, Message, Stream, Terms
from tidewire.protocol.patterns import PatternIndex, matches, parse_pattern
from tidewire.protocol.payload import removal
from tidewire.protocol.position import START, Position, Since

logger = logging.getLogger("tidewire.broker")

# topics compared with a pattern before others have their turn
_NAMES_PER_PASS = 2000


class _Topic:
    """One topic's state."""

    __slots__ = (
        "attached",
        "end",
        "epoch",
        "history",
        "ids",
        "ledger",
        "overflow",
        "retention",
        "stream",
        "top",
        "touched_at",
        "used_at",
        "warned",
    )

    def __init__(self, epoch: str, retention: Retention) -> None:
        self.epoch = epoch
        self.retention = retention
        # number of the newest message, kept or trimmed
        self.top = 0
        self.history: Kept = make_history(retention)
        # publish id -> (offset it got, when), oldest first
        self.ids: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.end: End | None = None
        # whether the hub has readers
        self.attached = False
        # when somebody last changed anything: the order of sweeping
        self.touched_at = 0.0
        # when somebody last wrote or read, which is what a time to live counts from
        self.used_at = 0.0
        # what it was created as, and what is remembered of its writers, where they said who they are
        self.stream: Stream | None = None
        self.ledger: Ledger | None = None
        # values that the message appended last pushed out
        self.overflow: list[Message] = []
        # whether the log has been told that keys had to go
        self.warned = False

    @property
    def exists(self) -> bool:
        """Whether the topic is there, and not only its readers."""
        return self.stream is not None or self.top > 0 or self.end is not None


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
        self._topics: OrderedDict[str, _Topic] = OrderedDict()
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
        terms = draft.terms
        state = self._touch(topic, retention) if terms is None else self._touch_on_terms(topic, retention, terms)
        if state.end is not None:
            return self._refuse_after_end(topic, state, terms)
        if state.stream is not None:
            check_content(state.stream, draft.kind, terms)
        if state.ids or draft.id is not None:
            known = self._known_id(state, draft.id)
            if known is not None:
                return Published(Position(state.epoch, known), duplicate=True)
        if terms is not None:
            there = self._check_terms(state, terms)
            if there is not None:
                return there
        offset = self._append(topic, state, draft)
        if draft.id is not None:
            state.ids[draft.id] = (offset, state.touched_at)
        if terms is None:
            return Published(Position(state.epoch, offset))
        return self._note_terms(topic, state, terms, offset)

    def _touch_on_terms(self, topic: str, retention: Retention, terms: Terms) -> _Topic:
        if terms.must_exist:
            state = self._find(topic)
            if state is None or not state.exists:
                raise UnknownStream(topic)
        return self._touch(topic, retention)

    def _refuse_after_end(self, topic: str, state: _Topic, terms: Terms | None) -> Published:
        top = Position(state.epoch, state.top)
        producer = None if terms is None else terms.producer
        if producer is not None and state.ledger is not None and state.ledger.has_closed(producer):
            return Published(top, duplicate=True, accepted=producer.sequence, closed=True)
        raise TopicFinished(topic, str(top))

    def _check_terms(self, state: _Topic, terms: Terms) -> Published | None:
        """What is there already, when the append is a repetition."""
        if terms.producer is None and terms.order is None:
            return None
        if state.ledger is None:
            limits = self._limits
            state.ledger = Ledger(producers_max=limits.producers_max, remembered_s=limits.producer_remembered_s)
        if state.ledger.check(terms, state.touched_at):
            return None
        assert terms.producer is not None, "only a producer repeats itself"
        accepted, offset = state.ledger.known(terms.producer)
        return Published(Position(state.epoch, offset), duplicate=True, accepted=accepted)

    def _note_terms(self, topic: str, state: _Topic, terms: Terms, offset: int) -> Published:
        if state.ledger is not None:
            state.ledger.note(terms, offset, state.touched_at)
        if terms.closes:
            self._finish(topic, state, None)
        accepted = None if terms.producer is None else terms.producer.sequence
        return Published(Position(state.epoch, offset), accepted=accepted, closed=terms.closes)

    def _carry_unnumbered(self, topic: str, draft: Draft) -> Published:
        state = self._topics.get(topic)
        if state is not None and state.end is not None:
            raise TopicFinished(topic)
        if (state is not None and state.attached) or self._is_followed(topic):
            self._carry(
                topic,
                Message(draft.payload, draft.kind, key=draft.key, removed=draft.removed, publisher=draft.publisher),
            )
        return Published(None)

    def _append(self, topic: str, state: _Topic, draft: Draft) -> int:
        """Number, keep and deliver ``draft``, then the removal of a key that had to go for it; returns its number."""
        offset = self._append_one(topic, state, draft)
        for payload in draft.more:
            offset = self._append_one(topic, state, Draft(payload, draft.kind))
        if state.overflow:
            overflow, state.overflow = state.overflow, []
            for dropped in overflow:
                self._append_one(topic, state, Draft(removal(dropped.key), Kind.JSON, dropped.key, removed=True))
        return offset

    def _append_one(self, topic: str, state: _Topic, draft: Draft) -> int:
        state.top += 1
        message = Message(
            draft.payload,
            draft.kind,
            state.epoch,
            state.top,
            draft.key,
            draft.removed,
            publisher=draft.publisher,
        )
        state.overflow = state.history.append(message, state.touched_at)
        if state.overflow and not state.warned:
            state.warned = True
            most = state.retention.keep
            logger.warning("topic %r has more than max_keys=%d keys: the longest unchanged are removed", topic, most)
        if state.attached or self._is_followed(topic):
            self._carry(topic, message)
        return message.offset

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
            if matches(segments, topic) and topic in self._topics and self._topics[topic].top:
                found.append(topic)
            if index % _NAMES_PER_PASS == _NAMES_PER_PASS - 1:
                await asyncio.sleep(0)
        return found

    def _carry(self, topic: str, event: Message | End) -> None:
        if self._deliver is None:
            raise NotRunning("the memory broker is closed")
        self._deliver(topic, event)

    def _known_id(self, state: _Topic, publish_id: str | None) -> int | None:
        horizon = self.clock.now() - self._limits.dedup_window_s
        while state.ids:
            oldest, (_, at) = next(iter(state.ids.items()))
            if at > horizon and len(state.ids) < self._limits.dedup_ids_max:
                break
            del state.ids[oldest]
        found = None if publish_id is None else state.ids.get(publish_id)
        return None if found is None else found[0]

    async def position(self, topic: str) -> Position | None:
        """The newest position; asking makes no state."""
        state = self._find(topic)
        return None if state is None else Position(state.epoch, state.top)

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """Continue ``since`` exactly, or start at the oldest kept and say so."""
        state = self._find(topic)
        if state is None:
            return None
        now = self.clock.now()
        if limit:
            state.used_at = now
        state.history.trim(now)
        floor = state.history.floor
        top = Position(state.epoch, state.top)
        if since is START:
            # for a keyed history the start is its very beginning: it holds the newest of everything
            begin = Position(state.epoch, 0 if state.retention.keyed else floor)
            complete = True
        elif isinstance(since, Position):
            complete = since.epoch == state.epoch and floor <= since.offset <= state.top
            begin = since if complete else Position(state.epoch, 0 if state.retention.keyed else floor)
        else:
            begin, complete = top, True
        return History(state.history.after(begin.offset, limit), begin, top, complete, state.end, state.stream)

    async def finish(self, topic: str, error: str | None, retention: Retention, terms: Terms | None = None) -> End:
        """Nothing is appended afterwards."""
        state = self._touch(topic, retention) if terms is None else self._touch_on_terms(topic, retention, terms)
        if state.end is not None:
            if terms is not None and terms.producer is not None:
                self._refuse_after_end(topic, state, terms)
            return state.end
        if terms is None:
            return self._finish(topic, state, error)
        repeated = self._check_terms(state, terms)
        if repeated is not None:
            # an append of before, which has not closed anything
            assert terms.producer is not None
            assert repeated.accepted is not None
            raise ProducerGap(repeated.accepted + 1, terms.producer.sequence)
        if state.ledger is not None:
            state.ledger.note(terms, state.top, state.touched_at)
        return self._finish(topic, state, error)

    def _finish(self, topic: str, state: _Topic, error: str | None) -> End:
        state.end = End(state.epoch if state.retention.keep else "", state.top, error)
        if state.attached:
            self._carry(topic, state.end)
        return state.end

    async def create(
        self, topic: str, stream: Stream, first: Draft | None, retention: Retention, *, closed: bool = False
    ) -> Created:
        """Make it, fill it and close it: nothing else runs in between."""
        state = self._find(topic)
        if state is not None and state.exists:
            return Created(Position(state.epoch, state.top), state.stream, state.end, is_new=False)
        state = self._touch(topic, retention)
        state.stream = stream
        if first is not None:
            offset = self._append(topic, state, first)
            if first.id is not None:
                state.ids[first.id] = (offset, state.touched_at)
        if closed:
            self._finish(topic, state, None)
        return Created(Position(state.epoch, state.top), stream, state.end, is_new=True)

    async def drop(self, topic: str) -> bool:
        """Forget it; readers that are attached stay so, under a new epoch."""
        state = self._find(topic)
        if state is None or not state.exists:
            return False
        self._drop(topic, state, "the stream was deleted")
        return True

    def _drop(self, topic: str, state: _Topic, why: str) -> None:
        del self._topics[topic]
        if state.attached:
            fresh = self._topics[topic] = _Topic(self._next_epoch(), state.retention)
            fresh.attached = True
            fresh.touched_at = fresh.used_at = self.clock.now()
            self._carry(topic, End(state.epoch, state.top, why, gone=True))

    async def attach(self, topic: str, retention: Retention) -> None:
        """Deliver ``topic`` from now on."""
        self._touch(topic, retention).attached = True

    async def detach(self, topic: str) -> None:
        """Deliver it no longer; its state stays for those who come back."""
        state = self._topics.get(topic)
        if state is not None:
            state.attached = False
            state.touched_at = state.used_at = self.clock.now()

    def _find(self, topic: str) -> _Topic | None:
        """The topic's state; what has expired is dropped first."""
        state = self._topics.get(topic)
        if state is None or state.stream is None or not self._is_expired(state):
            return state
        self._drop(topic, state, "the stream has expired")
        return self._topics.get(topic)

    def _is_expired(self, state: _Topic) -> bool:
        idle_s = 0.0 if state.attached else self.clock.now() - state.used_at
        return is_expired(state.stream, idle_s=idle_s, wall_ms=self.clock.wall_ms())

    def _touch(self, topic: str, retention: Retention) -> _Topic:
        """The topic's state, made when there is none; making one also sweeps idle ones out."""
        state = self._find(topic)
        if state is None:
            full = len(self._topics) >= self._limits.topics_max
            self._sweep(64 if full else 2, idle_s=0.0 if full else self._limits.topic_idle_s)
            if len(self._topics) >= self._limits.topics_max:
                raise TooManyTopics(self._limits.topics_max)
            state = self._topics[topic] = _Topic(self._next_epoch(), retention)
        else:
            self._topics.move_to_end(topic)
        state.touched_at = state.used_at = self.clock.now()
        state.history.trim(state.touched_at)
        return state

    def _sweep(self, count: int, idle_s: float) -> None:
        """Look at the ``count`` longest untouched topics; drop those expired, or empty and idle for ``idle_s``."""
        now = self.clock.now()
        for _ in range(min(count, len(self._topics))):
            name, state = next(iter(self._topics.items()))
            state.history.trim(now)
            if state.attached or not self._may_go(state, now, idle_s):
                self._topics.move_to_end(name)
            else:
                del self._topics[name]

    def _may_go(self, state: _Topic, now: float, idle_s: float) -> bool:
        if state.stream is not None:
            return self._is_expired(state)
        return not len(state.history) and now - state.touched_at >= idle_s

    def _next_epoch(self) -> str:
        """Sixteen hex digits: milliseconds, so that later sorts after earlier, and chance against twins."""
        self._last_epoch_ms = max(self.clock.wall_ms(), self._last_epoch_ms + 1)
        return f"{self._last_epoch_ms:011x}{self._rng.getrandbits(20):05x}"
