"""The broker of one process: topics in memory, gone with it. The honest word after a restart is a new epoch."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict

from tidewire.brokers.base import Deliver, History, Published, Retention
from tidewire.brokers.history import Kept, make_history
from tidewire.clock import Clock, LoopClock
from tidewire.errors import NotRunning, TooManyTopics, TopicFinished
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Kind, Message
from tidewire.protocol.payload import removal
from tidewire.protocol.position import START, Position, Since

logger = logging.getLogger("tidewire.broker")


class _Topic:
    """One topic's state."""

    __slots__ = ("attached", "end", "epoch", "history", "ids", "overflow", "retention", "top", "touched_at", "warned")

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
        self.touched_at = 0.0
        # values that the message appended last pushed out
        self.overflow: list[Message] = []
        # whether the log has been told that keys had to go
        self.warned = False


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
        state = self._touch(topic, retention)
        if state.end is not None:
            raise TopicFinished(topic, str(Position(state.epoch, state.top)))
        if state.ids or draft.id is not None:
            known = self._known_id(state, draft.id)
            if known is not None:
                return Published(Position(state.epoch, known), duplicate=True)
        offset = self._append(topic, state, draft)
        if draft.id is not None:
            state.ids[draft.id] = (offset, state.touched_at)
        return Published(Position(state.epoch, offset))

    def _carry_unnumbered(self, topic: str, draft: Draft) -> Published:
        state = self._topics.get(topic)
        if state is not None and state.end is not None:
            raise TopicFinished(topic)
        if state is not None and state.attached:
            self._carry(topic, Message(draft.payload, draft.kind, key=draft.key, removed=draft.removed))
        return Published(None)

    def _append(self, topic: str, state: _Topic, draft: Draft) -> int:
        """Number, keep and deliver ``draft``, then the removal of a key that had to go for it; returns its number."""
        offset = self._append_one(topic, state, draft)
        if state.overflow:
            overflow, state.overflow = state.overflow, []
            for dropped in overflow:
                self._append_one(topic, state, Draft(removal(dropped.key), Kind.JSON, dropped.key, removed=True))
        return offset

    def _append_one(self, topic: str, state: _Topic, draft: Draft) -> int:
        state.top += 1
        message = Message(draft.payload, draft.kind, state.epoch, state.top, draft.key, draft.removed)
        state.overflow = state.history.append(message, state.touched_at)
        if state.overflow and not state.warned:
            state.warned = True
            most = state.retention.keep
            logger.warning("topic %r has more than max_keys=%d keys: the longest unchanged are removed", topic, most)
        if state.attached:
            self._carry(topic, message)
        return message.offset

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
        state = self._topics.get(topic)
        return None if state is None else Position(state.epoch, state.top)

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """Continue ``since`` exactly, or start at the oldest kept and say so."""
        state = self._topics.get(topic)
        if state is None:
            return None
        state.history.trim(self.clock.now())
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
        return History(state.history.after(begin.offset, limit), begin, top, complete, state.end)

    async def finish(self, topic: str, error: str | None, retention: Retention) -> End:
        """Nothing is appended afterwards."""
        state = self._touch(topic, retention)
        if state.end is None:
            state.end = End(state.epoch if retention.keep else "", state.top, error)
            if state.attached:
                self._carry(topic, state.end)
        return state.end

    async def attach(self, topic: str, retention: Retention) -> None:
        """Deliver ``topic`` from now on."""
        self._touch(topic, retention).attached = True

    async def detach(self, topic: str) -> None:
        """Deliver it no longer; its state stays for those who come back."""
        state = self._topics.get(topic)
        if state is not None:
            state.attached = False
            state.touched_at = self.clock.now()

    def _touch(self, topic: str, retention: Retention) -> _Topic:
        """The topic's state, made when there is none; making one also sweeps idle ones out."""
        state = self._topics.get(topic)
        if state is None:
            full = len(self._topics) >= self._limits.topics_max
            self._sweep(64 if full else 2, idle_s=0.0 if full else self._limits.topic_idle_s)
            if len(self._topics) >= self._limits.topics_max:
                raise TooManyTopics(self._limits.topics_max)
            state = self._topics[topic] = _Topic(self._next_epoch(), retention)
        else:
            self._topics.move_to_end(topic)
        state.touched_at = self.clock.now()
        state.history.trim(state.touched_at)
        return state

    def _sweep(self, count: int, idle_s: float) -> None:
        """Look at the ``count`` longest untouched topics and drop those that are empty and idle for ``idle_s``."""
        now = self.clock.now()
        for _ in range(min(count, len(self._topics))):
            name, state = next(iter(self._topics.items()))
            state.history.trim(now)
            if state.attached or len(state.history) or now - state.touched_at < idle_s:
                self._topics.move_to_end(name)
            else:
                del self._topics[name]

    def _next_epoch(self) -> str:
        """Sixteen hex digits: milliseconds, so that later sorts after earlier, and chance against twins."""
        self._last_epoch_ms = max(self.clock.wall_ms(), self._last_epoch_ms + 1)
        return f"{self._last_epoch_ms:011x}{self._rng.getrandbits(20):05x}"
