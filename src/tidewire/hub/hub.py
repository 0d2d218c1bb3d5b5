"""The hub: registry and fan-out of one process. It validates nothing about callers and knows no socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from tidewire.brokers.base import Broker, Created, History, PatternBroker, Published
from tidewire.clock import Clock, LoopClock
from tidewire.errors import DrainTimeout, NotCarried
from tidewire.hub.fanout import Fanout
from tidewire.hub.patterns import Admits, Patterns, begin_latest_of, begin_live, carry, carry_no_longer
from tidewire.hub.policy import Latest, Policy, Signal
from tidewire.hub.recovery import LogRecovery, ReaderGone, begin_latest, begin_signal
from tidewire.hub.stats import Stats
from tidewire.hub.subscription import Eviction, Reader, Subscription
from tidewire.hub.turns import Turns, sleep
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.position import NOW, Position, Since

logger = logging.getLogger("tidewire.hub")

# How often a publisher that got ahead lets the event loop run before it goes on regardless. Each pass lets
# every reader that shares the loop take what its socket holds.
_YIELD_PASSES_MAX = 16


class Hub:
    """Publishes to a broker and hands what it delivers to the subscriptions of this process.

    ``flush_window_s``: after a flush, what is published within this time is gathered for the next one;
    when nothing was flushed for that long, the next message goes out on the next pass of the loop.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        limits: Limits | None = None,
        clock: Clock | None = None,
        flush_window_s: float = 0.001,
    ) -> None:
        self.broker = broker
        self.limits = limits or Limits()
        self.stats = Stats()
        self._turns = Turns(clock or LoopClock(), self.limits, flush_window_s)
        self._fanouts: dict[str, Fanout] = {}
        # those of patterns among them
        self._patterns = Patterns()
        # detaching from the broker, each a short task of the hub's own
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def clock(self) -> Clock:
        """What everything here that waits follows."""
        return self._turns.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._turns.clock = clock

    @property
    def flush_window_s(self) -> float:
        """Seconds from one flush to the next at least."""
        return self._turns.flush_window_s

    @flush_window_s.setter
    def flush_window_s(self, seconds: float) -> None:
        self._turns.flush_window_s = seconds

    async def start(self) -> None:
        """Begin to hear the broker."""
        await self.broker.start(self.deliver)

    async def close(self) -> None:
        """End every subscription as a shutdown, then the broker."""
        self.evict_all(Eviction.SHUTDOWN)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.broker.close()

    # Publishing

    async def publish(self, topic: str, policy: Policy, draft: Draft) -> Published:
        """Append and carry ``draft``; yields to the event loop when much has gathered, never waits for a reader."""
        published = await self.broker.publish(topic, draft, policy.retention)
        if published.duplicate:
            self.stats.duplicates += 1
            return published
        self._count_published(draft)
        if self._turns.is_publisher_ahead:
            await self._yield_to_readers(topic)
        return published

    def _count_published(self, draft: Draft) -> None:
        count, size = 1, len(draft.payload)
        if draft.more:
            count, size = count + len(draft.more), size + sum(map(len, draft.more))
        self.stats.published += count
        self._turns.count_published(count, size)

    async def _yield_to_readers(self, topic: str) -> None:
        for _ in range(_YIELD_PASSES_MAX):
            await self._flush_next()
            fanout = self._fanouts.get(topic)
            if fanout is None:
                return
            if not fanout.is_sweeping and not any(sub.outbox.under_pressure for sub in fanout.subscriptions):
                return

    async def finish(self, topic: str, policy: Policy, error: str | None, terms: Terms | None = None) -> End:
        """End ``topic``: readers get the rest, then the word."""
        return await self.broker.finish(topic, error, policy.retention, terms)

    async def create(
        self, topic: str, policy: Policy, stream: Stream, first: Draft | None = None, *, closed: bool = False
    ) -> Created:
        """Make ``topic`` as ``stream``, with what it begins with; where it is there, nothing changes."""
        created = await self.broker.create(topic, stream, first, policy.retention, closed=closed)
        if created.is_new and first is not None:
            self._count_published(first)
        return created

    async def drop(self, topic: str) -> bool:
        """Forget ``topic``: its readers are told that it is gone. Returns whether it was there."""
        return await self.broker.drop(topic)

    async def drained(self, topic: str, timeout_s: float) -> None:
        """Return when every subscription of ``topic`` here has taken all that was published before.

        Raises ``DrainTimeout`` with the number of those that have not.
        """
        fanout = self._fanouts.get(topic)
        if fanout is None:
            return
        if fanout.pending:
            await self._flush_next()
        if not fanout.pending and not fanout.busy:
            # the usual case needs no deadline
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_until_drained(fanout)
        except TimeoutError:
            behind = len(fanout.busy)
            raise DrainTimeout(topic, behind, timeout_s) from None

    async def _wait_until_drained(self, fanout: Fanout) -> None:
        while True:
            if fanout.pending:
                await self._flush_next()
            if not fanout.busy and not fanout.pending:
                return
            for outbox in list(fanout.busy):
                await outbox.drained()
            if fanout.pending and not fanout.is_sweeping:
                await sleep(self.clock, fanout.next_flush_in())

    async def _flush_next(self) -> None:
        """Flush on the next pass of the loop and wait for it: from a callback, writes are begun most cheaply."""
        if self._turns.is_flush_wanted:
            asyncio.get_running_loop().call_soon(self.flush)
        await asyncio.sleep(0)

    # Delivering

    def deliver(self, topic: str, event: Message | End) -> None:
        """The broker's door: local and remote messages alike."""
        if len(self._patterns) and isinstance(event, Message):
            for follower, message in self._patterns.take(topic, event):
                self._turns.gather(follower, message)
        fanout = self._fanouts.get(topic)
        if fanout is None:
            return
        if isinstance(event, End):
            self._turns.forget(fanout)
            fanout.finish(event)
        else:
            self._turns.gather(fanout, event)

    def flush(self) -> None:
        """Begin to hand out everything that has gathered; a publisher that yields calls it too."""
        self._turns.flush()

    # Subscribing

    async def note(self, topic: str) -> Position | None:
        """The position now; taken before anybody asks who may (CONTRACTS 6)."""
        return await self.broker.position(topic)

    async def subscribe(
        self,
        topic: str,
        policy: Policy,
        reader: Reader,
        *,
        since: Since = NOW,
        noted: Position | None = None,
        snapshot: Sequence[Message] | None = None,
        rate: float | None = None,
        rest_after_gap: bool = True,
    ) -> Subscription:
        """Register ``reader`` and bring it from ``since`` to live; returns when it is live, or has ended.

        ``noted``: what ``note`` said before the caller was admitted. ``snapshot``: the state at ``noted`` that the
        topic function returned (``Latest`` only). ``rate``: flushes per second this reader wants at most.
        ``rest_after_gap``: a reader whose position is lost gets what is still kept (``Log``), or what comes only.
        The caller must go on writing the reader's outbox meanwhile. Cancelling unregisters.
        """
        subscription = Subscription(topic, reader, rate)
        fanout = self._fanout_of(topic, policy)
        await self._attach(fanout, subscription)
        try:
            if isinstance(policy, Signal):
                await begin_signal(fanout, subscription, self.broker)
            elif isinstance(policy, Latest):
                await begin_latest(
                    fanout,
                    subscription,
                    broker=self.broker,
                    stats=self.stats,
                    since=since,
                    noted=noted,
                    snapshot=snapshot,
                )
            else:
                recovery = LogRecovery(
                    fanout,
                    subscription,
                    broker=self.broker,
                    limits=self.limits,
                    stats=self.stats,
                    rest_after_gap=rest_after_gap,
                )
                await recovery.run(since, noted)
        except ReaderGone:
            self.unsubscribe(subscription)
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    async def subscribe_pattern(
        self, pattern: str, policy: Policy, reader: Reader, *, admits: Admits, rate: float | None = None
    ) -> Subscription:
        """Register ``reader`` for every topic that matches ``pattern`` and that ``admits`` lets through.

        ``Latest``: the newest values first. Otherwise what comes from now on; nothing is recovered. Raises
        ``BadTopic``, ``TooManyTopics`` (more than ``Limits.pattern_topics_max`` to begin with) and ``NotCarried``.
        """
        if not isinstance(self.broker, PatternBroker):
            raise NotCarried(pattern)
        group = self._patterns.open(pattern, admits, lambda: self._fanout_of(pattern, policy))
        subscription = Subscription(pattern, reader, rate)
        await self._attach(group.fanout, subscription)
        try:
            if isinstance(policy, Latest):
                await begin_latest_of(group, subscription, self.broker, self.limits.pattern_topics_max)
            else:
                begin_live(group, subscription)
        except ReaderGone:
            self.unsubscribe(subscription)
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    def _fanout_of(self, topic: str, policy: Policy) -> Fanout:
        fanout = self._fanouts.get(topic)
        if fanout is None:
            fanout = Fanout(
                topic, policy, limits=self.limits, clock=self.clock, stats=self.stats, begun=self._turns.begun
            )
            self._fanouts[topic] = fanout
        return fanout

    async def _attach(self, fanout: Fanout, subscription: Subscription) -> None:
        fanout.add(subscription)
        try:
            async with fanout.lock:
                if not fanout.attached:
                    await carry(self.broker, fanout)
                    fanout.attached = True
        except BaseException:
            self.unsubscribe(subscription)
            raise

    def unsubscribe(self, subscription: Subscription) -> None:
        """The reader is gone; the last one of a topic detaches it from the broker. Twice is nothing."""
        fanout = self._fanouts.get(subscription.topic)
        if fanout is None:
            return
        fanout.remove(subscription)
        if not fanout.subscriptions:
            self._spawn(self._detach(fanout))

    async def _detach(self, fanout: Fanout) -> None:
        async with fanout.lock:
            if fanout.subscriptions or self._fanouts.get(fanout.topic) is not fanout:
                return
            if fanout.attached:
                fanout.attached = False
                await carry_no_longer(self.broker, fanout)
            if not fanout.subscriptions:
                del self._fanouts[fanout.topic]
                self._patterns.close(fanout)
                self._turns.forget(fanout)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("detaching from the broker failed", exc_info=task.exception())

    def evict_all(self, why: Eviction) -> None:
        """End every subscription, oldest first."""
        for fanout in list(self._fanouts.values()):
            fanout.flush()
            for subscription in list(fanout.subscriptions):
                fanout.evict(subscription, why)

    # Reading without subscribing

    async def read(self, topic: str, since: Since, limit: int) -> History | None:
        """What is kept after ``since``; None when the topic has no state."""
        return await self.broker.history(topic, since, limit)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are now."""
        return sum(len(fanout.subscriptions) for fanout in self._fanouts.values())

    @property
    def topics(self) -> int:
        """How many topics have readers now."""
        return len(self._fanouts)
