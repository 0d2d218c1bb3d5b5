"""One session: a connection that speaks the Centrifuge client protocol v2 (centrifugal.dev, "Client protocol").

A thin adapter over the hub. Packets come in as commands, are done one after the other, and answered through the same
outbox that carries messages, ahead of these. What a command does is in the modules
that ``table`` names.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from tidewire.clock import Timer
from tidewire.errors import BadPacket
from tidewire.hub.presence import Member
from tidewire.protocol import codes, packets
from tidewire.protocol.codes import Code, Fault
from tidewire.protocol.packets import Command, Push, Reply
from tidewire.server.connection import Connection, Verdict
from tidewire.server.identity import ANONYMOUS, Identity
from tidewire.server.session.reader import Framing, SessionReader, client_info
from tidewire.server.session.time import Credit, Heart
from tidewire.server.site import Site
from tidewire.wire.frames import Assembler, Message, Part

logger = logging.getLogger("tidewire.server")

# what may wait to be done before the socket stops reading
_COMMANDS_MAX = 64


class Refused(Exception):
    """A command is answered with an error."""

    def __init__(self, fault: Fault, sentence: str | None = None) -> None:
        self.error = packets.Error(fault.code, sentence or fault.name, fault.temporary)
        super().__init__(self.error.message)


class Flow(Protocol):
    """Where commands come from, and may stop coming."""

    def pause_reading(self) -> None:
        """Read nothing more for now. Twice is nothing."""

    def resume_reading(self) -> None:
        """Read again. Twice is nothing."""


class State(enum.Enum):
    """The life of a session on its connection; it moves only downward."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    """Its connect command was answered with an error: the client is to go."""
    OVER = "over"


class Session:
    """The life of one connection (``server.inbound.Guest``).

    ``http``: the handshake. ``identity``: who that was, as far as it said. ``key``: under which name it may replace a
    connection of its own that was lost. ``is_pinged``: whether to send the protocol's own pings. ``execute``: does one
    command.
    """

    # a server holds thousands of these
    __slots__ = (
        "_answers",
        "_assembler",
        "_coming_bytes",
        "_credit",
        "_execute",
        "_expiry",
        "_flow",
        "_heart",
        "_is_in_debt",
        "_waiting",
        "_worker",
        "calls",
        "client",
        "connection",
        "dropped",
        "framing",
        "http",
        "identity",
        "info",
        "is_pinged",
        "key",
        "site",
        "state",
        "subscriptions",
        "tasks",
    )

    def __init__(
        self,
        site: Site,
        http: HTTPConnection,
        framing: Framing,
        *,
        identity: Identity = ANONYMOUS,
        key: str | None = None,
        is_pinged: bool = True,
        execute: Callable[[Session, Command], Coroutine[Any, Any, packets.Packet | None]],
    ) -> None:
        self.site = site
        self.http = http
        self.framing = framing
        self.identity = identity
        self.is_pinged = is_pinged
        self.state = State.NEW
        # the id that others see; given when it connects
        self.client = ""
        # what others may know of the connection, as JSON text
        self.info = b""
        self.key = key
        self.subscriptions: dict[str, SessionReader] = {}
        # those that the server has ended, until the client has been told
        self.dropped: dict[str, SessionReader] = {}
        self.connection: Connection
        self._flow: Flow
        self._execute = execute
        self._assembler = Assembler()
        self._coming_bytes = 0
        # a list: an empty deque takes 600 bytes
        self._waiting: list[Command] = []
        self._worker: asyncio.Task[None] | None = None
        # calls that go on, by their command's id, or a stream's own
        self.calls: dict[str | int, asyncio.Task[None]] = {}
        # these, and subscriptions that are brought up to date
        self.tasks: set[asyncio.Task[None]] = set()
        # answers that wait for others
        self._answers: list[bytes] = []
        # until the session is over
        self._heart: Heart | None = Heart(self)
        self._expiry: Timer | None = None
        self._is_in_debt = False
        self._credit = Credit(site.limits.session_commands_per_s, site.limits.session_burst_max)

    def begin(self, connection: Connection, flow: Flow) -> Session:
        """It has a connection; the connect command has to come in time."""
        self.connection = connection
        self._flow = flow
        self.site.sessions.enter(self)
        if self._heart is not None:
            self._heart.wait_for_connect()
        return self

    @property
    def is_connected(self) -> bool:
        """Its connect command was accepted, and it is not over."""
        return self.state is State.CONNECTED

    def is_over(self) -> bool:
        """Its connection has ended, or is to end."""
        return self.state is State.OVER

    # What comes

    def take(self, messages: list[Message]) -> None:
        """Frames of the client: commands, done in their order."""
        for message in messages:
            if self.state is State.OVER:
                return
            self._coming_bytes += len(message)
            limit = self.site.limits.session_frame_bytes_max
            if self._coming_bytes > limit:
                self.end(codes.SESSION_TOO_LARGE, f"frame of {self._coming_bytes} bytes, {limit} are allowed")
                return
            frame = self._assembler.add(message) if isinstance(message, Part) else message
            if frame is not None:
                self._coming_bytes = 0
                self._take_frame(frame)
        if self._waiting and self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        if len(self._waiting) >= _COMMANDS_MAX:
            self._flow.pause_reading()
        if self._credit.debt_s > 0 and not self._is_in_debt:
            # who sends in a hurry is slowed down to what it may, and not sent away
            self._is_in_debt = True
            self._flow.pause_reading()
            self.site.hub.clock.call_later(self._credit.debt_s, self._debt_paid)

    def _debt_paid(self) -> None:
        self._is_in_debt = False
        if self._worker is None:
            self._flow.resume_reading()

    def _take_frame(self, frame: str | bytes) -> None:
        try:
            for command in self.framing.codec.read_commands(frame):
                if not self._may_come(command):
                    return
                if command.request is not None:
                    self._waiting.append(command)
        except BadPacket as error:
            self.end(codes.BAD_REQUEST, str(error))

    def _may_come(self, command: Command) -> bool:
        if not self._credit.spend(self.site.hub.clock.now()):
            self.end(codes.FLOOD)
        elif command.request is None and command.id:
            self.end(codes.BAD_REQUEST, "a command that asks for nothing")
        elif command.request is None and self._heart is not None and not self._heart.take_pong():
            self.end(codes.BAD_REQUEST, "a pong without a ping")
        return self.state is not State.OVER

    async def _work(self) -> None:
        """Do what waits. A client that has gone by itself has its publishes done still."""
        try:
            while self._waiting:
                await self._do(self._waiting.pop(0))
        finally:
            self._worker = None
            self.flush()
            if not self._is_in_debt:
                self._flow.resume_reading()

    async def finished(self) -> None:
        """Return when nothing that has come is being done any more."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _do(self, command: Command) -> None:
        refusal = _misplaced(command, self.state)
        if refusal is not None:
            self.end(codes.BAD_REQUEST, refusal)
            return
        try:
            result = await self._execute(self, command)
        except Refused as refused:
            self.refuse(command.id, refused.error)
        except Exception:
            logger.exception("a command of a session failed")
            self.refuse(command.id, Refused(codes.INTERNAL).error)
        else:
            if result is not None:
                self.reply(command.id, result)

    # What goes

    def reply(self, command_id: int, result: packets.Packet) -> None:
        """Answer a command; answers that are ready within one window of the hub's share a frame."""
        self._answer(packets.answer(command_id, result))

    def refuse(self, command_id: int, error: packets.Error) -> None:
        """Answer a command with an error."""
        if command_id:
            self._answer(Reply(id=command_id, error=error))

    def _answer(self, reply: Reply) -> None:
        self._answers.append(self.framing.codec.write(reply))
        if self._worker is None:
            # nothing of this client's is being done that could be answered with it
            self.flush()
        elif len(self._answers) == 1:
            self.site.hub.clock.call_later(self.site.hub.flush_window_s, self.flush)

    def reply_now(self, command_id: int, result: packets.Packet) -> None:
        """Answer, before anything that is said next."""
        self.reply(command_id, result)
        self.flush()

    def flush(self) -> None:
        """Queue the answers that were given, ahead of messages."""
        if self._answers:
            answers, self._answers = self._answers, []
            self.connection.outbox.put_ahead(self.framing.batch(self.framing.codec.join(answers)))

    def push(self, push: Push, of: SessionReader | None = None) -> None:
        """Say something behind what is queued already; a client that does not take it is too slow.

        ``of``: the subscription that it belongs to, and is forgotten with where the client ends that.
        """
        self.flush()
        batch = self.framing.push(push)
        if self.connection.outbox.has_room(batch):
            self.connection.outbox.put(batch, of)
        else:
            self.end(codes.SLOW, abrupt=True)

    # Time

    def connected(self) -> None:
        """Its connect command was accepted: pings begin."""
        self.state = State.CONNECTED
        if self._heart is not None:
            self._heart.begin(is_pinged=self.is_pinged)

    def expire_at(self, moment: float | None) -> None:
        """End the connection a grace after ``moment`` (seconds since 1970), unless it is told another one before."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if moment is not None and self.state is not State.OVER:
            delay_s = self.seconds_until(moment) + self.site.limits.session_expiry_grace_s
            self._expiry = self.site.hub.clock.call_later(max(0.0, delay_s), lambda: self.end(codes.EXPIRED))

    def seconds_until(self, moment: float) -> float:
        """From now to ``moment`` (seconds since 1970)."""
        return moment - self.site.hub.clock.wall_ms() / 1000

    # Subscriptions

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside the commands, until the session is over."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def entered(self, reader: SessionReader) -> None:
        """A subscription is answered: others hear of it, where the topic has presence."""
        if self.subscriptions.get(reader.topic) is not reader or not reader.declaration.presence:
            return
        presence = self.site.presence
        if reader.hears_members:
            presence.listen(reader.topic, self, self.told)
        reader.member = Member(self.client, self.identity.user, self.info, reader.info)
        is_news = presence.join(reader.topic, reader.member)
        if not is_news and reader.hears_members:
            # it was only away: nobody else needs to hear, and this client is told as after every subscribe
            self.told(reader.topic, reader.member, True)

    def told(self, topic: str, member: Member, is_joined: bool) -> None:
        """Somebody has joined a topic or left it (``hub.presence.Told``)."""
        info, reader = client_info(member), self.subscriptions.get(topic)
        if is_joined:
            self.push(Push(channel=topic, join=packets.Join(info)), reader)
        else:
            self.push(Push(channel=topic, leave=packets.Leave(info)), reader)

    def forget_subscription(self, reader: SessionReader, *, at_once: bool = True) -> bool:
        """It is no subscription of this session any more; False when it was none."""
        if self.subscriptions.get(reader.topic) is not reader:
            return False
        del self.subscriptions[reader.topic]
        if reader.beginning is not None and reader.beginning.task is not None:
            reader.beginning.task.cancel()
        if reader.subscription is not None:
            self.site.hub.unsubscribe(reader.subscription)
        if reader.expiry is not None:
            reader.expiry.cancel()
        self.site.presence.unlisten(reader.topic, self)
        if reader.member is not None:
            (self.site.presence.leave if at_once else self.site.presence.lose)(reader.topic, reader.member.client)
        return True

    def drop_subscription(self, reader: SessionReader, code: Code, reason: str | None = None) -> None:
        """The server ends a subscription and says why, behind the messages that are queued for it."""
        if self.forget_subscription(reader):
            # the client may leave or subscribe anew before it hears: then this is not said any more
            self.dropped[reader.topic] = reader
            said = packets.Unsubscribe(code=code.code, reason=reason or code.name)
            self.push(Push(channel=reader.topic, unsubscribe=said), reader)

    def overtake(self, topic: str) -> None:
        """The client has left ``topic`` or subscribes to it: what is queued of an ended subscription is not wanted."""
        reader = self.dropped.pop(topic, None)
        if reader is not None:
            reader.forget_queued()
            reader.release()

    def lose_subscription(self, reader: SessionReader) -> None:
        """Messages of it are lost: the client is to subscribe again, or to come back where it cannot."""
        if reader.is_clients:
            self.drop_subscription(reader, codes.SUBSCRIPTION_STATE)
        else:
            self.end(codes.INSUFFICIENT_STATE, abrupt=False)

    # The end

    def end(self, code: Code, reason: str | None = None, *, abrupt: bool = False) -> None:
        """End the connection. ``abrupt``: what is queued is not worth sending."""
        if self.state is State.OVER:
            return
        self.flush()
        self._over(may_come_back=code.come_back)
        self._waiting.clear()
        self.connection.end(Verdict(code.code, reason or code.name, abrupt=abrupt))

    def replace(self, code: Code) -> None:
        """Its client has come back on another connection, which goes on under its name: drop this one."""
        if self.state is not State.OVER:
            self._waiting.clear()
            self._over(may_come_back=True)
            self.connection.end(Verdict(code.code, code.name))

    def left(self, code: int | None) -> None:
        """The connection is gone (``server.inbound.Guest``): a client that said goodbye does not come back."""
        is_own_end = code is not None and self.state is State.CONNECTED
        self._waiting = [one for one in self._waiting if is_own_end and (one.publish or one.send)]
        self._over(may_come_back=code != 1000)

    def _over(self, *, may_come_back: bool) -> None:
        if self.state is State.OVER:
            return
        was_connected = self.state is State.CONNECTED
        self.state = State.OVER
        if self._heart is not None:
            self._heart.stop()
        self.expire_at(None)
        # nothing that refers to itself is left of a session: thousands may end at once
        self._heart = None
        for task in list(self.tasks):
            task.cancel()
        for reader in list(self.subscriptions.values()):
            self.forget_subscription(reader, at_once=not may_come_back)
            reader.release()
        self.site.sessions.leave(self, may_come_back=may_come_back)
        if was_connected:
            self.site.sessions.tell_disconnected(self)


def _misplaced(command: Command, state: State) -> str | None:
    """Why this command may not come in this state (the rules of the protocol), or None."""
    if state is State.OVER:
        return None
    if not command.id and command.send is None:
        return "a command without an id"
    if command.connect is not None:
        return None if state is State.NEW else "connect came twice"
    if state is State.REFUSED:
        return "commands after a refused connect"
    return None if state is State.CONNECTED else "the first command is connect"
