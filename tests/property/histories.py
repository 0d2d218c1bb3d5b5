"""Random histories of one topic, with a plain list as the oracle.

``run_history(rng, policy)`` lives through publishes, readers that come, resume, read slowly, stall and vanish,
a broker that delivers late, forgets or loses its state, time that passes and an end; then it checks what every
reader saw. ``python -m tests.property.histories SEED POLICY`` replays one.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass

from tests.hub.fakes import CountingEncoder, FakeReader, SlowBroker
from tidewire.brokers.memory import MemoryBroker
from tidewire.errors import TopicFinished
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Latest, Log, Policy, Signal
from tidewire.hub.subscription import Gap, Opened, State, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind, Message
from tidewire.protocol.position import NOW, START, Position, Since
from tidewire.testing import ManualClock

TOPIC = "t"
KEYS = "abcd"
POLICIES: dict[str, Policy] = {
    "log": Log(keep=8),
    "log-ttl": Log(keep=12, ttl_s=3.0),
    "latest": Latest(key="k", max_keys=3),
    "latest-rate": Latest(key="k", max_per_s=2.0, max_keys=6),
    "signal": Signal(),
}
LIMITS = Limits(
    outbox_messages_max=6,
    outbox_bytes_max=400,
    page_messages_max=3,
    gather_messages_max=5,
    gather_bytes_max=60,
    rates_per_topic_max=2,
    flush_writes_max=2,
)


@dataclass(eq=False)
class Client:
    """A reader and what it asked for."""

    reader: FakeReader
    since: Since
    task: asyncio.Task[Subscription]
    rate: float | None = None

    @property
    def subscription(self) -> Subscription | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class World:
    """One topic, its readers, and everything that was ever published."""

    def __init__(self, rng: random.Random, policy: Policy) -> None:
        self.rng = rng
        self.policy = policy
        self.clock = ManualClock()
        # chance of its own: the broker is asked by several tasks at once
        chance = random.Random(rng.getrandbits(32))
        self.broker = SlowBroker(MemoryBroker(clock=self.clock, rng=chance, limits=LIMITS), chance)
        self.hub = Hub(self.broker, limits=LIMITS, clock=self.clock, flush_window_s=0.0)
        self.encoders = [CountingEncoder(), CountingEncoder()]
        # the oracle: every numbered message by its position, in the order of publishing
        self.published: dict[Position, tuple[str | None, bytes, bool]] = {}
        self.signals: list[bytes] = []
        self.newest: dict[str, bytes] = {}
        self.finished = False
        self.clients: list[Client] = []
        self.gone: list[Client] = []
        self._count = 0

    async def run(self) -> None:
        await self.hub.start()
        steps = (
            [self.publish] * 8
            + [self.read] * 6
            + [self.come] * 2
            + [self.turn] * 3
            + [self.carry] * 4
            + [self.rest] * 4
        )
        steps += [self.vanish, self.come_back, self.pass_time, self.pass_time]
        for _ in range(self.rng.randrange(20, 70)):
            await self.rng.choice(steps)()
            if self.rng.random() < 0.01:
                await self.lose_state()
            if self.rng.random() < 0.01:
                await self.finish()
        await self.settle()
        self.check()
        await self.hub.close()
        await asyncio.sleep(0)

    # What happens

    async def publish(self) -> None:
        for _ in range(self.rng.randrange(1, 9)):
            self._count += 1
            key = self.rng.choice(KEYS) if isinstance(self.policy, Latest) else None
            removed = key is not None and self.rng.random() < 0.15
            payload = b"%d" % self._count + b"." * self.rng.randrange(30)
            try:
                answer = await self.broker.publish(
                    TOPIC, Draft(payload, Kind.TEXT, key, removed), self.policy.retention
                )
            except TopicFinished:
                assert self.finished
                return
            assert not self.finished
            self._note(answer.position, key, payload, removed)

    def _note(self, position: Position | None, key: str | None, payload: bytes, removed: bool) -> None:
        if position is None:
            self.signals.append(payload)
            return
        self.published[position] = (key, payload, removed)
        if key is not None:
            self._note_value(position, key, payload, removed)

    def _note_value(self, position: Position, key: str, payload: bytes, removed: bool) -> None:
        """The newest value of each key, with the broker's rule for too many of them."""
        self.newest.pop(key, None)
        if not removed:
            self.newest[key] = payload
        while len(self.newest) > self.policy.retention.keep:
            oldest = next(iter(self.newest))
            del self.newest[oldest]
            after = Position(position.epoch, position.offset + 1)
            self.published[after] = (oldest, b'{"key":"%s","removed":true}' % oldest.encode(), True)

    async def come(self) -> None:
        if len(self.clients) < 6:
            await self._connect(self.rng.choice([NOW, NOW, START]))

    async def come_back(self) -> None:
        """A reader that has gone returns with the last position it saw."""
        if self.gone:
            positions = [m for m in self.rng.choice(self.gone).reader.messages if m.offset]
            since: Since = Position(positions[-1].epoch, positions[-1].offset) if positions else NOW
            await self._connect(since)

    async def _connect(self, since: Since) -> None:
        reader = FakeReader(
            self.rng.choice(self.encoders),
            bytes_max=LIMITS.outbox_bytes_max,
            messages_max=LIMITS.outbox_messages_max,
        )
        rate = self.rng.choice([None, 1.0, 5.0]) if isinstance(self.policy, Latest) else None
        most = self.policy.max_per_s if isinstance(self.policy, Latest) else None
        rate = most if rate is None else min(rate, most or rate)
        noted = await self.hub.note(TOPIC)
        task = asyncio.create_task(self.hub.subscribe(TOPIC, self.policy, reader, since=since, noted=noted, rate=rate))
        self.clients.append(Client(reader, since, task, rate))

    async def read(self) -> None:
        if self.clients:
            self.rng.choice(self.clients).reader.take(self.rng.randrange(1, 4))

    async def rest(self) -> None:
        """Readers that have taken everything are ready: flushes write past their outboxes."""
        for client in self.clients:
            if self.rng.random() < 0.7:
                client.reader.rest()

    async def vanish(self) -> None:
        if self.clients and self.rng.random() < 0.7:
            client = self.clients.pop(self.rng.randrange(len(self.clients)))
            await self._leave(client)
            self.gone.append(client)

    async def _leave(self, client: Client) -> None:
        client.task.cancel()
        await asyncio.wait([client.task])
        if client.subscription is not None:
            self.hub.unsubscribe(client.subscription)
        client.reader.outbox.close()

    async def turn(self) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            await asyncio.sleep(0)

    async def carry(self) -> None:
        self.broker.carry(self.rng.randrange(1, 8))

    async def pass_time(self) -> None:
        self.clock.advance(self.rng.choice([0.05, 0.3, 1.0]))

    async def lose_state(self) -> None:
        """Only while nothing is on its way: what a broker carries is what it had."""
        self.broker.carry()
        if not self.finished:
            self.broker.lose_state(TOPIC, self.policy.retention)
            self.newest.clear()

    async def finish(self) -> None:
        await self.broker.finish(TOPIC, None, self.policy.retention)
        self.finished = True

    async def settle(self) -> None:
        """Everybody reads until nothing moves any more."""
        for _ in range(400):
            self.broker.carry()
            for _ in range(4):
                await asyncio.sleep(0)
            self.clock.advance(0.5)
            moved = sum(client.reader.take() for client in self.clients)
            waiting = self.hub._turns.is_scheduled or any(fanout.pending for fanout in self.hub._fanouts.values())
            if not moved and not waiting and all(client.task.done() for client in self.clients):
                return
        raise AssertionError("the readers do not come to rest")

    # What must hold

    def check(self) -> None:
        for client in [*self.clients, *self.gone]:
            if isinstance(self.policy, Log):
                check_log(self, client)
            elif isinstance(self.policy, Latest):
                check_latest(self, client)
            else:
                check_signal(self, client)


def check_log(world: World, client: Client) -> None:
    """Received is a contiguous slice of what was published, or the reader was told of the gap."""
    at: Position | None = None
    for event in client.reader.seen:
        if isinstance(event, Opened):
            assert event.start is not None
            at = event.start
            if isinstance(client.since, Position):
                assert event.recovered == (event.start == client.since), "recovered is honest"
            else:
                assert event.recovered is None
        elif isinstance(event, Gap):
            assert event.since is None or event.since != event.until, "a gap is a gap"
            at = event.until
        elif isinstance(event, Message):
            assert at is not None, "nothing before the opening"
            here = Position(event.epoch, event.offset)
            assert here == Position(at.epoch, at.offset + 1), f"after {at} came {here}"
            assert world.published[here][1] == event.payload
            at = here
    check_reached_the_top(world, client, at)


def check_reached_the_top(world: World, client: Client, at: Position | None) -> None:
    """Who is still there at rest has everything, and heard of the end."""
    if client in world.gone or client.reader.eviction is not None:
        return
    assert at is not None
    newest = list(world.published)[-1:] or [at]
    if newest[0].epoch == at.epoch:
        assert at == newest[0], f"at rest at {at}, the newest is {newest[0]}"
    if world.finished:
        assert client.reader.end is not None, "the end was told"
    else:
        assert client.subscription is not None
        assert client.subscription.state in {State.LIVE, State.JOINING}


def check_latest(world: World, client: Client) -> None:
    """Positions ascend, values are real, and at rest the reader's state is the newest of every key."""
    state: dict[str | None, bytes] = {}
    at: Position | None = None
    is_whole = not isinstance(client.since, Position)
    for event in client.reader.seen:
        if isinstance(event, Opened):
            at = event.start
        elif isinstance(event, Gap):
            is_whole = is_whole or event.since is not None
            state.clear()
            at = event.until
        elif isinstance(event, Message):
            here = Position(event.epoch, event.offset)
            assert at is None or here.epoch != at.epoch or here.offset > at.offset, f"after {at} came {here}"
            assert world.published[here] == (event.key, event.payload, event.removed)
            at = here
            state.pop(event.key, None)
            if not event.removed:
                state[event.key] = event.payload
    if client in world.gone or client.reader.eviction is not None:
        return
    if is_whole and not lost_unnoticed(world, at):
        assert state == {**{k: v for k, v in state.items() if k not in KEYS}, **world.newest}, "the newest of every key"
    if world.finished:
        assert client.reader.end is not None, "the end was told"


def lost_unnoticed(world: World, at: Position | None) -> bool:
    """The store was lost and nothing has been published since: nobody can know yet."""
    current = world.broker.inner._topics[TOPIC].topic.epoch
    return at is not None and at.epoch != current and all(place.epoch != current for place in world.published)


def check_signal(world: World, client: Client) -> None:
    """What is received is in order and real; what a full outbox lost is counted."""
    received = [message.payload for message in client.reader.messages]
    rest = iter(world.signals)
    assert all(payload in rest for payload in received), "in order, each once"
    if received and not world.hub.stats.dropped and client not in world.gone:
        first = world.signals.index(received[0])
        assert received == world.signals[first:], "nothing is lost that is not counted"


async def run_many(seeds: range, policy: str) -> None:
    """Many histories on one event loop; an error names the seed that replays it."""
    for seed in seeds:
        try:
            await World(random.Random(f"{policy}:{seed}"), POLICIES[policy]).run()
        except BaseException as error:
            error.add_note(f"replay: python -m tests.property.histories {seed} {policy}")
            raise


if __name__ == "__main__":
    asyncio.run(run_many(range(int(sys.argv[1]), int(sys.argv[1]) + 1), sys.argv[2]))
