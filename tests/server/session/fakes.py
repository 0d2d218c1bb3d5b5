"""Sessions on lines without sockets: commands in, replies and pushes out, time moved by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import HTTPConnection

from tests.server.fakes import House, Line, opens, passes, until
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload, frame
from tidewire.hub.policy import Log, Policy
from tidewire.protocol.codecs import JSON, PROTOBUF
from tidewire.protocol.message import Draft, Kind
from tidewire.protocol.packets import Command, Push, Reply
from tidewire.protocol.position import Position
from tidewire.protocol.topics import Template
from tidewire.server.direct import SocketConnection
from tidewire.server.gate import Declaration
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.session.reader import framing_of
from tidewire.server.session.session import Session
from tidewire.server.session.table import execute
from tidewire.wire.open import OpenSocket

__all__ = ["Caller", "SessionHouse", "opens", "passes", "until"]


async def admit() -> None:
    """A topic function that lets everybody in."""


class SessionHouse(House):
    """A house whose topics are declared, and that sessions enter."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.callers: list[Caller] = []
        self.declare("t", policy=self.policy, publish=True)

    def declare(
        self,
        pattern: str,
        function: Callable[..., Any] = admit,
        *,
        policy: Policy | None = None,
        payload: Kind | None = None,
        publish: Any = False,
        **more: Any,
    ) -> None:
        # as Live does
        more["presence"] = more.get("presence", False) or more.get("join_leave", False)
        declaration = Declaration(Template(pattern), policy or Log(), function, payload, publish, **more)
        self.site.gate.declare(declaration)

    async def publish_json(self, topic: str, *values: Any) -> list[Position | None]:
        """As the application does."""
        positions = []
        for value in values:
            declaration = self.site.gate.find(topic)
            key = value.get("k") if isinstance(value, dict) else None
            draft = Draft(json.dumps(value, separators=(",", ":")).encode(), Kind.JSON, key)
            positions.append((await self.hub.publish(topic, declaration.policy, draft)).position)
        return positions

    async def wait(self, seconds: float) -> None:
        """Time goes by in small steps, and clients answer their pings."""
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            await passes(3)
            for caller in self.callers:
                caller.answer_pings()

    def check_empty(self) -> None:
        super().check_empty()
        assert len(self.site.sessions) == 0
        assert len(self.site.wheel) == 0


class Caller:
    """One client on a line of its own. It answers pings unless it is ``silent``."""

    def __init__(
        self,
        house: SessionHouse,
        *,
        codec: str = "json",
        query: str = "",
        identity: Identity = ANONYMOUS,
        silent: bool = False,
        high_water: int = 64 * 1024,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.house = house
        self.codec = JSON if codec == "json" else PROTOBUF
        self.silent = silent
        self.transport = Line(high_water)
        given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {
            "type": "websocket",
            "path": "/live/-/session",
            "query_string": query.encode(),
            "headers": given,
            "path_params": {},
            "client": ("10.0.0.1", 1),
        }
        self.socket = OpenSocket(self.transport, house.shared, None, max_size=1 << 22)  # type: ignore[arg-type]
        key = dict(parse_qsl(query)).get("session")
        is_pinged = "cf_ws_frame_ping_pong=true" not in query
        framing = framing_of(self.codec, is_raw=True)
        self.session = Session(
            house.site, HTTPConnection(scope), framing, identity=identity, key=key, is_pinged=is_pinged, execute=execute
        )
        self.connection = SocketConnection(
            self.socket, house.site, "10.0.0.1", lambda connection, socket: self.session.begin(connection, socket)
        )
        self.socket.owner = self.connection
        self.socket.start()
        self._next_id = 0
        self._answered_pings = 0
        house.callers.append(self)

    # The client

    async def connect(self, **request: Any) -> Any:
        """The reply to connect."""
        return await self.ask(connect=request)

    async def ask(self, **command: Any) -> Any:
        """Send one command, and wait for its reply: the result, or the error as a dict."""
        (command_id,) = self.send(command)
        return await self.answer(command_id)

    async def answer(self, command_id: int) -> Any:
        await until(lambda: self.reply_of(command_id) is not None or self.goodbye, f"an answer to {command_id}")
        reply = self.reply_of(command_id)
        assert reply is not None, f"closed instead: {self.goodbye}"
        return reply

    def send(self, *commands: dict[str, Any]) -> list[int]:
        """All in one frame; returns their ids."""
        ids, packed = [], []
        for command in commands:
            given = dict(command)
            if "id" not in given and "send" not in given:
                self._next_id += 1
                given["id"] = self._next_id
            ids.append(given.get("id", 0))
            packed.append(self.codec.write(to_command(given)))
        self.send_raw(self.codec.join(packed))
        return ids

    def send_raw(self, payload: bytes, *, opcode: int | None = None) -> None:
        """One frame with this in it."""
        self.transport.deliver(frame(opcode or (TEXT if self.codec.is_text else BINARY), payload))

    def pong(self) -> None:
        self.send_raw(self.codec.join([self.codec.write(Command())]))

    def answer_pings(self) -> None:
        if not self.silent and self.pings > self._answered_pings and self.transport.is_reading():
            self._answered_pings += 1
            self.pong()

    def close(self, code: int = 1000) -> None:
        self.transport.deliver(frame(CLOSE, close_payload(code)))

    def vanish(self) -> None:
        self.transport.lose()

    # What it has

    @property
    def frames(self) -> list[Frame]:
        """Those of the protocol: data and close."""
        return [one for one in self.transport.frames if one.opcode not in (PING, PONG)]

    @property
    def packets(self) -> list[Reply]:
        found = []
        for one in self.frames:
            if one.opcode != CLOSE:
                payload = one.payload.decode() if self.codec.is_text else one.payload
                found += list(self.codec.read_replies(payload))
        return found

    @property
    def pings(self) -> int:
        return sum(1 for packet in self.packets if packet == Reply())

    def reply_of(self, command_id: int) -> Any:
        for packet in self.packets:
            if packet.id == command_id:
                return plain(packet)
        return None

    @property
    def pushes(self) -> list[Push]:
        return [packet.push for packet in self.packets if packet.push is not None]

    def told(self, topic: str) -> list[Any]:
        """Everything that was said of a topic, in order: data, or what else."""
        said: list[Any] = []
        for packet in self.packets:
            if packet.subscribe is not None:
                said += [decoded(one.data) for one in packet.subscribe.publications]
            push = packet.push
            if push is None or push.channel != topic:
                continue
            if push.pub is not None:
                said.append(decoded(push.pub.data))
            elif push.join is not None and push.join.info is not None:
                said.append(("join", push.join.info.user or push.join.info.client))
            elif push.leave is not None and push.leave.info is not None:
                said.append(("leave", push.leave.info.user or push.leave.info.client))
            elif push.unsubscribe is not None:
                said.append(("unsubscribe", push.unsubscribe.code))
        return said

    @property
    def goodbye(self) -> tuple[int, str] | None:
        found = [one for one in self.frames if one.opcode == CLOSE]
        return found[0].close if found else None


def to_command(given: dict[str, Any]) -> Command:
    """A command from plain values; data is JSON."""
    return msgspec.json.decode(msgspec.json.encode(given), type=Command)


def plain(packet: Reply) -> Any:
    """A reply as plain values: the result of whatever kind, or ``{"error": code}``."""
    value = json.loads(msgspec.json.encode(packet))
    value.pop("id", None)
    if "error" in value:
        return {"error": value["error"]["code"], "message": value["error"]["message"]}
    (result,) = value.values()
    return result


def decoded(raw: msgspec.Raw) -> Any:
    data = bytes(raw)
    try:
        return json.loads(data)
    except ValueError:
        return data
