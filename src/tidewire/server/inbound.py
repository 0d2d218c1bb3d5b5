"""What a WebSocket on a topic sends: each message is a publish, done one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import HTTPConnection

from tidewire.errors import AppendConflict, BadPayload, TidewireError, TooLarge, TopicFinished, UnknownStream
from tidewire.protocol import codes
from tidewire.protocol.message import Kind
from tidewire.server.connection import GONE, Connection, Verdict
from tidewire.server.gate import Declaration, Operation, Refusal
from tidewire.server.publisher import decode, frame_kind
from tidewire.server.site import Site
from tidewire.wire.frames import Assembler, Message, Part
from tidewire.wire.open import OpenSocket

logger = logging.getLogger("tidewire.server")

# what may wait to be published before the socket stops reading
_MESSAGES_MAX = 32
_BYTES_MAX = 1024 * 1024

TAKES_NONE = Verdict(codes.DENIED.code, "this topic takes no messages from clients")


async def guard(work: Callable[[], Awaitable[object]], connection: Connection) -> None:
    """An error of ``work`` ends this connection and nothing else. Cancelled early, it has not begun."""
    try:
        await work()
    except TidewireError as error:
        connection.end(Verdict(codes.TRY_LATER.code, str(error)))
    except Exception:
        logger.exception("a connection failed")
        connection.end(Verdict(codes.BROKEN.code, "the server failed; its log has the error"))


class Publishing:
    """How the messages of one caller are published: the rights are asked for again with each."""

    __slots__ = ("_declaration", "_http", "_site", "_topic")

    def __init__(self, site: Site, http: HTTPConnection, topic: str, declaration: Declaration) -> None:
        self._site = site
        self._http = http
        self._topic = topic
        self._declaration = declaration

    def invite(self, connection: Connection, socket: OpenSocket) -> Inbound:
        """What takes the messages of ``connection``."""
        return Inbound(self, connection, socket)

    async def publish(self, message: str | bytes, connection: Connection) -> bool:
        """Publish one message, or end the connection with the reason why not; whether the next may be tried."""
        declaration = self._declaration
        try:
            kind, data = frame_kind(declaration, message)
            draft = self._site.publisher.draft_bytes(declaration, kind, data)
            operation = Operation("publish", self._topic, data=decode(kind, data))
            admission = await self._site.gate.ask(declaration, operation, self._http)
            if isinstance(admission, Refusal):
                connection.end(Verdict(codes.DENIED.code, admission.sentence))
                return False
            await self._site.publisher.publish_draft(self._topic, declaration, draft)
        except TooLarge as error:
            connection.end(Verdict(codes.TOO_LARGE.code, str(error)))
            return False
        except BadPayload as error:
            mismatch = (declaration.payload is Kind.BYTES) != isinstance(message, bytes)
            is_promised = declaration.payload is not None
            code = codes.UNSUPPORTED_DATA if is_promised and mismatch else codes.BAD_PAYLOAD
            connection.end(Verdict(code.code, str(error)))
            return False
        except (UnknownStream, AppendConflict) as error:
            connection.end(Verdict(codes.BAD_PAYLOAD.code, str(error)))
            return False
        except TopicFinished:
            # its own end is on the way through the outbox
            pass
        return True


class Guest(Protocol):
    """Who takes what a handed-over socket brings."""

    def take(self, messages: list[Message]) -> None:
        """These came, in order."""

    def left(self, code: int | None) -> None:
        """Nothing more comes or goes. ``code``: the peer has gone by itself, with this; None: we have ended it."""


class Inbound:
    """Messages of a handed-over socket that wait to be published, and the task that does it while there are any.

    Full: the socket stops reading until all of them are published. What a peer has sent before it left is published.
    """

    __slots__ = ("_assembler", "_connection", "_publishing", "_socket", "_task", "_waiting", "_waiting_bytes")

    def __init__(self, publishing: Publishing, connection: Connection, socket: OpenSocket) -> None:
        self._publishing = publishing
        self._connection = connection
        self._socket = socket
        self._waiting: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._assembler = Assembler()
        self._task: asyncio.Task[None] | None = None

    def take(self, messages: list[Message]) -> None:
        """Publish these, in order, after what waits already."""
        for message in messages:
            whole = self._assembler.add(message) if isinstance(message, Part) else message
            if whole is not None:
                self._waiting.append(whole)
                self._waiting_bytes += len(whole)
        if len(self._waiting) >= _MESSAGES_MAX or self._waiting_bytes >= _BYTES_MAX:
            self._socket.pause_reading()
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(guard(self._publish_all, self._connection))

    async def _publish_all(self) -> None:
        try:
            while self._waiting and self._may_go_on():
                message = self._waiting.popleft()
                self._waiting_bytes -= len(message)
                if not await self._publishing.publish(message, self._connection):
                    break
        finally:
            self._task = None
            self._socket.resume_reading()

    def _may_go_on(self) -> bool:
        verdict = self._connection.verdict
        return verdict is None or verdict.code == GONE

    def left(self, code: int | None) -> None:
        """Where we have ended the connection, what was not published is not."""
        if code is None:
            self._waiting.clear()
            if self._task is not None:
                self._task.cancel()
