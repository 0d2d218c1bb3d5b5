"""One topic's readers in this process, and what has gathered for them since the last flush."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tidewire.clock import Clock, Timer
from tidewire.hub.conflator import newest_of_each_key
from tidewire.hub.lanes import ConflatedLane, StreamLane, make_room
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.policy import Latest, Log, Policy
from tidewire.hub.sequence import Delivered
from tidewire.hub.stats import Stats
from tidewire.hub.subscription import Encode, Eviction, Gap, State, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import End, Message
from tidewire.protocol.position import Position, after, follows, position_of

# how often the limit of what may gather, while the flush before is still on its way
_OVERFULL = 4
_EVERYBODY = 1 << 62


class Fanout:
    """Gathers, flushes and keeps the readers of ``topic``. Never awaits; time is the clock's.

    A flush is begun, and then swept: ``sweep`` writes to so many readers, and is called until everybody had a turn.
    What is delivered meanwhile gathers for the next one. ``flush`` does all of it at once.

    A queue's limit: what is gathered while a sweep goes on is flushed at once when it is ``is_overfull``.
    """

    def __init__(
        self,
        topic: str,
        policy: Policy,
        *,
        limits: Limits,
        clock: Clock,
        stats: Stats,
        begun: Callable[[Fanout], None],
    ) -> None:
        self.topic = topic
        self.policy = policy
        # attaching to the broker and detaching happen one at a time
        self.lock = asyncio.Lock()
        self.attached = False
        # every reader that is not ended, in the order they came
        self.subscriptions: dict[Subscription, None] = {}
        # of these, the connections that have something to write
        self.busy: set[Outbox] = set()
        # those whose history is being read, and a copy of every flush since that began
        self._catching_up: dict[Subscription, list[Message]] = {}
        # those that are ahead of what has been delivered here: they get what they have not, until they are level
        self._joining: dict[Subscription, None] = {}
        # the word that the topic is finished, once it has come
        self.end: End | None = None
        self._delivered = Delivered()
        # newest position that was flushed: of what is newer, somebody who has it already is not told again
        self._flushed: Position | None = None
        self._limits = limits
        self._clock = clock
        self._stats = stats
        # told of a sweep that a timer has begun
        self._begun = begun
        self._gathered: list[Message] = []
        self._gathered_bytes = 0
        self._streams: dict[Encode, StreamLane] = {}
        self._conflated: dict[tuple[Encode, float | None], ConflatedLane] = {}
        self._timers: dict[ConflatedLane, Timer] = {}

    # What comes in

    def gather(self, message: Message) -> bool:
        """Note a delivered message; returns whether the topic should be flushed without waiting."""
        news = self._delivered.take(message)
        if not news:
            return False
        if isinstance(news, Gap):
            self._tell_gap(news)
        self._gathered.append(message)
        self._gathered_bytes += len(message.payload)
        limits = self._limits
        return len(self._gathered) >= limits.gather_messages_max or self._gathered_bytes >= limits.gather_bytes_max

    @property
    def is_overfull(self) -> bool:
        """Far more has gathered than there should, because a sweep takes long."""
        return (
            len(self._gathered) >= _OVERFULL * self._limits.gather_messages_max
            or self._gathered_bytes >= _OVERFULL * self._limits.gather_bytes_max
        )

    def _tell_gap(self, gap: Gap) -> None:
        self.flush()
        for lane in self._conflated.values():
            lane.restart(gap.until.epoch)
        for subscription in list(self.subscriptions):
            if subscription.state is State.LIVE and not subscription.began_in(gap.until.epoch):
                self._lose(subscription, gap)
            elif subscription.state is State.CATCHING_UP:
                subscription.buffer_full = True

    def _lose(self, subscription: Subscription, gap: Gap) -> None:
        self._stats.gaps += 1
        subscription.reader.lost(subscription, gap)

    def finish(self, end: End) -> None:
        """The topic has ended: hand out the rest, then the word.

        One that is gone may come again under its name: the word is for those who are here, catching up or not.
        """
        self.end = None if end.gone else end
        self.flush()
        for lane in list(self._conflated.values()):
            self._flush_lane(lane)
        self._sweep_all()
        for subscription in list(self.subscriptions):
            if end.gone or subscription.state is not State.CATCHING_UP:
                self._end(subscription, end)

    def end_if_over(self, subscription: Subscription, read_end: End | None) -> None:
        """The topic's end, read in its history or delivered meanwhile, is also the end of a reader that has it all."""
        end = self.end or read_end
        if end is not None and subscription.state is not State.ENDED:
            self._end(subscription, end)

    def _end(self, subscription: Subscription, end: End) -> None:
        self.remove(subscription)
        subscription.reader.ended(subscription, end)

    # What goes out

    def flush(self) -> None:
        """Hand what has gathered to every live reader, now."""
        self._sweep_all()
        self.begin_flush()
        self._sweep_all()

    def begin_flush(self) -> None:
        """Take what has gathered, to be swept to the readers; nothing is being swept."""
        if not self._gathered:
            return
        messages, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._flushed = position_of(messages[-1])
        self._join_before(messages[0])
        for stream in self._streams.values():
            stream.begin(messages)
        self._flush_buffers(messages)
        # last: who is level then shares the next flush, not this one again
        self._flush_joining(messages)
        for lane in list(self._conflated.values()):
            lane.add(messages)
            self._flush_or_wait(lane)

    def sweep(self, budget: int) -> int:
        """Write to readers within ``budget`` (a small write is 1); returns what is left of it."""
        for stream in list(self._streams.values()):
            if budget > 0 and stream.is_sweeping:
                budget -= self._sweep_stream(stream, budget)
        for lane in list(self._conflated.values()):
            if budget > 0 and lane.is_sweeping:
                cost, count = lane.sweep(budget)
                budget -= cost
                self._stats.delivered += count
                if lane.pending:
                    self._flush_or_wait(lane)
        return budget

    @property
    def is_sweeping(self) -> bool:
        """A flush has not reached everybody yet."""
        return any(stream.is_sweeping for stream in self._streams.values()) or any(
            lane.is_sweeping for lane in self._conflated.values()
        )

    def _sweep_all(self) -> None:
        while self.is_sweeping:
            self.sweep(_EVERYBODY)

    def _flush_buffers(self, messages: list[Message]) -> None:
        for subscription, buffer in self._catching_up.items():
            buffer += messages
            if len(buffer) <= self._limits.outbox_messages_max:
                continue
            if isinstance(self.policy, Latest):
                # of each key the newest is enough, and there are at most so many keys
                buffer[:] = newest_of_each_key(buffer)
            else:
                buffer.clear()
                subscription.buffer_full = True

    def _join_before(self, first: Message) -> None:
        """Readers that have all before ``first``, and nothing of what begins with it, share the flush of that.

        After a restart that is everybody: each on its own, thousands of them would hold up the loop.
        """
        for subscription in list(self._joining):
            at = subscription.at
            assert at is not None
            if follows(at, first):
                del self._joining[subscription]
                self._go_live(subscription)

    def _flush_joining(self, messages: list[Message]) -> None:
        """Readers in the same place share a batch here too."""
        shared: dict[tuple[Encode, int], Batch] = {}
        for subscription in list(self._joining):
            self.hand_over(subscription, messages, shared)
            if subscription.state is State.JOINING and self._is_level(subscription):
                del self._joining[subscription]
                self._go_live(subscription)

    def hand_over(
        self,
        subscription: Subscription,
        messages: Sequence[Message],
        shared: dict[tuple[Encode, int], Batch] | None = None,
    ) -> None:
        """Queue what of ``messages`` the reader does not have yet, telling a gap if they do not follow on."""
        assert subscription.at is not None
        fresh = after(subscription.at, messages)
        if not fresh:
            return
        if not follows(subscription.at, fresh[0]):
            self._lose(subscription, Gap(subscription.at, Position(fresh[0].epoch, fresh[0].offset - 1)))
            if subscription.state is State.ENDED:
                # its dialect goes on from where it was, by a subscription of its own
                return
        subscription.at = position_of(fresh[-1])
        name = (subscription.reader.encode, len(fresh))
        batch = None if shared is None else shared.get(name)
        if batch is None:
            batch = subscription.reader.encode(fresh)
            if shared is not None:
                shared[name] = batch
        writer = subscription.outbox.writer
        if not writer.carrier.write((writer,), batch):
            subscription.sent = batch.position
        elif not subscription.offer(batch):
            self.evict(subscription, Eviction.SLOW)
            return
        self._stats.delivered += batch.count

    def _is_level(self, subscription: Subscription) -> bool:
        assert subscription.at is not None
        return self._flushed is not None and self._flushed >= subscription.at

    def _sweep_stream(self, lane: StreamLane, budget: int) -> int:
        cost, count, batch, full = lane.sweep(budget)
        self._stats.delivered += count
        for subscription in full:
            assert batch is not None, "somebody had no room for it"
            if isinstance(self.policy, Log):
                self.evict(subscription, Eviction.SLOW)
            else:
                self._stats.dropped += make_room(subscription, batch)
        return cost

    def _flush_or_wait(self, lane: ConflatedLane) -> None:
        if lane.is_sweeping:
            # what is pending conflates until everybody has the flush before
            return
        due_in = lane.due_in(self._clock.now())
        if due_in <= 0:
            self._flush_lane(lane)
        elif lane not in self._timers:
            self._timers[lane] = self._clock.call_later(due_in, lambda: self._on_timer(lane))

    def _on_timer(self, lane: ConflatedLane) -> None:
        self._timers.pop(lane, None)
        self._flush_or_wait(lane)
        if lane.is_sweeping:
            self._begun(self)

    def _flush_lane(self, lane: ConflatedLane) -> None:
        timer = self._timers.pop(lane, None)
        if timer is not None:
            timer.cancel()
        for subscription in lane.begin(self._clock.now()):
            self.evict(subscription, Eviction.SLOW)

    @property
    def pending(self) -> bool:
        """Whether anything waits for a flush, or has not reached everybody."""
        return bool(self._gathered) or self.is_sweeping or any(lane.pending for lane in self._conflated.values())

    @property
    def has_gathered(self) -> bool:
        """Whether a flush would carry something."""
        return bool(self._gathered)

    def next_flush_in(self) -> float:
        """Seconds until the last waiting rate permits its flush."""
        now = self._clock.now()
        return max((lane.due_in(now) for lane in self._conflated.values() if lane.pending), default=0.0)

    # Who hears it

    def add(self, subscription: Subscription) -> None:
        """Register a reader; it hears nothing yet."""
        self.subscriptions[subscription] = None
        subscription.outbox.watch(self.busy)

    def begin_buffering(self, subscription: Subscription) -> None:
        """From now on keep what is delivered for this reader, while its history is being read."""
        subscription.buffer_full = False
        self._catching_up[subscription] = []

    def end_buffering(self, subscription: Subscription) -> list[Message]:
        """What was delivered since ``begin_buffering``, this moment included, and perhaps what came before."""
        return self._catching_up.pop(subscription, []) + self._gathered

    def go_live(self, subscription: Subscription) -> None:
        """The reader of a ``Log`` or ``Signal`` has everything up to its ``at``: it shares flushes once it is level."""
        if subscription.at is not None and not self._is_level(subscription):
            subscription.state = State.JOINING
            self._joining[subscription] = None
        else:
            self._go_live(subscription)

    def _go_live(self, subscription: Subscription) -> None:
        subscription.state = State.LIVE
        subscription.at = None
        encode = subscription.reader.encode
        lane = self._streams.get(encode)
        if lane is None:
            lane = self._streams[encode] = StreamLane(encode)
        lane.join(subscription)

    def go_live_conflated(self, subscription: Subscription, snapshot: list[Message], seen: Position) -> None:
        """The reader of a ``Latest`` begins with ``snapshot``, which is the state at ``seen``."""
        assert isinstance(self.policy, Latest)
        subscription.state = State.LIVE
        self._delivered.began(seen)
        rate = self._shared_rate(subscription.rate)
        name = (subscription.reader.encode, rate)
        lane = self._conflated.get(name)
        if lane is None:
            lane = self._conflated[name] = ConflatedLane(subscription.reader.encode, rate, self.policy.max_keys)
        self._stats.delivered += len(snapshot)
        lane.join(subscription, snapshot, seen)

    def _shared_rate(self, rate: float | None) -> float | None:
        """``rate``, or the slowest there is when subscribers ask for too many different ones."""
        rates = {lane.rate for lane in self._conflated.values()}
        if rate is None or rate in rates or len(rates) < self._limits.rates_per_topic_max:
            return rate
        return min((known for known in rates if known is not None), default=rate)

    def remove(self, subscription: Subscription) -> None:
        """The reader is gone; lanes nobody uses go with it."""
        self.subscriptions.pop(subscription, None)
        subscription.outbox.unwatch(self.busy)
        self._catching_up.pop(subscription, None)
        self._joining.pop(subscription, None)
        subscription.state = State.ENDED
        for encode, stream in list(self._streams.items()):
            stream.leave(subscription)
            if not len(stream):
                del self._streams[encode]
        for name, lane in list(self._conflated.items()):
            lane.leave(subscription)
            if not len(lane):
                del self._conflated[name]
                timer = self._timers.pop(lane, None)
                if timer is not None:
                    timer.cancel()

    def evict(self, subscription: Subscription, why: Eviction) -> None:
        """Unregister first, count, then let the connection end itself."""
        self.remove(subscription)
        self._stats.evicted += 1
        if why is Eviction.SLOW:
            # at a shutdown what is queued still goes out; here it is the trouble
            subscription.outbox.discard(subscription)
        subscription.reader.evicted(subscription, why)
