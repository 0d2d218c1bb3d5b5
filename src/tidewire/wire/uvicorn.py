"""Our protocol classes for uvicorn, given to it through its public ``ws=`` and ``http=`` options.

Small subclasses of uvicorn's own. They add what an ASGI application cannot do for itself (CONTRACTS 8, 10):

* the scope extension ``tidewire`` (see ``wire.asgi``): abort a connection, see what the transport holds back;
* caps on the head of a request: bytes, and a deadline from its first byte to its last;
* an abort, not a polite close, for a peer that answers no ping;
* bounds on pongs nobody reads and on fragments without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from tidewire import limits
from tidewire.wire.asgi import EXTENSION

# SO_LINGER on with zero seconds: the kernel drops its send buffer and sends RST instead of lingering in FIN_WAIT1
_DROP_AT_ONCE = struct.pack("ii", 1, 0)


def abort_transport(transport: asyncio.Transport) -> None:
    """Drop the connection and everything buffered for it, in this process and in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        # an error means that the kernel has closed it already: there is nothing left to drop
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_AT_ONCE)
    transport.abort()


def _watch_for_vanished_peer(transport: asyncio.BaseTransport) -> None:
    """Let the kernel give up a peer that acknowledges nothing for a while (Linux; elsewhere pings must do)."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, int(limits.ABANDONED_AFTER_S * 1000))


def _extension(transport: asyncio.Transport) -> dict[str, Callable[[], Any]]:
    return {
        "abort": lambda: abort_transport(transport),
        "pending_bytes": lambda: 0 if transport.is_closing() else transport.get_write_buffer_size(),
    }


class Protocol(WebSocketsSansIOProtocol):
    """The ``ws=`` class: uvicorn's own on ``websockets``' sans-I/O core, with the bounds above."""

    def handle_connect(self, event: Request) -> None:
        """Add the extension before the application sees the scope; its task has not begun to run yet."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = _extension(self.transport)

    def handle_cont(self, event: Frame) -> None:
        """A message in endless small fragments costs far more memory than its bytes (RFC 6455 10.4)."""
        if len(self.frames) >= limits.FRAGMENTS_MAX:
            self.conn.fail(1009, f"a message of more than {limits.FRAGMENTS_MAX} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """A peer that pings and does not read makes us store its pongs (RFC 6455 5.5.2)."""
        super().handle_ping()
        if self.transport.get_write_buffer_size() > limits.UNREAD_PONGS_BYTES_MAX:
            self.abort()

    def keepalive_timeout(self) -> None:
        """No pong: a close would wait for a flush that never comes."""
        super().keepalive_timeout()
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        abort_transport(self.transport)


class HttpProtocol(HttpToolsProtocol):
    """The ``http=`` class: uvicorn's own on httptools, with a cap and a deadline on the head of each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # whether the bytes that come now belong to the head of a request
        self._in_head = True
        self._head_bytes = 0
        self._head_deadline: asyncio.TimerHandle | None = None
        # the connection has been refused: whatever else it sends is not read
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that sends nothing has the same deadline as one that never ends its head."""
        super().connection_made(transport)
        _watch_for_vanished_peer(transport)
        self._arm_head_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._disarm_head_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the raw bytes of the head: counting complete headers misses one that never ends."""
        if self._refused:
            return
        if self._in_head:
            self._arm_head_deadline()
        super().data_received(data)
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > limits.HEAD_BYTES_MAX:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: _extension(self.transport)}  # type: ignore[dict-item]
        self._in_head = True

    def on_headers_complete(self) -> None:
        """The head is whole: it may still be too large, when it came in one piece."""
        self._in_head = False
        self._head_bytes = 0
        self._disarm_head_deadline()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > limits.HEAD_BYTES_MAX:
            self._refuse_head()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Not of a request that was refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Not of a request that was refused."""
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Kept alive: what comes next is a head again."""
        super().on_response_complete()
        if not self.pipeline:
            self._in_head = True

    def handle_websocket_upgrade(self) -> None:
        """From here on the bytes are frames."""
        self._disarm_head_deadline()
        super().handle_websocket_upgrade()

    def abort(self) -> None:
        """Drop the connection at once."""
        abort_transport(self.transport)

    def _arm_head_deadline(self) -> None:
        if self._head_deadline is None:
            self._head_deadline = self.loop.call_later(limits.HEAD_DEADLINE_S, self._on_head_deadline)

    def _disarm_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _on_head_deadline(self) -> None:
        self._head_deadline = None
        self._refuse(b"408 Request Timeout", f"the head of a request has {limits.HEAD_DEADLINE_S:g} s to arrive")

    def _refuse_head(self) -> None:
        self._refuse(
            b"431 Request Header Fields Too Large",
            f"the head of a request may have {limits.HEAD_BYTES_MAX} bytes: send fewer or shorter headers",
        )

    def _refuse(self, status: bytes, sentence: str) -> None:
        self._refused = True
        self._disarm_head_deadline()
        if self.transport.is_closing():
            return
        body = sentence.encode() + b"\n"
        head = (
            b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
