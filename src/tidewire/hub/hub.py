"""The hub: registry and fan-out of one process. It validates nothing about callers and knows no socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from tidewire.brokers.base import Broker, History, Published
from tidewire.clock import Clock, LoopClock
from tidewire.errors import DrainTimeout
from tidewire.hub.fanout import Fanout
from tidewire.hub.policy import Latest, Policy, Signal
from tidewire.hub.recovery import LogRecovery, ReaderGone, begin_latest, begin_signal
from tidewire.hub.stats import Stats
from tidewire.hub.subscription import Eviction, Reader, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message
from tidewire.protocol.position import NOW, Position, Since

logger = logging.getLogger("tidewire.hub")

# How often a publisher that got ahead lets the event loop run before it goes on regardless. Each pass lets
# every reader that shares the loop take what its socket holds.
_YIELD_PASSES_MAX = 16
# How much earlier than asked for a timer may come and the window still be over.
_EARLY_S = 0.0001


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
        self.clock: Clock = clock or LoopClock()
        self.stats = Stats()
        self.flush_window_s = flush_window_s
        self._fanouts: dict[str, Fanout] = {}
        # topics with something gathered since the last flush
        self._unflushed: dict[Fanout, None] = {}
        self._flush_scheduled = False
        self._last_flush = float("-inf")
        # topics to flush now, or whose flush has not reached everybody; in turn
        self._due: dict[Fanout, None] = {}
        self._turn_scheduled = False
        # published since the event loop last ran: what makes a publisher yield
        self._unyielded_messages = 0
        self._unyielded_bytes = 0
        # detaching from the broker, each a short task of the hub's own
        self._tasks: set[asyncio.Task[None]] = set()

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
        self.stats.published += 1
        self._unyielded_messages += 1
        self._unyielded_bytes += len(draft.payload)
        if (
            self._unyielded_messages >= self.limits.gather_messages_max
            or self._unyielded_bytes >= self.limits.gather_bytes_max
        ):
            await self._yield_to_readers(topic)
        return published

    async def _yield_to_readers(self, topic: str) -> None:
        for _ in range(_YIELD_PASSES_MAX):
            await self._flush_next()
            fanout = self._fanouts.get(topic)
            if fanout is None:
                return
            if not fanout.is_sweeping and not any(sub.outbox.under_pressure for sub in fanout.subscriptions):
                return

    async def finish(self, topic: str, policy: Policy, error: str | None) -> End:
        """End ``topic``: readers get the rest, then the word."""
        return await self.broker.finish(topic, error, policy.retention)

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
                await self._sleep(fanout.next_flush_in())

    async def _flush_next(self) -> None:
        """Flush on the next pass of the loop and wait for it: from a callback, writes are begun most cheaply."""
        if self._unflushed or not self._turn_scheduled:
            asyncio.get_running_loop().call_soon(self.flush)
        await asyncio.sleep(0)

    async def _sleep(self, delay_s: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_later(max(0.0, delay_s), lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    # Delivering

    def deliver(self, topic: str, event: Message | End) -> None:
        """The broker's door: local and remote messages alike."""
        fanout = self._fanouts.get(topic)
        if fanout is None:
            return
        if isinstance(event, End):
            self._unflushed.pop(fanout, None)
            self._due.pop(fanout, None)
            fanout.finish(event)
            return
        if fanout.gather(event) and self._flush_early(fanout):
            return
        self._unflushed[fanout] = None
        if not self._flush_scheduled:
            self._schedule_flush()

    def _flush_early(self, fanout: Fanout) -> bool:
        """Much has gathered: flush without waiting, unless the flush before is still on its way and may end first."""
        if fanout.is_overfull:
            fanout.flush()
        elif not fanout.is_sweeping:
            self._due[fanout] = None
            self._turn()
        else:
            return False
        self._unflushed.pop(fanout, None)
        return True

    def _schedule_flush(self) -> None:
        self._flush_scheduled = True
        due_in = self._flush_due_in()
        if due_in <= 0:
            self.clock.call_soon(self._scheduled_flush)
        else:
            self.clock.call_later(due_in, self._flush_after_window)

    def _flush_due_in(self) -> float:
        return self._last_flush + self.flush_window_s - self.clock.now()

    def _flush_after_window(self) -> None:
        due_in = self._flush_due_in()
        if due_in > _EARLY_S:
            # uvloop counts in whole milliseconds, and its timers come up to one early
            self.clock.call_later(max(due_in, 0.001), self._flush_after_window)
        else:
            self._scheduled_flush()

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Begin to hand out everything that has gathered; a publisher that yields calls it too."""
        self._unyielded_messages = self._unyielded_bytes = 0
        if self._unflushed:
            self._due.update(self._unflushed)
            self._unflushed.clear()
        self._turn()

    def _turn(self) -> None:
        """Write to as many readers as one pass of the loop may, topic after topic in turn."""
        if not self._due:
            return
        budget = self.limits.flush_writes_max
        while self._due and budget > 0:
            fanout = next(iter(self._due))
            del self._due[fanout]
            if not fanout.is_sweeping:
                fanout.begin_flush()
            budget = fanout.sweep(budget)
            if fanout.is_sweeping or (fanout.has_gathered and fanout not in self._unflushed):
                self._due[fanout] = None
        if not self._due:
            # the window begins when everybody has been written to: that may have taken longer than it is
            self._last_flush = self.clock.now()
        elif not self._turn_scheduled:
            self._turn_scheduled = True
            self.clock.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_scheduled = False
        self._turn()

    def _begun(self, fanout: Fanout) -> None:
        """A timer of ``fanout`` has begun a sweep."""
        self._due[fanout] = None
        self._turn()

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
    ) -> Subscription:
        """Register ``reader`` and bring it from ``since`` to live; returns when it is live, or has ended.

        ``noted``: what ``note`` said before the caller was admitted. ``snapshot``: the state at ``noted`` that the
        topic function returned (``Latest`` only). ``rate``: flushes per second this reader wants at most.
        The caller must go on writing the reader's outbox meanwhile. Cancelling unregisters.
        """
        subscription = Subscription(topic, reader, rate)
        fanout = await self._attach(topic, policy, subscription)
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
                recovery = LogRecovery(fanout, subscription, broker=self.broker, limits=self.limits, stats=self.stats)
                await recovery.run(since, noted)
        except ReaderGone:
            self.unsubscribe(subscription)
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    async def _attach(self, topic: str, policy: Policy, subscription: Subscription) -> Fanout:
        fanout = self._fanouts.get(topic)
        if fanout is None:
            fanout = Fanout(topic, policy, limits=self.limits, clock=self.clock, stats=self.stats, begun=self._begun)
            self._fanouts[topic] = fanout
        fanout.add(subscription)
        try:
            async with fanout.lock:
                if not fanout.attached:
                    await self.broker.attach(topic, policy.retention)
                    fanout.attached = True
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return fanout

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
                await self.broker.detach(fanout.topic)
            if not fanout.subscriptions:
                del self._fanouts[fanout.topic]
                self._unflushed.pop(fanout, None)
                self._due.pop(fanout, None)

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
