"""A raw connection's link on the client's side: over the ``websockets`` library (``wire.connection``).

The library reads in a task of its own, pauses the line when 16 frames wait, and answers pings meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from typing import TYPE_CHECKING, Any

from tidewire.errors import Close, ConnectionClosed, closed_error
from tidewire.limits import CLOSE_IN_A_HURRY_S, INBOX_BYTES_MAX
from tidewire.wire.connection import Pieces, close_of
from tidewire.wire.inbox import Inbox

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed as LibraryClosed
    from websockets.frames import Close as LibraryClose
    from websockets.http11 import Request, Response

logger = logging.getLogger("tidewire")

_BUSY = "another task is receiving: let one task receive and hand the messages out"
_UNFINISHED = (
    "a message that was received in pieces was not read to its end, so nothing can be received after it: close this "
    "connection and open another"
)
# What comes while we close and nobody has received yet; counted in messages, because small ones cost more than bytes.
_REST_MESSAGES_MAX = 4096


class ClientSocket:
    """The link of a connection that was opened (``wire.connection.Link``)."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        # a task is inside of ``receive`` or of ``receive_pieces``
        self._is_receiving = False
        # nobody is inside of the library's
        self._is_free = asyncio.Event()
        self._is_free.set()
        # who receives a message in pieces, from its first piece on until its last
        self._in_pieces: asyncio.Task[Any] | None = None
        # reads what comes while we close
        self._taking: asyncio.Task[None] | None = None
        self._rest = Inbox(messages_max=_REST_MESSAGES_MAX, bytes_max=INBOX_BYTES_MAX)
        # one message in pieces at a time, so that half a message is always that of the task that finds it
        self._pieces_turn = asyncio.Lock()

    @property
    def request(self) -> Request:
        """What was sent."""
        request = self._socket.request
        assert request is not None, "an open connection has had its handshake"
        return request

    @property
    def response(self) -> Response:
        """What the server answered to it."""
        response = self._socket.response
        assert response is not None, "an open connection has had its handshake"
        return response

    @property
    def subprotocol(self) -> str | None:
        """As the server chose."""
        return self._socket.subprotocol

    @property
    def remote_address(self) -> Any:
        """The server's."""
        return self._socket.remote_address

    @property
    def latency_s(self) -> float:
        """Of the library's pings, or one's own."""
        return self._socket.latency

    @property
    def closed_here(self) -> bool:
        """Whether ``close`` was called while it was open."""
        return self._taking is not None

    @property
    def ended(self) -> ConnectionClosed | None:
        """Known once the line is down and not before: until then a goodbye may still come."""
        from websockets.protocol import State

        return self._how_it_ended() if self._socket.protocol.state is State.CLOSED else None

    def _how_it_ended(self) -> ConnectionClosed:
        protocol = self._socket.protocol
        return closed_error(_close(protocol.close_rcvd), _close(protocol.close_sent), protocol.close_rcvd_then_sent)

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        # what cannot be encoded must not reach the library, which would drop the connection
        data, is_text = (message.encode(), True) if isinstance(message, str) else (message, False)
        try:
            await self._socket.send(data, text=is_text)
        except LibraryClosed as closed:
            raise _translate(closed) from None

    async def send_pieces(self, pieces: Pieces) -> None:
        """One message, a fragment for each piece (RFC 6455 5.4); nothing for no pieces.

        A failure half-way ends the connection, because nothing can follow half a message: with 1011 when the pieces
        raise, without a word when the sender is cancelled.
        """
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        async with self._pieces_turn, contextlib.aclosing(_walk(pieces)) as walk:
            try:
                first = await anext(walk)
            except StopAsyncIteration:
                return
            is_text = isinstance(first, str)
            try:
                async with contextlib.aclosing(_encode(first, walk, is_text)) as encoded:
                    await self._socket.send(encoded, text=is_text)
            except LibraryClosed as closed:
                raise _translate(closed) from None
            except asyncio.CancelledError:
                if self._socket.protocol.expect_continuation_frame:
                    self.abort()
                raise

    def take_ready(self) -> None:
        """None: the library gives nothing without waiting."""

    async def receive(self) -> str | bytes:
        """The next message; what came while we closed is given before the end."""
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        self._begin_receiving()
        try:
            if self._taking is not None:
                await asyncio.wait([self._taking])
                if len(self._rest):
                    return self._rest.take()
            self._is_free.clear()
            return await self._socket.recv()
        except LibraryClosed as closed:
            raise _translate(closed) from None
        finally:
            self._end_receiving()

    async def receive_pieces(self) -> AsyncGenerator[str | bytes]:
        """The next message, fragment by fragment; in one piece if it came while we closed."""
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        if self._taking is not None:
            yield await self.receive()
            return
        self._begin_receiving()
        self._is_free.clear()
        try:
            async for piece in self._socket.recv_streaming():
                self._in_pieces = asyncio.current_task()
                yield piece
            self._in_pieces = None
        except LibraryClosed as closed:
            raise _translate(closed) from None
        finally:
            self._end_receiving()

    def _begin_receiving(self) -> None:
        if self._in_pieces is not None and self.ended is not None:
            raise self._how_it_ended()
        if self._in_pieces is not None and (not self._is_receiving or self._in_pieces is asyncio.current_task()):
            raise RuntimeError(_UNFINISHED)
        if self._is_receiving:
            raise RuntimeError(_BUSY)
        self._is_receiving = True

    def _end_receiving(self) -> None:
        self._is_receiving = False
        self._is_free.set()

    async def ping(self, data: bytes | None) -> Awaitable[float]:
        """Send one; the library gives the round trip."""
        from websockets.exceptions import ConcurrencyError
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        try:
            return _pong(await self._socket.ping(data))
        except LibraryClosed as closed:
            raise _translate(closed) from None
        except ConcurrencyError:
            raise ValueError("a ping with the same data waits for its pong already") from None

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake, within the library's deadline; cancelling it drops the line.

        What is unread is read, because the peer's goodbye comes behind it. Some of it can still be received (1 MiB,
        and there is always room for one message); the rest is dropped.
        """
        if self.ended is not None:
            return
        if self._taking is None:
            self._taking = asyncio.create_task(self._take_rest())
        # behind half a message that nobody reads there is no goodbye to be read
        time_s = CLOSE_IN_A_HURRY_S if self._in_pieces is not None and not self._is_receiving else None
        try:
            async with asyncio.timeout(time_s):
                await self._socket.close(code, reason)
        except TimeoutError:
            self.abort()
            await self._socket.wait_closed()
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            # it has ended by itself, or waits for somebody who still receives a message in pieces
            self._taking.cancel()

    async def _take_rest(self) -> None:
        from websockets.exceptions import ConcurrencyError
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        dropped = 0
        with contextlib.suppress(LibraryClosed, ConcurrencyError):
            while True:
                await self._is_free.wait()
                message = await self._socket.recv()
                if self._rest.full:
                    dropped += 1
                else:
                    self._rest.put(message)
        if dropped:
            logger.info("%d messages came while the connection was being closed, and were dropped", dropped)

    async def wait_closed(self) -> None:
        """Return when the line is down."""
        await self._socket.wait_closed()

    def abort(self) -> None:
        """Drop the line at once, without a word."""
        self._socket.transport.abort()


async def _walk(pieces: Pieces) -> AsyncGenerator[object]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


async def _encode(first: object, rest: AsyncGenerator[object], is_text: bool) -> AsyncGenerator[bytes]:
    """What the library sends as it is. Raises ``TypeError`` and ``UnicodeEncodeError`` outside of it."""
    yield _check(first, is_text)
    async for piece in rest:
        yield _check(piece, is_text)


def _check(piece: object, is_text: bool) -> bytes:
    if isinstance(piece, str) and is_text:
        return piece.encode()
    if isinstance(piece, bytes | bytearray | memoryview) and not is_text:
        return bytes(piece)
    if isinstance(piece, str | bytes | bytearray | memoryview):
        raise TypeError("an iterable for send gives either str or bytes: one message is text or binary")
    raise TypeError(f"an iterable for send gives str or bytes, not {type(piece).__name__}")


def _pong(answered: Awaitable[float]) -> asyncio.Future[float]:
    """The same in our words; a future, because nobody has to wait for it."""
    from websockets.exceptions import ConnectionClosed as LibraryClosed

    pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def pass_on(waiter: asyncio.Future[float]) -> None:
        if pong.done():
            return
        if waiter.cancelled():
            pong.cancel()
            return
        error = waiter.exception()
        if error is None:
            pong.set_result(waiter.result())
        else:
            pong.set_exception(_translate(error) if isinstance(error, LibraryClosed) else error)
            # whoever does not wait for it is not to be told
            pong.exception()

    asyncio.ensure_future(answered).add_done_callback(pass_on)
    return pong


def _close(frame: LibraryClose | None) -> Close | None:
    return None if frame is None else close_of(int(frame.code), frame.reason)


def _translate(closed: LibraryClosed) -> ConnectionClosed:
    return closed_error(_close(closed.rcvd), _close(closed.sent), closed.rcvd_then_sent)
