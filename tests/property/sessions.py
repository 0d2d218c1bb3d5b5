"""Random histories of hub, sessions and clients over an in-memory wire, with a plain list as the oracle.

``Story(rng).run()`` lives through publishes of the application and of clients, lines that are cut on both ends or on
one, clients that read nothing, delays in both directions, restarts, stores that are lost, time that passes; strangers
try what they must not. The oracle: what arrives is what was published, in order, or the loss was told; replies say
what is true; who was let in; pings come; who is there is there, and nobody else.
``python -m tests.property.sessions SEED`` replays one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import deque
from typing import Any

import jwt
import msgspec
from starlette.requests import HTTPConnection

from tests.hub.fakes import SlowBroker
from tests.wire.fakes import FakeTransport
from tests.wire.frames import CLOSE, TEXT, close_payload, frame
from tidewire.brokers.memory import MemoryBroker
from tidewire.client.errors import Disconnected
from tidewire.client.reconnect import Backoff
from tidewire.client.resume import Gap
from tidewire.client.session.advice import advise_close
from tidewire.client.session.events import Dial, HangUp
from tidewire.client.session.inbox import Inbox
from tidewire.client.session.machine import Hello, Machine
from tidewire.client.session.track import Track, Wish
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Latest, Log, Policy
from tidewire.hub.presence import Member
from tidewire.limits import Limits
from tidewire.protocol import packets
from tidewire.protocol.codecs import JSON
from tidewire.protocol.message import Draft, Kind
from tidewire.protocol.position import Position, parse_position
from tidewire.protocol.topics import Template
from tidewire.server.direct import SocketConnection
from tidewire.server.gate import Admission, Declaration, Gate, Operation, Refusal
from tidewire.server.identities import Identities
from tidewire.server.identity import Identity
from tidewire.server.inner import Inner
from tidewire.server.origin import OriginRule
from tidewire.server.publisher import Publisher
from tidewire.server.session.reader import framing_of
from tidewire.server.session.session import Session
from tidewire.server.session.table import execute
from tidewire.server.site import Site
from tidewire.server.tokens import Tokens
from tidewire.testing import ManualClock
from tidewire.wire import frames
from tidewire.wire.open import OpenSocket, Shared

LIMITS = Limits(
    outbox_messages_max=6,
    outbox_bytes_max=4000,
    page_messages_max=4,
    gather_messages_max=5,
    gather_bytes_max=600,
    flush_writes_max=2,
)
SECRET = "a secret of these histories, and of nothing else"
PEOPLE = ("ann", "bob", "cy")
ROOM, LOG, VALUES = "room", "log", "values"
POLICIES: dict[str, Policy] = {
    ROOM: Log(keep=8),
    LOG: Log(keep=30),
    "mail/{user}": Log(keep=8),
    VALUES: Latest(key="k"),
}


class QuickGate(Gate):
    """Decides at once, by the plainest of rules: mail is for its user. The real one has tests of its own."""

    async def ask(
        self, declaration: Declaration, operation: Operation, connection: Any, identity: Identity | None = None
    ) -> Admission | Refusal:
        await asyncio.sleep(0)
        user = "" if identity is None else identity.user
        if operation.topic.startswith("mail/") and operation.topic != f"mail/{user}":
            return Refusal(403, "not yours")
        return Admission()


async def _nobody() -> None: ...


def _make_gate() -> Gate:
    gate = QuickGate(Inner(deadline_s=10))
    for name, policy in POLICIES.items():
        # the functions of the real gate are not asked here
        async def function(user: str = "") -> None: ...

        is_room = name == ROOM
        declaration = Declaration(
            Template(name),
            policy,
            function if "{" in name else _nobody,
            None,
            True,
            presence=is_room,
            join_leave=is_room,
        )
        gate.declare(declaration)
    return gate


GATE = _make_gate()


class Node:
    """A server between two restarts."""

    def __init__(self, story: Story) -> None:
        self.clock = story.clock
        chance = random.Random(story.rng.getrandbits(32))
        self.broker = SlowBroker(MemoryBroker(clock=self.clock, rng=chance, limits=LIMITS), chance)
        self.hub = Hub(self.broker, limits=LIMITS, clock=self.clock, flush_window_s=0.0)
        self.site = Site(self.hub, GATE, Publisher(self.hub, GATE, LIMITS), LIMITS, OriginRule(()), rng=chance)
        tokens = Tokens(secret=SECRET, clock=self.clock)
        self.site.tokens = tokens
        self.site.identities = Identities(
            GATE.inner, tokens, None, tickets=self.site.tickets, revocations=self.site.revocations
        )
        self.shared = Shared(asyncio.get_running_loop(), set(), self.clock)
        # who came to the room and who left, as it was told
        self.told: list[tuple[str, str]] = []
        self.site.presence.listen(ROOM, self, self._note)

    def _note(self, topic: str, member: Member, is_joined: bool) -> None:
        self.told.append(("join" if is_joined else "leave", member.client))

    def check_room(self) -> None:
        """What was told adds up to who is there."""
        there: set[str] = set()
        for what, client in self.told:
            (there.add if what == "join" else there.discard)(client)
        assert there == {member.client for member in self.site.presence.members(ROOM)}, "joins and leaves add up"


class Line:
    """One connection: its server's end, and what is on its way in both directions."""

    _numbers = itertools.count(1)

    def __init__(self, story: Story, user: str, attempt: int = 0) -> None:
        self.story = story
        self.node = node = story.node
        self.attempt = attempt
        self.number = next(self._numbers)
        self.transport = FakeTransport()
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "client": ("10.0.0.1", 1)}
        self.session = Session(
            node.site,
            HTTPConnection(scope),
            framing_of(JSON, is_raw=True),
            identity=Identity(user=user),
            execute=execute,
        )
        socket = OpenSocket(self.transport, node.shared, None, max_size=1 << 20)  # type: ignore[arg-type]
        socket.owner = SocketConnection(socket, node.site, "10.0.0.1", self.session.begin)
        socket.start()
        self.reader = frames.Reader(max_size=1 << 20, masked=False)
        self.coming: deque[str] = deque()
        self.going: deque[bytes] = deque()
        self.close: int | None = None
        # the client believes that it is cut, the server does not know
        self.is_half_open = False
        # what the client has been told so far: topics it is subscribed to; what it asked for; joins and leaves
        self.subscribed: set[str] = set()
        self.asked: dict[int, packets.SubscribeRequest] = {}
        self.leaving: dict[int, str] = {}
        self.room: list[tuple[str, str]] = []
        self.client = ""
        # how much had been told of the room when it was welcome
        self.told_before = 0
        self.last_ping = self.connected_at = story.clock.now()

    @property
    def is_gone(self) -> bool:
        return self.transport.lost or bool(self.transport.aborts)

    def listen(self) -> None:
        """Take what the server has written."""
        taken, self.transport.taken = self.transport.taken, b""
        if not taken:
            return
        for message in self.reader.feed(taken):
            assert isinstance(message, str)
            if message == "{}" or "\n{}" in message:
                self.last_ping = self.story.clock.now()
            if '"connect":{' in message:
                # what was told of its predecessor, whose name it goes on under, came before
                self.told_before = len(self.node.told)
            self.coming.append(message)
        if self.reader.close is not None and self.close is None:
            self.close = self.reader.close.code

    def say(self, payload: bytes) -> None:
        """A frame of the client's is on its way."""
        for command in JSON.read_commands(payload):
            if command.subscribe is not None:
                self.asked[command.id] = command.subscribe
            elif command.unsubscribe is not None:
                self.leaving[command.id] = command.unsubscribe.channel
        self.going.append(payload)

    def arrive(self) -> None:
        """The next frame reaches the server."""
        payload = self.going.popleft()
        if not self.is_gone and self.transport.is_reading():
            self.transport.deliver(frame(TEXT, payload))

    def check_reply(self, packet: packets.Reply) -> None:
        """Everything that must hold of what a server says, whoever hears it."""
        if packet.connect is not None:
            self.client = packet.connect.client
            self.connected_at = self.story.clock.now()
        if packet.subscribe is not None:
            self.check_subscribed(self.asked[packet.id], packet.subscribe)
        if packet.unsubscribe is not None:
            self.subscribed.discard(self.leaving[packet.id])
        push = packet.push
        if push is None:
            return
        assert push.channel in self.subscribed, f"something of {push.channel} before the answer, or after the end"
        if push.unsubscribe is not None:
            self.subscribed.discard(push.channel)
        elif push.join is not None and push.join.info is not None:
            self.room.append(("join", push.join.info.client))
        elif push.leave is not None and push.leave.info is not None:
            self.room.append(("leave", push.leave.info.client))

    def check_subscribed(self, asked: packets.SubscribeRequest, result: packets.SubscribeResult) -> None:
        assert asked.channel not in self.subscribed, "subscribed twice"
        assert not asked.channel.startswith("mail/") or asked.channel == f"mail/{self.session.identity.user}"
        self.subscribed.add(asked.channel)
        if asked.channel == ROOM:
            self.room.clear()
        assert result.was_recovering == asked.recover
        if not result.recovered:
            assert not result.publications, "all of it, or nothing"
            return
        assert (result.epoch, result.offset) == (asked.epoch, asked.offset), "from where it was asked for"
        offsets = [one.offset for one in result.publications]
        assert offsets == list(range(asked.offset + 1, asked.offset + 1 + len(offsets)))


class Person:
    """Somebody with a client, who follows some topics."""

    def __init__(self, story: Story, name: str, n: int) -> None:
        self.story = story
        self.name = name
        hello = Hello(headers={"tidewire-session": f"session-of-{name}-{n}"})
        rng = random.Random(story.rng.getrandbits(32))
        self.machine = Machine(JSON, hello, shown="ws://h", waits=True, rng=rng, backoff=Backoff(rng=rng))
        self.line: Line | None = None
        # lines that only the server has still
        self.left: list[Line] = []
        self.dial: int | None = None
        self.tracks: dict[str, Track] = {}
        self.inboxes: dict[str, Inbox] = {}
        self.at: dict[str, Position | None] = {}
        self.values: dict[str, Any] = {}
        self.machine.start(story.clock.now())

    # What it does

    def follow(self, topic: str) -> None:
        if topic not in self.tracks:
            sink = self.inboxes[topic] = Inbox(messages_max=1000, bytes_max=1 << 20, on_overflow="drop")
            self.at[topic] = None
            self.tracks[topic] = self.machine.subscribe(self.now, topic, sink, Wish())

    def unfollow(self, topic: str) -> None:
        track = self.tracks.pop(topic, None)
        if track is not None:
            self.machine.unsubscribe(self.now, track)
            self.values = {} if topic == VALUES else self.values

    def publish(self, topic: str) -> None:
        number = self.line.number if self.line is not None else 0
        data = msgspec.Raw(msgspec.json.encode({"by": self.name, "line": number, "n": self.story.count()}))
        request = packets.PublishRequest(channel=topic, data=data)
        self.machine.request(self.now, request, "publish", timeout_s=5)

    @property
    def now(self) -> float:
        return self.story.clock.now()

    def look(self) -> None:
        """Take the machine's events and output."""
        for _ in range(100):
            events = self.machine.take_events()
            for event in events:
                if isinstance(event, Dial):
                    self.dial = event.attempt
                elif isinstance(event, HangUp) and self.line is not None and event.attempt == self.line.attempt:
                    self.hang_up(event.code)
            line = self.line
            if line is not None and self.machine.has_output:
                for payload in self.machine.take_frames(self.now):
                    line.say(payload)
            elif not events:
                return

    def hang_up(self, code: int | None) -> None:
        line, self.line = self.line, None
        assert line is not None
        if code is None or line.is_gone or not line.transport.is_reading() or self.story.rng.random() < 0.3:
            # the server may hear of it or not
            self.left.append(line)
        else:
            line.transport.deliver(frame(CLOSE, close_payload(code)))
            self.left.append(line)

    def open(self) -> None:
        if self.dial is not None and self.line is None and not self.story.is_down:
            attempt, self.dial = self.dial, None
            self.line = Line(self.story, self.name, attempt)
            self.machine.opened(self.now, attempt)
            self.look()

    def cut(self, *, half: bool) -> None:
        """The line breaks; ``half``: the server does not notice."""
        line = self.line
        if line is None:
            return
        line.listen()
        if not half and not line.is_gone:
            line.transport.lose()
        self.left.append(line)
        self.end(1006)

    def end(self, code: int) -> None:
        line, self.line = self.line, None
        assert line is not None
        line.is_half_open = True
        self.machine.ended(self.now, line.attempt, advise_close(code), Disconnected("ws://h", code, ""), code)
        self.look()

    def hear(self, n: int) -> None:
        """Some frames reach the client."""
        line = self.line
        if line is None:
            return
        line.listen()
        for _ in range(n):
            if not line.coming or self.line is not line:
                break
            text = line.coming.popleft()
            for packet in JSON.read_replies(text):
                line.check_reply(packet)
                if packet.connect is not None:
                    self.check_alone(line)
            self.machine.receive(self.now, line.attempt, text)
            self.look()
        if self.line is line and not line.coming:
            if line.close is not None:
                if not line.is_gone and line.transport.is_reading():
                    line.transport.deliver(frame(CLOSE, close_payload(1000)))
                self.end(line.close)
            elif line.is_gone:
                self.end(1006)
        self.read()

    def read(self) -> None:
        for topic, sink in self.inboxes.items():
            track = self.tracks.get(topic)
            if track is not None and self.at[topic] is None and track.state.name == "subscribed":
                self.at[topic] = Position("", -1)
            while (entry := sink.take()) is not None:
                self.story.check_entry(self, topic, entry.position, entry.data, entry.gap)

    # What must hold

    def check_alone(self, line: Line) -> None:
        """Who is welcome again has no other connection left that is taken for it."""
        for old in self.left:
            assert old.node is not line.node or not old.session.is_connected, "a predecessor goes on"


class Story:
    """One history."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.is_down = False
        self.node = Node(self)
        self.people: list[Person] = []
        self.strangers: list[Line] = []
        # the oracle: data by topic and position; the newest values
        self.published: dict[str, dict[Position, bytes]] = {}
        self.newest: dict[str, Any] = {}
        self._count = 0

    def count(self) -> int:
        self._count += 1
        return self._count

    async def run(self) -> None:
        await self.node.hub.start()
        self._spy()
        self.people = [
            Person(self, name, n) for n, name in enumerate(self.rng.sample(PEOPLE, self.rng.randrange(1, 4)))
        ]
        for person in self.people:
            person.follow(ROOM)
        steps: list[Any] = [self.publish] * 6 + [self.carry] * 4 + [self.exchange] * 10 + [self.turn] * 6
        steps += [self.pass_time] * 3 + [self.follow, self.unfollow, self.speak, self.speak]
        steps += [self.cut, self.cut_half, self.stall, self.unstall, self.try_what_is_forbidden]
        for _ in range(self.rng.randrange(30, 90)):
            await self.rng.choice(steps)()
            if self.rng.random() < 0.01:
                await self.restart()
            if self.rng.random() < 0.01:
                self.lose_store()
        await self.settle()
        self.check_end()
        await self.stop()

    def _spy(self) -> None:
        """Note every position as it is given."""
        broker, story = self.node.broker, self
        publish = broker.inner.publish

        async def noted(topic: str, draft: Draft, retention: Any) -> Any:
            value = msgspec.json.decode(draft.payload)
            if isinstance(value, dict) and "line" in value:
                story.check_publisher(value)
            answer = await publish(topic, draft, retention)
            if answer.position is not None:
                story.published.setdefault(topic, {})[answer.position] = draft.payload
                if topic == VALUES:
                    story.newest[value["k"]] = value
            return answer

        broker.inner.publish = noted  # type: ignore[method-assign]

    def check_publisher(self, value: dict[str, Any]) -> None:
        for person in self.people:
            line = person.line
            if person.name == value["by"] and line is not None and line.client and line.node is self.node:
                assert value["line"] >= line.number, "a predecessor of a returned client publishes"

    # What happens

    async def publish(self) -> None:
        topic = self.rng.choice([ROOM, LOG, LOG, VALUES, VALUES, f"mail/{self.rng.choice(PEOPLE)}"])
        for _ in range(self.rng.randrange(1, 6)):
            value: dict[str, Any] = {"n": self.count(), "pad": "." * self.rng.randrange(60)}
            key = None
            if topic == VALUES:
                key = value["k"] = self.rng.choice("abc")
            policy = GATE.find(topic).policy
            await self.node.hub.publish(topic, policy, Draft(msgspec.json.encode(value), Kind.JSON, key))

    async def speak(self) -> None:
        person = self.rng.choice(self.people)
        if person.machine.state.name == "connected":
            person.publish(self.rng.choice([ROOM, LOG]))
            person.look()

    async def carry(self) -> None:
        self.node.broker.carry(self.rng.randrange(1, 8))

    async def turn(self) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            await asyncio.sleep(0)

    async def exchange(self) -> None:
        person = self.rng.choice(self.people)
        person.open()
        person.look()
        for line in [person.line, *person.left]:
            for _ in range(self.rng.randrange(4)):
                if line is not None and line.going:
                    line.arrive()
        await asyncio.sleep(0)
        person.hear(self.rng.randrange(4))

    async def follow(self) -> None:
        person = self.rng.choice(self.people)
        person.follow(self.rng.choice([ROOM, LOG, VALUES, f"mail/{person.name}"]))
        person.look()

    async def unfollow(self) -> None:
        person = self.rng.choice(self.people)
        person.unfollow(self.rng.choice([ROOM, LOG, VALUES]))
        person.look()

    async def cut(self) -> None:
        self.rng.choice(self.people).cut(half=False)

    async def cut_half(self) -> None:
        self.rng.choice(self.people).cut(half=True)

    async def stall(self) -> None:
        line = self.rng.choice(self.people).line
        if line is not None and not line.is_gone:
            line.transport.stall()

    async def unstall(self) -> None:
        line = self.rng.choice(self.people).line
        if line is not None and not line.is_gone:
            line.transport.unstall()

    async def pass_time(self) -> None:
        for person in self.people:
            # commands may be late, but not so late that the server has given up waiting for the first one
            if person.line is not None and not person.line.client:
                while person.line.going:
                    person.line.arrive()
        await self.advance(self.rng.choice([0.05, 0.3, 1.0, 1.0, 7.0]))

    async def advance(self, seconds: float) -> None:
        """Time goes on; clients do what is due, and are pinged."""
        self.clock.advance(seconds)
        for _ in range(3):
            await asyncio.sleep(0)
        for person in self.people:
            person.machine.tick(self.clock.now())
            person.look()
            line = person.line
            if line is not None and not line.transport.stalled and not line.is_gone and line.node is self.node:
                line.listen()
                if line.session.is_connected:
                    silent = self.clock.now() - max(line.last_ping, line.connected_at)
                    assert silent < 25.0 + 8.0, "a connection that is not pinged"

    async def restart(self) -> None:
        """The server is killed: nothing is left of it."""
        old = self.node
        for person in self.people:
            if person.line is not None:
                person.cut(half=False)
        for line in self.strangers:
            line.transport.lose()
        await asyncio.sleep(0)
        await self._end(old)
        self.node = Node(self)
        await self.node.hub.start()
        self._spy()
        self.newest.clear()

    def lose_store(self) -> None:
        """Numbering of a topic restarts, while nothing is on its way."""
        self.node.broker.carry()
        topic = self.rng.choice([ROOM, LOG])
        self.node.broker.lose_state(topic, POLICIES[topic].retention)

    async def try_what_is_forbidden(self) -> None:
        """A stranger says what must be refused, and is told so."""
        line = Line(self, "eve")
        self.strangers.append(line)
        line.say(b'{"id":1,"connect":{}}')
        commands = {
            2: {"subscribe": {"channel": f"mail/{self.rng.choice(PEOPLE)}"}},
            3: {"subscribe": {"channel": LOG}},
            4: {"subscribe": {"channel": LOG}},
            5: {"subscribe": {"channel": "mail/eve", "token": _token("eve", "mail/ann")}},
            6: {"subscribe": {"channel": "mail/eve", "token": _token("ann", "mail/eve")}},
            7: {"subscribe": {"channel": "mail/eve", "token": _token("eve", "mail/eve")}},
        }
        for command_id, command in commands.items():
            line.say(msgspec.json.encode({"id": command_id, **command}))
        while line.going:
            line.arrive()
        for _ in range(60):
            await asyncio.sleep(0)
        line.listen()
        answers = {packet.id: packet for text in line.coming for packet in JSON.read_replies(text)}
        if line.close is None and not line.is_gone and 7 in answers:
            errors = {at: None if answers[at].error is None else answers[at].error.code for at in commands}  # type: ignore[union-attr]
            assert errors == {2: 103, 3: None, 4: 105, 5: 103, 6: 103, 7: None}, errors
        line.transport.lose()
        await asyncio.sleep(0)

    # The end

    async def settle(self) -> None:
        """Everybody comes to rest, twice: the second time after one more message on every topic."""
        for is_last in (False, True):
            await self._come_to_rest()
            if not is_last:
                for topic in (ROOM, LOG, *(f"mail/{name}" for name in PEOPLE)):
                    policy = GATE.find(topic).policy
                    await self.node.hub.publish(topic, policy, Draft(b'{"n":%d}' % self.count(), Kind.JSON))

    async def _come_to_rest(self) -> None:
        for person in self.people:
            if person.line is not None and not person.line.is_gone:
                person.line.transport.unstall()
        for round_ in range(300):
            self.node.broker.carry()
            for person in self.people:
                person.open()
                person.look()
                for line in [person.line, *person.left]:
                    while line is not None and line.going:
                        line.arrive()
            for _ in range(12):
                await asyncio.sleep(0)
            for person in self.people:
                person.hear(1000)
            # not before lost connections have left
            if round_ > 60 and self._is_at_rest():
                return
            await self.advance(0.6)
        raise AssertionError("the clients do not come to rest")

    def _is_at_rest(self) -> bool:
        return all(
            person.machine.state.name == "connected"
            and all(track.state.name == "subscribed" for track in person.tracks.values())
            and person.line is not None
            and not person.line.coming
            and not person.line.going
            for person in self.people
        )

    def check_entry(self, person: Person, topic: str, position: Position | None, data: bytes, gap: Gap | None) -> None:
        """Each message is the next one after the last, or its gap says what is between."""
        assert not topic.startswith("mail/") or topic == f"mail/{person.name}", "somebody else's mail"
        if topic == VALUES:
            value = msgspec.json.decode(data)
            person.values[value["k"]] = value
            return
        assert position is not None
        assert self.published[topic][position] == data
        before = person.at[topic]
        if gap is not None:
            assert gap.to_position is not None
            before = parse_position(gap.to_position)
        if before is not None and before.offset >= 0:
            assert position == Position(before.epoch, before.offset + 1), (topic, position, before, gap)
        person.at[topic] = position

    def check_end(self) -> None:
        self.node.check_room()
        there = set()
        for person in self.people:
            assert person.line is not None
            if ROOM in person.tracks:
                there.add(person.line.client)
            for topic in person.tracks:
                if topic != VALUES:
                    self.check_has_all(person, topic)
                else:
                    known = {key: value for key, value in person.values.items() if key in self.newest}
                    assert known == self.newest, "the newest values"
            self.check_told(person.line)
        members = {member.client for member in self.node.site.presence.members(ROOM)}
        assert members == there, "who is there, and nobody else"

    def check_has_all(self, person: Person, topic: str) -> None:
        """At rest it has the newest message, or was told that what it lacks is lost."""
        newest, lost = list(self.published[topic])[-1], person.tracks[topic].lost
        if person.at[topic] != newest:
            assert lost is not None, (topic, person.at[topic], newest)
            assert lost.to_position == str(newest), (topic, lost, newest)

    def check_told(self, line: Line) -> None:
        """From its own join on a client hears of all that come and go."""
        told, own = self.node.told[line.told_before :], ("join", line.client)
        if ROOM in line.subscribed and told.count(own) == 1:
            # who was only away has not joined anew, and hears of what comes from then on
            assert line.room == told[told.index(own) :], (line.room, told)

    async def stop(self) -> None:
        for person in self.people:
            if person.line is not None and not person.line.is_gone:
                person.line.transport.lose()
        await self._end(self.node)

    async def _end(self, node: Node) -> None:
        for session in node.site.sessions:
            session.connection.drop()
        for _ in range(5):
            await asyncio.sleep(0)
        await node.site.sessions.close()
        node.site.presence.close()
        await node.hub.close()


def _token(user: str, topic: str) -> str:
    known = _TOKENS.get((user, topic))
    if known is None:
        known = _TOKENS[user, topic] = jwt.encode({"sub": user, "channel": topic}, SECRET, algorithm="HS256")
    return known


_TOKENS: dict[tuple[str, str], str] = {}


async def run_many(seeds: range) -> None:
    """Many histories on one event loop; an error names the seed that replays it."""
    for seed in seeds:
        try:
            await Story(random.Random(seed)).run()
        except BaseException as error:
            error.add_note(f"replay: python -m tests.property.sessions {seed}")
            raise


if __name__ == "__main__":
    asyncio.run(run_many(range(int(sys.argv[1]), int(sys.argv[-1]) + 1)))
