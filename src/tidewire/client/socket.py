"""A raw connection's link on the client's side: over the ``websockets`` library (``wire.connection``).

The library reads in a task of its own, pauses the line when 16 frames wait, and answers pings meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from tidewire.errors import Close, ConnectionClosed, closed_error
from tidewire.wire.connection import Pieces, close_of

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed as LibraryClosed
    from websockets.frames import Close as LibraryClose
    from websockets.http11 import Request

_BUSY = "another task is receiving: let one task receive and hand the messages out"


class ClientSocket:
    """The link of a connection that was opened (``wire.connection.Link``)."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @property
    def request(self) -> Request:
        """What was sent."""
        request = self._socket.request
        assert request is not None, "an open connection has had its handshake"
        return request

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
    def ended(self) -> ConnectionClosed | None:
        """Known once the line is down and not before: until then a goodbye may still come."""
        from websockets.protocol import State

        protocol = self._socket.protocol
        if protocol.state is not State.CLOSED:
            return None
        return closed_error(_close(protocol.close_rcvd), _close(protocol.close_sent), protocol.close_rcvd_then_sent)

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        try:
            await self._socket.send(message)
        except LibraryClosed as closed:
            raise _translate(closed) from None

    async def send_pieces(self, pieces: Pieces) -> None:
        """One message, a fragment for each piece (RFC 6455 5.4)."""
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        try:
            await self._socket.send(pieces)
        except LibraryClosed as closed:
            raise _translate(closed) from None

    async def receive(self) -> str | bytes:
        """The next message."""
        from websockets.exceptions import ConcurrencyError
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        try:
            return await self._socket.recv()
        except LibraryClosed as closed:
            raise _translate(closed) from None
        except ConcurrencyError:
            raise RuntimeError(_BUSY) from None

    async def receive_pieces(self) -> AsyncIterator[str | bytes]:
        """The next message, fragment by fragment."""
        from websockets.exceptions import ConcurrencyError
        from websockets.exceptions import ConnectionClosed as LibraryClosed

        try:
            async for piece in self._socket.recv_streaming():
                yield piece
        except LibraryClosed as closed:
            raise _translate(closed) from None
        except ConcurrencyError:
            raise RuntimeError(_BUSY) from None

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
        """The closing handshake, within the library's deadline."""
        await self._socket.close(code, reason)

    async def wait_closed(self) -> None:
        """Return when the line is down."""
        await self._socket.wait_closed()

    def abort(self) -> None:
        """Drop the line at once, without a word."""
        self._socket.transport.abort()


async def _pong(waiter: Awaitable[float]) -> float:
    from websockets.exceptions import ConnectionClosed as LibraryClosed

    try:
        return await waiter
    except LibraryClosed as closed:
        raise _translate(closed) from None


def _close(frame: LibraryClose | None) -> Close | None:
    return None if frame is None else close_of(int(frame.code), frame.reason)


def _translate(closed: LibraryClosed) -> ConnectionClosed:
    return closed_error(_close(closed.rcvd), _close(closed.sent), closed.rcvd_then_sent)
