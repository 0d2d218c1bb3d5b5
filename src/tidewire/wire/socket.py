"""A raw connection's link on the server's side: over plain ASGI, with a reader that always reads.

One unread message makes servers stop reading, pongs included, and then they kill the connection; so a task of its
own reads, and what nobody takes is bounded (CONTRACTS 9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tidewire.errors import Close, ConnectionClosed, ConnectionClosedError, NotOffered, TooLarge, closed_error, repeat
from tidewire.limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, RAW_CLOSE_S
from tidewire.wire.asgi import Event, Receive, Scope, Send, extension_of, means_gone
from tidewire.wire.connection import Pieces, close_of
from tidewire.wire.inbox import Inbox

if TYPE_CHECKING:
    from websockets.http11 import Request

logger = logging.getLogger("tidewire")

# How long a sender that finds the peer gone waits to hear from the reader how it went.
_NEWS_S = 1.0
# A goodbye that takes longer than this is waiting for a peer that does not read.
_GOODBYE_S = 0.1


class ServerSocket:
    """The link of an accepted WebSocket (``wire.connection.Link``). ``watch`` begins to read."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, subprotocol: str | None = None, max_size: int
    ) -> None:
        self.subprotocol = subprotocol
        self.remote_address = scope.get("client")
        self.ended: ConnectionClosed | None = None
        # whether the body has ever begun to receive: then a full inbox stops the reader, otherwise it drops
        self.was_read = False
        # messages that came to a body that never receives
        self.dropped = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_size = max_size
        self._extension = extension_of(scope)
        self._request: Request | None = None
        self._inbox = Inbox(messages_max=INBOX_MESSAGES_MAX, bytes_max=INBOX_BYTES_MAX)
        # something has come, or it has ended
        self._news = asyncio.Event()
        # there is room in the inbox
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        # a task is inside of ``receive``
        self._is_receiving = False
        # the close frame of ours, once it is on its way
        self._sent: Close | None = None
        # who reads, and who is told when there is nothing more to be read
        self._reader: asyncio.Task[None] | None = None
        self._on_end: Callable[[], None] | None = None

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
    def is_ending(self) -> bool:
        """It has ended, or our goodbye is on its way."""
        return self.ended is not None or self._sent is not None

    @property
    def latency_s(self) -> float:
        """As our own server measured it; 0 on others."""
        measured = self._extension.get("latency_s")
        return 0.0 if measured is None else float(measured())

    def watch(self, on_end: Callable[[], None]) -> None:
        """Begin to read, in a task of its own, and call ``on_end`` when there is nothing more to be read."""
        self._on_end = on_end
        self._reader = asyncio.create_task(self._read_to_end())

    async def _read_to_end(self) -> None:
        try:
            await self.read()
        except Exception:
            logger.exception("reading a WebSocket failed")
            self._end(None)
        if self._on_end is not None:
            self._on_end()

    def unwatch(self) -> None:
        """Nobody is to be told any more; what comes from now on waits for whoever receives."""
        self._on_end = None
        self.was_read = True

    async def leave(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    # Reading

    async def read(self) -> None:
        """Take what the peer sends until it is gone."""
        while self.ended is None:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._end(close_of(event.get("code", 1005), event.get("reason")))
            elif event["type"] == "websocket.receive":
                await self._take_in(event)

    async def _take_in(self, event: Event) -> None:
        if self._sent is not None:
            # under way when we said goodbye
            return
        text = event.get("text")
        message: str | bytes = event.get("bytes") or b"" if text is None else text
        while self._inbox.full:
            if not self.was_read:
                self.dropped += 1
                return
            self._room.clear()
            await self._room.wait()
        self._inbox.put(message)
        self._news.set()

    def _end(self, close: Close | None) -> None:
        if self.ended is None:
            self.ended = self._how_it_ended(close)
        self._over.set()
        self._news.set()

    def _how_it_ended(self, close: Close | None) -> ConnectionClosed:
        if self._sent is not None:
            return closed_error(close, self._sent, received_first=False)
        refused = self._extension.get("refused")
        if refused is not None and refused():
            return closed_error(None, close)
        return closed_error(close, close, received_first=True)

    def take_ready(self) -> None:
        """None: ask ``receive``."""

    async def receive(self) -> str | bytes:
        """The next message; raises how it ended when there is none left."""
        if self._is_receiving:
            raise RuntimeError("another task is receiving: let one task receive and hand the messages out")
        self.was_read = self._is_receiving = True
        try:
            while not len(self._inbox):
                if self.ended is not None:
                    raise repeat(self.ended)
                self._news.clear()
                await self._news.wait()
            message = self._inbox.take()
        finally:
            self._is_receiving = False
        self._room.set()
        return message

    async def receive_pieces(self) -> AsyncIterator[str | bytes]:
        """The next message, in one piece: servers hand over whole messages."""
        yield await self.receive()

    # Writing

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        if self.ended is not None:
            raise repeat(self.ended)
        if self._sent is not None:
            raise ConnectionClosedError(None, self._sent)
        try:
            if isinstance(message, str):
                await self._send({"type": "websocket.send", "text": message})
            else:
                await self._send({"type": "websocket.send", "bytes": message})
        except Exception as error:
            if not means_gone(error):
                raise
            await self._wait_for_news()
            assert self.ended is not None
            raise repeat(self.ended) from None

    async def _wait_for_news(self) -> None:
        """The reader hears how it ended a moment after a send has failed, if it ever does."""
        try:
            async with asyncio.timeout(_NEWS_S):
                await self._over.wait()
        except TimeoutError:
            self._end(None)

    async def send_pieces(self, pieces: Pieces) -> None:
        """Join them and send them whole; no pieces are no message, as in ``websockets``."""
        message = await _join(pieces, self._max_size)
        if message is not None:
            await self.send(message)

    async def ping(self, data: bytes | None) -> Awaitable[float]:
        """Through the extension of our own server."""
        if self.ended is not None:
            raise repeat(self.ended)
        ping: Callable[[bytes | None], Awaitable[float]] | None = self._extension.get("ping")
        if ping is None:
            raise NotOffered("pings")
        return ping(data)

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame. A peer that does not take it in time is dropped, where the server lets us.

        It has ended then: ASGI does not tell an application whether the peer has answered.
        """
        if self.ended is not None:
            return
        if self._sent is not None:
            await self._over.wait()
            return
        self._sent = Close(code, reason)
        try:
            async with asyncio.timeout(RAW_CLOSE_S):
                # granian's close waits for a ``receive`` that has begun
                await self.leave()
                await self._say_goodbye({"type": "websocket.close", "code": code, "reason": reason})
            self._end(self._sent)
        except TimeoutError:
            self.abort()
        except Exception as error:
            if not means_gone(error):
                raise
            await self._wait_for_news()
        finally:
            self._end(None)

    async def _say_goodbye(self, goodbye: Event) -> None:
        """Send it; while the peer does not take it, look whether the line has ended."""
        sending = asyncio.ensure_future(self._send(goodbye))
        reading: asyncio.Task[None] | None = None
        try:
            done, _ = await asyncio.wait([sending], timeout=_GOODBYE_S)
            if not done:
                reading = asyncio.create_task(self.read())
                await asyncio.wait([sending, reading], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, reading):
                if task is not None and not task.done():
                    task.cancel()
                    await asyncio.wait([task])

    def abort(self) -> None:
        """Drop it, where the server lets us."""
        abort = self._extension.get("abort")
        if abort is not None:
            abort()

    async def wait_closed(self) -> None:
        """Return when it has ended."""
        await self._over.wait()


async def _join(pieces: Pieces, max_size: int) -> str | bytes | None:
    """One message of ``pieces``, None when there are none; raises ``TooLarge`` and ``TypeError``."""
    joined: list[Any] = []
    size_bytes = 0

    def add(piece: object) -> None:
        nonlocal size_bytes
        if not isinstance(piece, str | bytes | bytearray | memoryview):
            raise TypeError(f"an iterable for send gives str or bytes, not {type(piece).__name__}")
        if joined and isinstance(piece, str) != isinstance(joined[0], str):
            raise TypeError("an iterable for send gives either str or bytes: one message is text or binary")
        size_bytes += len(piece.encode()) if isinstance(piece, str) else len(piece)
        if size_bytes > max_size:
            raise TooLarge(size_bytes, max_size)
        joined.append(piece)

    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            add(piece)
    else:
        for piece in pieces:
            add(piece)
    if not joined:
        return None
    return "".join(joined) if isinstance(joined[0], str) else b"".join(joined)


def shown_path(scope: Scope) -> str:
    """The path for messages: without the query, where tokens live, and without control characters."""
    return ascii(scope["path"])[1:-1]


def request_of(scope: Scope) -> Request:
    """The handshake request, as ``websockets`` has it."""
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
    query = scope.get("query_string", b"").decode("ascii", "replace")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    return Request(f"{path}?{query}" if query else path, Headers(headers))
