"""Our protocol classes for uvicorn, given to it through its public ``ws=`` and ``http=`` options.

Small subclasses of uvicorn's own. They add what an ASGI application cannot do for itself (CONTRACTS 8, 10):

* the scope extension ``tidewire`` (see ``wire.asgi``): abort a connection, see what the transport holds back;
* caps on the head of a request: bytes, and a deadline from its first byte to its last; no trailers;
* an answer to a handshake that ``websockets`` does not parse;
* an abort, not a polite close, for a peer that answers no ping, and patience with one whose pong we do not read;
* pings for the application, and the round trip they took;
* a close frame that arrives: what a refused peer still sends is read away before the line is closed;
* 1006 for a line that was cut; uvicorn says 1005 (RFC 6455 7.1.5);
* one line in the log for a route that forgets ``accept()``;
* bounds on pongs nobody reads and on fragments without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from tidewire import limits
from tidewire.errors import closed_error
from tidewire.wire.asgi import EXTENSION
from tidewire.wire.peers import let_kernel_judge

logger = logging.getLogger("tidewire")

_BAD_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# SO_LINGER on with zero seconds: the kernel drops its send buffer and sends RST instead of lingering in FIN_WAIT1
_DROP_AT_ONCE = struct.pack("ii", 1, 0)


def frame(first: int, payload: bytes) -> bytes:
    """A whole unmasked frame: ``first`` is FIN and opcode, then the length in its shortest form (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def abort_transport(transport: asyncio.Transport) -> None:
    """Drop the connection and everything buffered for it, in this process and in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # an error means that it is closed already (ValueError: uvloop's word for that): there is nothing left to drop
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_AT_ONCE)
    transport.abort()


class _Droppable(asyncio.Protocol):
    """What both protocols offer the application as the scope extension."""

    transport: asyncio.Transport
    # a transport that is closing may still hold what nobody reads; one that is lost does not
    _lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is pending any more."""
        self._lost = True
        super().connection_lost(exc)

    def abort(self) -> None:
        """Drop the connection at once."""
        if not self._lost:
            abort_transport(self.transport)

    def pending_bytes(self) -> int:
        """What the transport holds back."""
        return 0 if self._lost else self.transport.get_write_buffer_size()

    def extension(self) -> dict[str, Callable[..., Any]]:
        """See ``wire.asgi``."""
        return {"abort": self.abort, "pending_bytes": self.pending_bytes}


def _give_up(waiter: asyncio.Future[float]) -> None:
    if not waiter.done():
        waiter.set_exception(closed_error(None, None))
        # nobody has to await a ping
        waiter.exception()


class Protocol(_Droppable, WebSocketsSansIOProtocol):
    """The ``ws=`` class: uvicorn's own on ``websockets``' sans-I/O core, with the bounds above."""

    # pongs that wait for a peer that does not read
    _unread_pongs_bytes = 0
    # the application's pings that wait for their pongs, oldest first: what they carry, who waits, since when
    _pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
    # the application, while ours stands in its place
    _app: Any = None
    # the peer was refused, and what it still sends is read away, for so long
    _discarding = False
    _lingers_until = 0.0

    def handle_connect(self, event: Request) -> None:
        """Add the extension before the application sees the scope; its task has not begun to run yet."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self.extension()

    def extension(self) -> dict[str, Callable[..., Any]]:
        """See ``wire.asgi``."""
        return {
            **super().extension(),
            "ping": self.ping,
            "latency_s": self._latency_s,
            "refused": self._has_refused,
        }

    async def run_asgi(self) -> None:
        """A route that forgets ``accept()`` gets a line that says so, where it would get a traceback or a riddle."""
        self._app, self.app = self.app, self._run_app
        try:
            await super().run_asgi()
        finally:
            # nothing that refers to itself is left of a connection that has ended
            self.app = self._app

    async def _run_app(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            result = await self._app(scope, receive, send)
        except RuntimeError as error:
            # what frameworks raise for a message before accept(); any other error is passed on as it is
            if self._is_answered() or "accept" not in str(error):
                raise
            result = None
        if not self._is_answered():
            logger.error(
                'the WebSocket route %s never accepted the connection: call "await websocket.accept()" first '
                '(or use "async with tidewire.accept(websocket) as connection")',
                scope["path"],
            )
            await send({"type": "websocket.close"})
        return result

    def _is_answered(self) -> bool:
        return self.handshake_complete or self.initial_response is not None or self.disconnected

    def ping(self, data: bytes | None) -> asyncio.Future[float]:
        """Send a ping; the future gives the round trip in seconds."""
        if self._pings is None:
            self._pings = {}
        payload = struct.pack("!Q", random.getrandbits(64)) if data is None else data
        if payload in self._pings:
            raise ValueError("a ping with the same data waits for its pong already")
        if len(self._pings) >= limits.PINGS_MAX:
            raise RuntimeError(f"{limits.PINGS_MAX} pings wait for their pongs already: await some of them first")
        waiter: asyncio.Future[float] = self.loop.create_future()
        if self._is_open():
            self._pings[payload] = (waiter, self.loop.time())
            self.conn.send_ping(payload)
            self.transport.write(b"".join(self.conn.data_to_send()))
        else:
            _give_up(waiter)
        return waiter

    def _latency_s(self) -> float:
        return self.last_ping_rtt

    def _has_refused(self) -> bool:
        return self._discarding

    def handle_pong(self, event: Frame) -> None:
        """A pong answers its ping and all before it (RFC 6455 5.5.3)."""
        if self._pings and bytes(event.data) in self._pings:
            answered = bytes(event.data)
            now = self.loop.time()
            for payload in list(self._pings):
                waiter, since = self._pings.pop(payload)
                self.last_ping_rtt = now - since
                if not waiter.done():
                    waiter.set_result(self.last_ping_rtt)
                if payload == answered:
                    return
        super().handle_pong(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """A line that went down without a close frame was cut: uvicorn would call that 1005."""
        if self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})
        super().connection_lost(exc)
        for waiter, _ in (self._pings or {}).values():
            _give_up(waiter)

    def data_received(self, data: bytes) -> None:
        """A handshake that ``websockets`` does not parse is no event, so uvicorn never answers it."""
        if self._discarding:
            # the line is closed when it has gone quiet, and before its time is over
            self._close_in(limits.REFUSED_QUIET_S)
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = True
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_HANDSHAKE)
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        """A message on an open connection needs no state machine: two bytes of header and the payload (RFC 6455 5.2).

        Everything else, the handshake, closing, compression, is uvicorn's own.
        """
        if message["type"] != "websocket.send" or not self._is_plainly_open():
            await super().send(message)
            if self.initial_response is not None and self.close_sent:
                # a whole refusal is an answer too; uvicorn would log an error for each (0.54)
                self.handshake_complete = True
            return
        if not self.writable.is_set():
            await self.writable.wait()
            if not self._is_plainly_open():
                await super().send(message)
                return
        text = message.get("text")
        if text is not None:
            self.transport.write(frame(0x81, text.encode()))
        else:
            self.transport.write(frame(0x82, message.get("bytes") or b""))

    def _is_plainly_open(self) -> bool:
        """OPEN is the state between a sent 101 and a close frame either way; only uvicorn knows of a lost transport."""
        return self._is_open() and not self.conn.extensions

    def _is_open(self) -> bool:
        return self.conn.state is State.OPEN and not self.disconnected

    def handle_parser_exception(self) -> None:
        """Say why, and read away what the peer still sends: closing with input unread resets the line (RFC 1122
        4.2.2.13), and the peer would not hear it. What uvicorn does itself is to close at once.
        """
        if self._discarding or self.transport.is_closing():
            return
        close = self.conn.close_sent
        assert close is not None, "a parser fails with a close frame"
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._discarding = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._lingers_until = self.loop.time() + limits.REFUSED_LINGER_S
        self._close_in(limits.REFUSED_QUIET_S)

    def _close_in(self, delay_s: float) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        when = min(self.loop.time() + delay_s, self._lingers_until)
        self.close_timer = self.loop.call_at(when, self.transport.close)

    def handle_cont(self, event: Frame) -> None:
        """A message in endless small fragments costs far more memory than its bytes (RFC 6455 10.4)."""
        if len(self.frames) >= limits.FRAGMENTS_MAX:
            self.frames = []
            self.conn.fail(1009, f"a message of more than {limits.FRAGMENTS_MAX} fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Text that is not UTF-8 gets a reason, and no traceback of ours in the log (RFC 6455 8.1)."""
        if self.curr_msg_data_type == "text":
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError as error:
                self.frames = []
                self.conn.fail(1007, f"text that is not UTF-8: {error.reason} at byte {error.start}")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """A peer that pings and does not read makes us store its pongs (RFC 6455 5.5.2)."""
        if self._discarding:
            return
        before = self.transport.get_write_buffer_size()
        super().handle_ping()
        # only pongs count: a slow reader of large messages may ping as well
        stored = self.transport.get_write_buffer_size() - before
        self._unread_pongs_bytes = 0 if self.writable.is_set() else self._unread_pongs_bytes + stored
        if self._unread_pongs_bytes > limits.UNREAD_PONGS_BYTES_MAX:
            self.abort()

    def keepalive_timeout(self) -> None:
        """No pong: a close would wait for a flush that never comes. What uvicorn does then is tidy up.

        While the application takes nothing we read nothing, pongs included: then the kernel looks after the peer.
        """
        if self.read_paused and not self.close_sent and not self.transport.is_closing():
            self.pong_timer = None
            self.schedule_ping()
            return
        if not self.close_sent:
            self.abort()
        super().keepalive_timeout()


class HttpProtocol(_Droppable, HttpToolsProtocol):
    """The ``http=`` class: uvicorn's own on httptools, with a cap and a deadline on the head of each request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # the bytes that come now belong to the head of a request, or would begin one
        self._in_head = True
        # bytes that came since a head, a part of a body or a whole message was complete, and how often one was
        self._idle_bytes = 0
        self._progress = 0
        self._deadline: asyncio.TimerHandle | None = None
        # refused, or handed over to the WebSocket protocol: whatever else comes is not read here
        self._finished = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that sends nothing has the same deadline as one that never ends its head."""
        super().connection_made(transport)
        let_kernel_judge(transport)
        self._arm_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._disarm_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count raw bytes that complete nothing: counting complete headers misses one that never ends."""
        if self._finished:
            return
        if self._in_head:
            self._arm_deadline()
        progress = self._progress
        super().data_received(data)
        self._idle_bytes = self._idle_bytes + len(data) if self._progress == progress else 0
        if self._idle_bytes > limits.HEAD_BYTES_MAX:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.extension()}  # type: ignore[dict-item]
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Not trailers: uvicorn would add them to the headers, behind the back of whoever has checked those."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: it may still be too large, when it came in one piece."""
        if self._finished:
            return
        self._in_head = False
        self._progress += 1
        self._disarm_deadline()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > limits.HEAD_BYTES_MAX:
            self._refuse_head()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Not of a request that was refused."""
        self._progress += 1
        if not self._finished:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """What comes next is a head again."""
        if self._finished:
            return
        super().on_message_complete()
        self._in_head = True
        self._progress += 1
        self._disarm_deadline()
        if self._answered():
            # it was answered before its body had come, and uvicorn's timer for idle connections has stopped since
            self._arm_deadline()

    def on_response_complete(self) -> None:
        """The rest of a body that nobody waits for any more has the time of a head."""
        super().on_response_complete()
        if self._answered() and not self._in_head:
            self._arm_deadline()

    def handle_websocket_upgrade(self) -> None:
        """From here on the bytes are frames."""
        if self._finished:
            return
        self._finished = True
        self._disarm_deadline()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Not into a response that is under way."""
        if self._answered():
            super().send_400_response(msg)
            return
        self._finished = True
        self._disarm_deadline()
        self._end_after_answer()

    def _end_after_answer(self) -> None:
        """Words of ours would land inside of a response: let it end, then close. Abort if it may wait for a body."""
        if self._in_head:
            self.cycle.keep_alive = False
        else:
            self.abort()

    def _answered(self) -> bool:
        """Whether the request that came last has its whole response, or there was none."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _arm_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(limits.HEAD_DEADLINE_S, self._on_deadline)

    def _disarm_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._in_head:
            sentence = f"the head of a request has {limits.HEAD_DEADLINE_S:g} s to arrive"
            self._refuse(b"408 Request Timeout", sentence)
        else:
            self.abort()

    def _refuse_head(self) -> None:
        self._refuse(
            b"431 Request Header Fields Too Large",
            f"the head of a request may have {limits.HEAD_BYTES_MAX} bytes: send fewer or shorter headers",
        )

    def _refuse(self, status: bytes, sentence: str) -> None:
        self._finished = True
        self._disarm_deadline()
        if not self._answered():
            self._end_after_answer()
            return
        if self.transport.is_closing():
            return
        body = sentence.encode() + b"\n"
        head = (
            b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
