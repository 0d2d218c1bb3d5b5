"""Our HTTP class for uvicorn, given to it through its public ``http=`` option.

A small subclass of uvicorn's own on httptools. It adds what an ASGI application cannot do for itself (CONTRACTS 8, 10):

* the scope extension ``tidewire`` (see ``wire.asgi``): abort a connection, see what the transport holds back;
* caps on the head of a request: bytes, and a deadline from its first byte to its last; no trailers.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tidewire import limits
from tidewire.wire.asgi import EXTENSION
from tidewire.wire.peers import abort_transport, let_kernel_judge


class HttpProtocol(HttpToolsProtocol):
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
        # a transport that is closing may still hold what nobody reads; one that is lost does not
        self._lost = False
        # what has come with the call that is being handled
        self._data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that sends nothing has the same deadline as one that never ends its head."""
        super().connection_made(transport)
        let_kernel_judge(transport)
        self._arm_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._lost = True
        self._disarm_deadline()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Drop the connection at once."""
        if not self._lost:
            abort_transport(self.transport)

    def pending_bytes(self) -> int:
        """What the transport holds back."""
        return 0 if self._lost else self.transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        """Count raw bytes that complete nothing: counting complete headers misses one that never ends."""
        if self._finished:
            return
        if self._in_head:
            self._arm_deadline()
        progress = self._progress
        self._data = data
        super().data_received(data)
        self._data = b""
        self._idle_bytes = self._idle_bytes + len(data) if self._progress == progress else 0
        if self._idle_bytes > limits.HEAD_BYTES_MAX:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"abort": self.abort, "pending_bytes": self.pending_bytes}}
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
        # called while httptools' HttpParserUpgrade is handled, which says where the request has ended
        upgrade = sys.exception()
        early = b"" if upgrade is None else self._data[upgrade.args[0] :]
        super().handle_websocket_upgrade()
        # both refer to this: it is through, and is not to wait for the garbage collector
        self.parser, self.scope = None, None  # type: ignore[assignment]
        if early:
            self.transport.get_protocol().data_received(early)  # type: ignore[attr-defined]

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
