"""A raw connection, as users hold it: the same on both sides, over a link that speaks for the side.

A server's link is in ``wire.socket`` (any ASGI server), a client's in ``client.socket`` (the ``websockets`` library).
The names and meanings are those of ``websockets``' ``Connection``, so that programs move by changing the import.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from tidewire.errors import BadPayload, Close, ConnectionClosed, ConnectionClosedOK
from tidewire.protocol.codes import may_be_sent, shorten_reason

if TYPE_CHECKING:
    from websockets.http11 import Request

Data: TypeAlias = "str | bytes | bytearray | memoryview"
Pieces: TypeAlias = "Iterable[Data] | AsyncIterable[Data]"


class Link(Protocol):
    """What a connection needs of its side. What does not return a value raises ``ConnectionClosed`` once it ended."""

    @property
    def request(self) -> Request:
        """The handshake request, as ``websockets`` has it: ``path`` (with the query) and ``headers``."""

    @property
    def subprotocol(self) -> str | None:
        """What both sides agreed on (RFC 6455 1.9)."""

    @property
    def remote_address(self) -> Any:
        """The peer: host and port; None where that is not known."""

    @property
    def latency_s(self) -> float:
        """The round trip of the last answered ping in seconds; 0 before there was one."""

    @property
    def ended(self) -> ConnectionClosed | None:
        """How it ended; None while it is open."""

    def send(self, message: str | bytes) -> Coroutine[Any, Any, None]:
        """Send one message; returns when the wire has taken it, so a slow peer slows its sender."""

    async def send_pieces(self, pieces: Pieces) -> None:
        """Send one message made of pieces of one kind, fragmented where the side can."""

    def take_ready(self) -> str | bytes | None:
        """The next message if it is there already, for a loop that need not wait; None: use ``receive``."""

    async def receive(self) -> str | bytes:
        """The next message. What came before the end is given before the end is raised; cancelling loses nothing."""

    def receive_pieces(self) -> AsyncIterator[str | bytes]:
        """The next message as it arrives."""

    async def ping(self, data: bytes | None) -> Awaitable[float]:
        """Send a ping; the awaitable gives the round trip in seconds. Raises ``NotOffered``."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye and wait for the end, within a deadline. Once it has ended, nothing."""

    async def wait_closed(self) -> None:
        """Return when it has ended."""


class Connection:
    """One WebSocket, on either side; made by ``serve``, ``connect`` and ``accept``.

    ::

        async for message in connection:
            await connection.send(message)

    Text is ``str`` and binary is ``bytes``, both ways. One task may receive while others send. A loop over it ends
    when the connection has ended well (1000, 1001, no code), and raises ``ConnectionClosedError`` otherwise; with
    ``accept``, and in a loop over ``connect``, it ends however the connection did (``close_code`` tells).
    """

    __slots__ = ("__weakref__", "_ends_quietly", "_link")

    def __init__(self, link: Link, *, ends_quietly: bool = False) -> None:
        self._link = link
        # whether a loop over it ends without an error however it ended
        self._ends_quietly = ends_quietly

    def __repr__(self) -> str:
        state = "open" if self._link.ended is None else f"closed, {self._link.ended}"
        # without the query: tokens live there
        return f"<tidewire.Connection {self.request.path.partition('?')[0]} {state}>"

    @property
    def request(self) -> Request:
        """The handshake request: ``request.path`` (str, with the query), ``request.headers`` (mapping)."""
        return self._link.request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol both sides agreed on, or None."""
        return self._link.subprotocol

    @property
    def remote_address(self) -> Any:
        """The peer's address: (host, port, ...), or None where it is not known."""
        return self._link.remote_address

    @property
    def latency_s(self) -> float:
        """The round trip of the last answered ping in seconds; 0 before there was one."""
        return self._link.latency_s

    @property
    def close_code(self) -> int | None:
        """The code it ended with (RFC 6455 7.4), 1006 for a cut line; None while it is open."""
        return None if self._link.ended is None else self._link.ended.code

    @property
    def close_reason(self) -> str | None:
        """The reason it ended with, often empty; None while it is open."""
        return None if self._link.ended is None else self._link.ended.reason

    def send(self, message: Data | Pieces) -> Coroutine[Any, Any, None]:
        """Send a message: ``str`` as text, bytes as binary, an iterable of either as one message in fragments.

        Returns when the wire has taken it, so a peer that reads slowly slows this task and nobody else. When the
        iterable fails half-way the connection is closed with 1011. On servers other than ours what an iterable gives
        is joined, up to ``max_size``, and sent whole. Raises ``ConnectionClosed``, ``TypeError``, and ``TooLarge``
        for an iterable that is joined and over the limit.
        """
        if type(message) is str or type(message) is bytes:
            # the link's own coroutine: one less on the way of every message
            return self._link.send(message)
        return self._send_other(message)

    async def _send_other(self, message: Data | Pieces) -> None:
        if isinstance(message, str | bytes):
            # of a class of their own
            await self._link.send(message)
        elif isinstance(message, bytearray | memoryview):
            await self._link.send(bytes(message))
        elif isinstance(message, Mapping) or not isinstance(message, Iterable | AsyncIterable):
            kind = type(message).__name__
            raise TypeError(f"send takes str, bytes or an iterable of either, not {kind}: for values use send_json")
        else:
            await self._link.send_pieces(cast(Pieces, message))

    async def send_json(self, value: object) -> None:
        """Send ``value`` as JSON in a text message. Raises what ``send`` and ``json.dumps`` raise."""
        await self.send(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))

    async def recv(self) -> str | bytes:
        """The next message: ``str`` for text, ``bytes`` for binary.

        Raises ``ConnectionClosed`` when everything that came before the end has been received, and ``RuntimeError``
        when another task is receiving. Cancelling it loses no message.
        """
        return await self._link.receive()

    async def recv_json(self) -> Any:
        """The next message, parsed as JSON (text or binary). Raises ``BadPayload``, and what ``recv`` raises."""
        message = await self.recv()
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise BadPayload(f"JSON was expected, and a message came that is none: {error}") from None

    def recv_streaming(self) -> AsyncIterator[str | bytes]:
        """The next message piece by piece, as it arrives: flat memory for messages of any size.

        Pieces are fragments, and parts of a large frame. Read it to its end before receiving anything else. Servers
        other than ours get each message whole from the wire below, and give it in one piece.
        """
        return self._link.receive_pieces()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        link = self._link
        try:
            while True:
                message = link.take_ready()
                yield await link.receive() if message is None else message
        except ConnectionClosed as closed:
            if not self._ends_quietly and not isinstance(closed, ConnectionClosedOK):
                raise

    async def ping(self, data: str | bytes | None = None) -> Awaitable[float]:
        """Send a ping (RFC 6455 5.5.2); ``await`` what it returns for the round trip in seconds.

        ``data``: at most 125 bytes that the pong repeats; by default random ones. Pings are sent by themselves every
        20 s too. Raises ``ConnectionClosed``, ``ValueError``, and ``NotOffered`` on servers that know no pings.
        """
        if isinstance(data, str):
            data = data.encode()
        if data is not None and len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)} (RFC 6455 5.5)")
        return await self._link.ping(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and wait until the peer has heard it, or its time is over. Closing twice is nothing.

        What comes meanwhile can still be received, up to a mebibyte of it.
        ``reason`` is cut to the 123 bytes a close frame has room for. Raises ``ValueError`` for a code that may not be
        sent (RFC 6455 7.4).
        """
        if not may_be_sent(code):
            raise ValueError(f"{code} cannot be sent: use 1000, 1001, 1008, 1011 to 1014, or 3000 to 4999")
        await self._link.close(code, shorten_reason(reason))

    async def wait_closed(self) -> None:
        """Return when the connection has ended, whoever ended it."""
        await self._link.wait_closed()


def close_of(code: int | None, reason: str | None) -> Close | None:
    """A close frame from what a side reports; None for 1006, which is the lack of one."""
    return None if code == 1006 or code is None else Close(code, reason or "")
