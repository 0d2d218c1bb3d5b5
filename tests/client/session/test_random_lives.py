"""Random lives of a subscription: whatever happens, what arrives is what was published, or the loss is told.

The server is a model: one topic in a list.
"""

import random
from collections import deque

import pytest

from tests.client.session.fakes import CUT, Talk, inbox
from tidewire.client.resume import Gap
from tidewire.client.session.inbox import OnOverflow
from tidewire.protocol import packets
from tidewire.protocol.packets import Command, ConnectResult, Publication, Push, Reply, SubscribeResult, Unsubscribe
from tidewire.protocol.position import Position, parse_position

LIVES = 300
STEPS = 150


class Server:
    """One topic, one connection at a time, both ways in order and late."""

    def __init__(self, chance: random.Random, keep: int) -> None:
        self.chance = chance
        self.keep = keep
        self.epoch_n = 1
        self.top = 0
        # every position there ever was, in order
        self.published: list[Position] = []
        self.coming: deque[Command] = deque()
        self.going: deque[Reply] = deque()
        self.is_subscribed = False

    @property
    def epoch(self) -> str:
        return f"e{self.epoch_n}"

    def publish(self) -> None:
        self.top += 1
        self.published.append(Position(self.epoch, self.top))
        if self.is_subscribed:
            self._push(pub=self._publication(self.top))

    def _publication(self, offset: int) -> Publication:
        return Publication(data=packets.Raw(b"%d" % offset), offset=offset)

    def _push(self, **what: packets.Packet) -> None:
        self.going.append(Reply(push=Push(channel="t", **what)))  # type: ignore[arg-type]

    def forget(self) -> None:
        """It starts anew: numbering restarts."""
        self.epoch_n += 1
        self.top = 0

    def drop_line(self) -> None:
        self.coming.clear()
        self.going.clear()
        self.is_subscribed = False

    def lose(self) -> None:
        """A message was lost on the way to this connection, and the server knows."""
        if self.is_subscribed:
            self.is_subscribed = False
            self._push(unsubscribe=Unsubscribe(2500, "insufficient state"))

    def work(self) -> None:
        """Do the next command."""
        command = self.coming.popleft()
        reply = Reply(id=command.id)
        if command.connect is not None:
            reply.connect = ConnectResult(client="c")
        elif command.unsubscribe is not None:
            self.is_subscribed = False
            reply.unsubscribe = packets.UnsubscribeResult()
        elif command.subscribe is not None and self.is_subscribed:
            reply.error = packets.Error(105, "already subscribed")
        elif command.subscribe is not None and self.chance.random() < 0.1:
            reply.error = packets.Error(100, "internal", True)
        elif command.subscribe is not None:
            self._subscribe(reply, command.subscribe)
            return
        self.going.append(reply)

    def _subscribe(self, reply: Reply, asked: packets.SubscribeRequest) -> None:
        self.is_subscribed = True
        result = SubscribeResult(recoverable=True, positioned=True, epoch=self.epoch, offset=self.top)
        result.was_recovering = asked.recover
        reply.subscribe = result
        self.going.append(reply)
        if asked.recover and asked.epoch == self.epoch and self.top - self.keep <= asked.offset <= self.top:
            result.recovered, result.offset = True, asked.offset
            missed = [self._publication(offset) for offset in range(asked.offset + 1, self.top + 1)]
            said = len(missed) if self.chance.random() < 0.5 else 0
            result.publications = missed[:said]
            # what was under way already may come twice
            again = self.chance.randrange(said + 1) if self.chance.random() < 0.5 else said
            for publication in missed[again:]:
                self._push(pub=publication)


class Life:
    """A client, its server, and what its user has seen."""

    def __init__(self, seed: int, on_overflow: OnOverflow) -> None:
        self.chance = random.Random(seed)
        self.server = Server(self.chance, keep=self.chance.choice([3, 10, 1000]))
        self.talk = Talk(waits=True)
        self.talk.machine.start(self.talk.now)
        self.talk.look()
        self.sink = inbox(self.chance.choice([2, 5, 1000]), on_overflow=on_overflow)
        self.track, _ = self.talk.subscribe("t", self.sink)
        # how often the user reads, and how much
        self.diligence = self.chance.choice([1, 3])
        # where the user stands, once it is subscribed
        self.at: Position | None = None

    def step(self) -> None:
        acts = [self.server.publish, self.deliver, self.deliver, self.do_work, self.pass_time]
        acts += [self.read] * self.diligence
        rare = [self.cut, self.restart, self.server.lose, self.publish_many]
        self.chance.choice(acts if self.chance.random() < 0.9 else rare)()

    # What may happen

    def publish_many(self) -> None:
        for _ in range(self.chance.randrange(30)):
            self.server.publish()

    def flush(self) -> None:
        if self.talk.dials and not self.talk.is_open and self.talk.machine.state.name == "connecting":
            self.talk.is_open = True
            self.talk.machine.opened(self.talk.now, self.talk.attempt)
        self.server.coming += self.talk.said()

    def deliver(self) -> None:
        """A few replies in one frame."""
        self.flush()
        n = min(len(self.server.going), self.chance.randrange(1, 5) if self.at else 1)
        if n and self.talk.is_open:
            self.talk.hear(*(self.server.going.popleft() for _ in range(n)))
            self.note_beginning()

    def do_work(self) -> None:
        self.flush()
        if self.server.coming:
            self.server.work()

    def pass_time(self) -> None:
        self.talk.advance(self.chance.random())
        if not self.talk.is_open:
            self.server.drop_line()

    def cut(self) -> None:
        if self.talk.is_open:
            self.server.drop_line()
            self.talk.cut(CUT)

    def restart(self) -> None:
        self.server.forget()
        self.cut()
        self.server.drop_line()

    def note_beginning(self) -> None:
        """From the first answer on, everything counts."""
        if self.at is None and self.track.state.name == "subscribed":
            self.at = self.track.position

    def read(self) -> None:
        for _ in range(self.chance.randrange(3)):
            entry = self.sink.take()
            if entry is None:
                break
            assert entry.position is not None
            self.check(entry.position, entry.gap)
        if self.sink.is_low:
            self.talk.machine.resume(self.talk.now, self.track)

    # What must hold

    def check(self, position: Position, gap: Gap | None) -> None:
        """Each message is the next one after the last, or its gap says exactly what is between."""
        assert self.at is not None
        before = self.at
        if gap is not None:
            assert gap.from_position == str(self.at), (gap, self.at)
            assert gap.to_position is not None
            before = parse_position(gap.to_position)
        assert position == Position(before.epoch, before.offset + 1), (position, self.at, gap)
        self.at = position

    @property
    def is_idle(self) -> bool:
        waits = self.server.coming or self.server.going or self.talk.machine.has_output or len(self.sink)
        return self.track.state.name == "subscribed" and not waits

    def settle(self) -> None:
        """Nothing happens any more but what was begun; at the end everything is there."""
        for is_last in (False, True):
            for _ in range(5000):
                if self.is_idle:
                    break
                for act in (self.deliver, self.do_work, self.read, self.pass_time):
                    act()
            assert self.is_idle
            if not is_last:
                self.server.publish()
        assert self.at == self.server.published[-1]
        assert self.track.lost is None


def live(seed: int, on_overflow: OnOverflow) -> None:
    life = Life(seed, on_overflow)
    for _ in range(STEPS):
        life.step()
    life.settle()


@pytest.mark.parametrize("on_overflow", ["pause", "drop"])
def test_lives(on_overflow: OnOverflow) -> None:
    for seed in range(LIVES):
        try:
            live(seed, on_overflow)
        except AssertionError as error:
            error.add_note(f"live({seed}, {on_overflow!r}) replays it")
            raise
