"""A client's machine with the other end of its line in the test's hands: no port, no sleep, a clock of numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Raw

from tidewire.client.errors import Disconnected
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.session.events import Changed, Dial, Event, HangUp, Settled, TrackChanged
from tidewire.client.session.inbox import Entry, Inbox, OnOverflow
from tidewire.client.session.machine import Hello, Machine
from tidewire.client.session.messages import ClientState, SubscriptionState
from tidewire.client.session.track import Track, Wish
from tidewire.errors import ClientError
from tidewire.protocol import packets
from tidewire.protocol.codecs import JSON, Codec
from tidewire.protocol.packets import (
    Command,
    ConnectResult,
    Publication,
    Push,
    Reply,
    SubscribeRequest,
    SubscribeResult,
)
from tidewire.protocol.position import Position

E = TypeVar("E", bound=Event)
EPOCH = "e1"
CUT = Advice(ComeBack.FAST, "the line was cut")


def at(offset: int, epoch: str = EPOCH) -> Position:
    return Position(epoch, offset)


def text(offset: int, epoch: str = EPOCH) -> str:
    return str(Position(epoch, offset))


def pub(offset: int, **more: Any) -> Publication:
    return Publication(data=Raw(str(offset).encode()), offset=offset, **more)


def subscribed(offset: int = 0, *missed: int, epoch: str = EPOCH, **more: Any) -> SubscribeResult:
    """What a server says of a topic that numbers its messages."""
    options = {"recoverable": True, "positioned": True} | more
    return SubscribeResult(epoch=epoch, offset=offset, publications=[pub(one) for one in missed], **options)


def recovered(offset: int, *missed: int, **more: Any) -> SubscribeResult:
    return subscribed(offset, *missed, recovered=True, was_recovering=True, **more)


def inbox(messages_max: int = 100, bytes_max: int = 10_000, on_overflow: OnOverflow = "pause") -> Inbox:
    return Inbox(messages_max=messages_max, bytes_max=bytes_max, on_overflow=on_overflow)


class Talk:
    """A machine, and what it does and says."""

    def __init__(self, *, codec: Codec = JSON, hello: Hello | None = None, waits: bool = False) -> None:
        self.codec = codec
        self.now = 100.0
        self.machine = Machine(
            codec, hello or Hello(), shown="ws://h/live/-/session", waits=waits, rng=random.Random(7)
        )
        # everything it told, in order
        self.events: list[Event] = []
        # what it has said and the test has not looked at
        self._said: list[Command] = []
        # the name of the connection that was asked for last, and whether it is there
        self.attempt = 0
        self.is_open = False

    # What it does

    def look(self) -> None:
        """Take its events and its output."""
        for event in self.machine.take_events():
            self.events.append(event)
            if isinstance(event, Dial):
                self.attempt = event.attempt
            elif isinstance(event, HangUp):
                self.is_open = False
        while self.is_open and self.machine.has_output:
            for frame in self.machine.take_frames(self.now):
                self._said += self.codec.read_commands(frame)
            for event in self.machine.take_events():
                self.events.append(event)

    def told(self, kind: type[E]) -> list[E]:
        """The events of this kind so far."""
        self.look()
        return [event for event in self.events if isinstance(event, kind)]

    @contextmanager
    def news(self, kind: type[E]) -> Iterator[list[E]]:
        """The events of this kind in the block."""
        before = len(self.told(kind))
        found: list[E] = []
        yield found
        found += self.told(kind)[before:]

    @property
    def states(self) -> list[ClientState]:
        return [event.state for event in self.told(Changed)]

    @property
    def names(self) -> list[str]:
        return [state.name for state in self.states]

    def states_of(self, track: Track) -> list[SubscriptionState]:
        return [event.state for event in self.told(TrackChanged) if event.track is track]

    @property
    def dials(self) -> int:
        return len(self.told(Dial))

    def settled(self, handle: int) -> Any:
        """What came of a request."""
        (one,) = [event for event in self.told(Settled) if event.handle == handle]
        return one.result

    def said(self) -> list[Command]:
        """The commands since the last look."""
        self.look()
        said, self._said = self._said, []
        return said

    def one(self) -> Command:
        """The only command since the last look."""
        (command,) = self.said()
        return command

    # What the other end does

    def advance(self, seconds: float) -> None:
        """Time goes on, and what is due is done on time."""
        until = self.now + seconds
        while (due := self.machine.next_at) is not None and due <= until:
            self.now = max(due, self.now)
            self.machine.tick(self.now)
            self.look()
        self.now = until
        self.look()

    def open(self) -> Command:
        """The line is open; returns the connect command."""
        self.look()
        self.is_open = True
        self.machine.opened(self.now, self.attempt)
        command = self.one()
        assert command.connect is not None
        return command

    def reply(self, to: Command | int, **result: packets.Packet) -> None:
        """Answer a command, e.g. ``reply(command, subscribe=SubscribeResult())``."""
        self.hear(Reply(id=to if isinstance(to, int) else to.id, **result))  # type: ignore[arg-type]

    def refuse(self, to: Command, code: int, message: str = "no", *, temporary: bool = False) -> None:
        self.reply(to, error=packets.Error(code, message, temporary))

    def push(self, topic: str, **what: packets.Packet) -> None:
        self.hear(Reply(push=Push(channel=topic, **what)))  # type: ignore[arg-type]

    def publish(self, topic: str, *offsets: int) -> None:
        self.hear(*(Reply(push=Push(channel=topic, pub=pub(offset))) for offset in offsets))

    def hear(self, *replies: Reply) -> None:
        """One frame of the server's."""
        frame = self.codec.join([self.codec.write(reply) for reply in replies])
        self.machine.receive(self.now, self.attempt, frame.decode() if self.codec.is_text else frame)
        self.look()

    def ping(self) -> None:
        """An empty reply."""
        self.hear(Reply())

    def connect(self, **result: Any) -> Command:
        """Open the line and welcome it; returns the connect command."""
        command = self.open()
        self.reply(command, connect=ConnectResult(**({"client": "c1", "ping": 25, "pong": True} | result)))
        return command

    def begin(self, **result: Any) -> Command:
        """From nothing to connected."""
        self.machine.start(self.now)
        return self.connect(**result)

    def cut(self, advice: Advice = CUT, error: ClientError | None = None, code: int | None = None) -> None:
        """The line ends."""
        self.is_open = False
        error = error or Disconnected("ws://h", 1006, advice.reason)
        self.machine.ended(self.now, self.attempt, advice, error, code)
        self.look()

    def come_back(self, **result: Any) -> Command:
        """Whatever the delay is, it is over, and the line is there again."""
        before = self.dials
        self.advance(25)
        assert self.dials == before + 1
        return self.connect(**result)

    # What the user does

    def subscribe(self, topic: str = "t", sink: Inbox | None = None, **wish: Any) -> tuple[Track, Inbox]:
        sink = inbox() if sink is None else sink
        track = self.machine.subscribe(self.now, topic, sink, Wish(**wish))
        self.look()
        return track, sink

    def subscribe_well(self, result: SubscribeResult | None = None, **options: Any) -> tuple[Track, Inbox]:
        """Subscribed at once."""
        track, sink = self.subscribe(**options)
        self.reply(self.one(), subscribe=subscribed() if result is None else result)
        return track, sink

    def asked_again(self) -> SubscribeRequest:
        """The next subscribe command; time goes on until it is sent."""
        for _ in range(100):
            for command in self.said():
                if command.subscribe is not None:
                    self.again = command
                    return command.subscribe
            due = self.machine.next_at
            assert due is not None, "nothing is due, and no subscribe command was sent"
            self.advance(due - self.now)
        raise AssertionError("no subscribe command was sent")


def take_all(sink: Inbox) -> list[Entry]:
    entries = []
    while (entry := sink.take()) is not None:
        entries.append(entry)
    return entries


def offsets(sink: Inbox) -> list[int]:
    """The numbers of what has come, which is also the data."""
    return [int(entry.data) for entry in take_all(sink)]
