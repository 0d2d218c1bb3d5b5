"""A raw connection's link on our own wire: no task of its own, no events; messages go straight to who receives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING

from tidewire.errors import ConnectionClosed, ConnectionClosedError, repeat
from tidewire.limits import RAW_CLOSE_S
from tidewire.protocol.codes import BROKEN
from tidewire.wire.asgi import Receive, Scope, Send, extension_of
from tidewire.wire.connection import Pieces
from tidewire.wire.frames import Part
from tidewire.wire.intake import Intake
from tidewire.wire.open import OpenSocket
from tidewire.wire.socket import ServerSocket, request_of, shown_path

if TYPE_CHECKING:
    from websockets.http11 import Request

_BUSY = "another task is receiving: let one task receive and hand the messages out"
_LEFT = "the rest of this message was left and skipped: read recv_streaming() to its end before receiving anything else"


def take_socket(
    scope: Scope, receive: Receive, send: Send, *, subprotocol: str | None, max_size: int
) -> RawSocket | ServerSocket:
    """The link of a WebSocket that was accepted: handed over to us where the server can, else over its events."""
    hand_over = extension_of(scope).get("hand_over")
    if hand_over is None:
        return ServerSocket(scope, receive, send, subprotocol=subprotocol, max_size=max_size)
    sockets: list[OpenSocket] = []

    def own(socket: OpenSocket) -> Intake:
        sockets.append(socket)
        return Intake(socket)

    intake = hand_over(own)
    return RawSocket(sockets[0], intake, scope, subprotocol=subprotocol)


class RawSocket:
    """The link of an accepted WebSocket (``wire.connection.Link``) that was handed over to ``intake``."""

    __slots__ = (
        "_fragmenting",
        "_intake",
        "_is_receiving",
        "_request",
        "_scope",
        "_socket",
        "_stream",
        "_waiting",
        "remote_address",
        "subprotocol",
    )

    def __init__(self, socket: OpenSocket, intake: Intake, scope: Scope, *, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self.remote_address = scope.get("client")
        self._socket = socket
        self._intake = intake
        # the intake's, looked at for every message
        self._waiting = intake.waiting
        self._scope = scope
        self._request: Request | None = None
        # a task waits in ``receive`` or ``receive_pieces``
        self._is_receiving = False
        # who has received a message in pieces and not come to its last one
        self._stream: object | None = None
        # held while a message is being sent in pieces: nothing may come between (RFC 6455 5.4)
        self._fragmenting: asyncio.Lock | None = None

    @property
    def request(self) -> Request:
        """Made when it is asked for: most programs never do."""
        if self._request is None:
            self._request = request_of(self._scope)
        return self._request

    @property
    def shown(self) -> str:
        """The path for messages."""
        return shown_path(self._scope)

    @property
    def latency_s(self) -> float:
        """Of the last answered ping."""
        return self._socket.latency_s

    @property
    def ended(self) -> ConnectionClosed | None:
        """How it ended; None while it is open."""
        return self._intake.closed

    @property
    def is_ending(self) -> bool:
        """It has ended, or our goodbye is on its way."""
        return self._intake.closed is not None or self._socket.sent is not None

    @property
    def was_read(self) -> bool:
        """Whether anybody has begun to receive."""
        return self._intake.was_read

    @property
    def dropped(self) -> int:
        """Messages that came to nobody."""
        return self._intake.dropped

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` when it has ended; at once if it has."""
        if self._intake.closed is not None:
            on_end()
        else:
            self._intake.on_end = on_end

    def unwatch(self) -> None:
        """Nobody is to be told any more; what comes from now on waits for whoever receives."""
        self._intake.on_end = None
        self._intake.was_read = True

    async def leave(self) -> None:
        """Nothing is left to be done."""

    # Reading

    def take_ready(self) -> str | bytes | None:
        """The next message if it is there and whole: nobody has to wait for it. None: use ``receive``."""
        waiting = self._waiting
        if not waiting or self._is_receiving or self._stream is not None:
            return None
        message = waiting[0]
        if isinstance(message, Part) or not self._intake.was_read:
            return None
        waiting.popleft()
        if self._intake.is_paused:
            self._intake.look_for_room()
        return message

    async def receive(self) -> str | bytes:
        """The next message; raises how it ended when there is none left."""
        self._begin_receiving()
        try:
            if self._stream is not None:
                await self._skip_pieces()
            while (message := self._intake.take_whole()) is None:
                if self._intake.closed is not None:
                    raise repeat(self._intake.closed)
                await self._intake.wait_news()
        finally:
            self._is_receiving = False
        return message

    async def receive_pieces(self) -> AsyncGenerator[str | bytes]:
        """The next message as it comes: pieces of a large frame, and fragments. What is left unread is skipped."""
        stream = object()
        piece = await self._receive_piece(stream, is_first=True)
        while isinstance(piece, Part):
            if piece.data:
                yield piece.data
            if piece.is_last:
                return
            piece = await self._receive_piece(stream, is_first=False)
        yield piece

    async def _receive_piece(self, stream: object, *, is_first: bool) -> str | bytes | Part:
        self._begin_receiving()
        try:
            if is_first:
                if self._stream is not None:
                    await self._skip_pieces()
                self._waiting.extendleft(reversed(self._intake.take_begun()))
            elif self._stream is not stream:
                raise RuntimeError(_LEFT)
            piece = await self._next_piece()
            self._stream = stream if isinstance(piece, Part) and not piece.is_last else None
        finally:
            self._is_receiving = False
        return piece

    def _begin_receiving(self) -> None:
        if self._is_receiving:
            raise RuntimeError(_BUSY)
        self._intake.was_read = self._is_receiving = True

    async def _next_piece(self) -> str | bytes | Part:
        while (piece := self._intake.take()) is None:
            if self._intake.closed is not None:
                raise repeat(self._intake.closed)
            await self._intake.wait_news()
        return piece

    async def _skip_pieces(self) -> None:
        while self._stream is not None:
            piece = await self._next_piece()
            if not isinstance(piece, Part) or piece.is_last:
                self._stream = None

    # Writing

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        socket = self._socket
        if not socket.writable or self._fragmenting is not None:
            await self._wait_turn()
        if not socket.is_open:
            await self._raise_end()
        if socket.send(message):
            # it has just been written: a sender that never waits lets the loop run
            await asyncio.sleep(0)

    async def _wait_turn(self) -> None:
        """Return when nobody is in the middle of a message in pieces and the peer reads, both at once."""
        while True:
            if self._fragmenting is not None and self._fragmenting.locked():
                async with self._fragmenting:
                    pass
            elif self._socket.writable or self._intake.closed is not None:
                return
            else:
                await self._intake.wait_room()

    async def _raise_end(self) -> None:
        """It is not open any more: raise how it ended, or is about to end."""
        if self._socket.sent is None:
            # dropped by us: the transport says so on the next pass
            await self._intake.wait_over()
        if self._intake.closed is not None:
            raise repeat(self._intake.closed)
        raise ConnectionClosedError(None, self._socket.sent)

    async def send_pieces(self, pieces: Pieces) -> None:
        """One message, a fragment for each piece (RFC 6455 5.4); nothing for no pieces.

        A failure half-way ends the connection, because nothing can follow half a message: with 1011 when the pieces
        raise, without a word when the sender is cancelled.
        """
        self._fragmenting = self._fragmenting or asyncio.Lock()
        async with self._fragmenting, contextlib.aclosing(_walk(pieces)) as walk:
            is_first = True
            kind: type | None = None
            try:
                async for piece in walk:
                    data = _check(piece, kind)
                    kind = type(data)
                    await self._wait_room()
                    is_much = self._socket.send_fragment(data, is_first=is_first, is_last=False)
                    is_first = False
                    if is_much:
                        await asyncio.sleep(0)
                if kind is not None:
                    await self._wait_room()
                    self._socket.send_fragment(kind(), is_first=False, is_last=True)
            except asyncio.CancelledError:
                if not is_first:
                    self._socket.abort()
                raise
            except BaseException:
                # nothing happens where it has ended
                if not is_first:
                    self._socket.close(BROKEN.code, "a message in pieces could not be sent to its end")
                raise

    async def _wait_room(self) -> None:
        if not self._socket.writable:
            await self._intake.wait_room()
        if not self._socket.is_open:
            await self._raise_end()

    async def ping(self, data: bytes | None) -> Awaitable[float]:
        """Send a ping now."""
        if not self._socket.is_open:
            await self._raise_end()
        return self._socket.ping(data)

    # Ending

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake; a peer that does not answer in time is left."""
        if self._intake.closed is None:
            self._socket.close(code, reason, patience_s=RAW_CLOSE_S)
            await self._intake.wait_over()

    def abort(self) -> None:
        """Drop it."""
        self._socket.abort()

    async def wait_closed(self) -> None:
        """Return when it has ended."""
        await self._intake.wait_over()


async def _walk(pieces: Pieces) -> AsyncGenerator[object]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def _check(piece: object, kind: type | None) -> str | bytes:
    if not isinstance(piece, str | bytes | bytearray | memoryview):
        raise TypeError(f"an iterable for send gives str or bytes, not {type(piece).__name__}")
    data = piece if isinstance(piece, str) else bytes(piece)
    if kind is not None and type(data) is not kind:
        raise TypeError("an iterable for send gives either str or bytes: one message is text or binary")
    return data
