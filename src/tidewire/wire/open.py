"""An open WebSocket on a transport, from the 101 to the end: frames in and out, pings, the closing handshake.

Who owns it (``Owner``: a route's events, a raw connection, a topic's reader) is told what comes and writes what goes.
There is no task here: a transport calls, and one wheel keeps everybody's deadlines.

What is written is gathered until the end of this pass of the event loop, and then written at once. While the peer
does not read it stays here; who writes looks at ``writable`` and waits for ``may_write``. Answers to pings do not wait
behind it.
"""

from __future__ import annotations

import asyncio
import enum
import random
import struct
from typing import Any, Protocol

from websockets.extensions.base import Extension

from tidewire import limits
from tidewire.clock import Clock, LoopClock
from tidewire.errors import Close, ConnectionClosed, closed_error
from tidewire.wire import frames
from tidewire.wire.frames import Message, Reader
from tidewire.wire.peers import abort_transport
from tidewire.wire.pings import KeepAlive, Pings, give_up
from tidewire.wire.wheel import Wheel

# what one read takes at most; less than the second is copied first, because small frames are read faster so
_READ_BYTES_MAX = 256 * 1024
_COPIED_BYTES = 16 * 1024
# what is gathered in one pass is written earlier when it is as much as this
_GATHER_BYTES_MAX = 64 * 1024
_FLUSHES_PER_PASS = 256


class Owner(Protocol):
    """Who hears an open socket. Called by the event loop; nothing here may block or raise."""

    def received(self, messages: list[Message]) -> None:
        """These came, in order: ``str`` for text, ``bytes`` for binary, ``Part`` for pieces of a larger one."""

    def ended(self, closed: ConnectionClosed) -> None:
        """It has ended so. Called once; nothing is received after it, and nothing can be written."""

    def must_wait(self) -> None:
        """The peer does not read: ``writable`` is false. What is written now waits here."""

    def may_write(self) -> None:
        """``writable`` is true again."""


class _Nobody:
    """The owner of a socket that has ended: the last one has heard so, and is held no longer."""

    __slots__ = ()

    def received(self, messages: list[Message]) -> None:
        pass

    def ended(self, closed: ConnectionClosed) -> None:
        pass

    def must_wait(self) -> None:
        pass

    def may_write(self) -> None:
        pass


_NOBODY = _Nobody()


class Shared:
    """What the connections of one server share: a wheel, and those that have written in this pass of the loop."""

    __slots__ = ("_written", "buffer", "clock", "connections", "loop", "wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: set[Any], clock: Clock | None = None) -> None:
        self.loop = loop
        self.clock = clock or LoopClock()
        self.wheel = Wheel(self.clock)
        # what comes is put here
        self.buffer = memoryview(bytearray(_READ_BYTES_MAX))
        # uvicorn's set, which it waits for at a shutdown
        self.connections = connections
        self._written: list[OpenSocket] = []

    def gather(self, socket: OpenSocket) -> None:
        """Flush ``socket`` at the end of this pass."""
        self._written.append(socket)
        if len(self._written) == 1:
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        written, self._written = self._written[:_FLUSHES_PER_PASS], self._written[_FLUSHES_PER_PASS:]
        if self._written:
            self.loop.call_soon(self._flush)
        for socket in written:
            socket.flush()


class _State(enum.IntEnum):
    OPEN = 0
    # our close frame is on its way, the peer's has not come
    CLOSING = 1
    # the peer broke the protocol and was told: what it still sends is read away
    DISCARDING = 2
    # the transport closes once it has written everything
    CLOSED = 3
    LOST = 4


class OpenSocket(asyncio.BufferedProtocol):
    """An open WebSocket. ``start`` takes the transport over.

    ``max_size``: bytes of one message. ``ping_interval_s``: None for no pings; ``ping_timeout_s``: None for waiting
    for ever. ``extension``: permessage-deflate as negotiated.
    """

    # a server holds thousands of these
    __slots__ = (
        "_extension",
        "_is_reading_paused",
        "_is_told",
        "_keep_alive",
        "_lingers_until",
        "_out",
        "_out_bytes",
        "_pings",
        "_shared",
        "_state",
        "_unread_pongs_bytes",
        "is_open",
        "latency_s",
        "owner",
        "reader",
        "sent",
        "spoke",
        "transport",
        "writable",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        shared: Shared,
        owner: Owner,
        *,
        max_size: int,
        ping_interval_s: float | None = None,
        ping_timeout_s: float | None = None,
        extension: Extension | None = None,
    ) -> None:
        self.transport = transport
        self.owner = owner
        # nothing waits for the peer to read: what is written now leaves now
        self.writable = True
        self.latency_s = 0.0
        self.spoke = 0
        self._shared = shared
        self._state = _State.OPEN
        # the same as a plain attribute: looked at for every message
        self.is_open = True
        # its limits may be changed
        self.reader = Reader(max_size=max_size, extension=extension)
        self._extension = extension
        # whole frames, gathered until the end of this pass or until the peer reads
        self._out: list[bytes] = []
        self._out_bytes = 0
        # the close frame of ours, once it is on its way
        self.sent: Close | None = None
        # the owner knows the end
        self._is_told = False
        self._is_reading_paused = False
        self._lingers_until = 0.0
        self._keep_alive = KeepAlive(ping_interval_s, ping_timeout_s) if ping_interval_s else None
        # the application's pings (made when needed)
        self._pings: Pings | None = None
        # pongs that wait for a peer that does not read
        self._unread_pongs_bytes = 0

    def start(self, early: bytes = b"") -> None:
        """Take the transport over. ``early``: what has come of frames already."""
        self._shared.connections.add(self)
        self.transport.set_protocol(self)
        if self._keep_alive is not None:
            self._shared.wheel.set(self, self._keep_alive.interval_s)
        if early:
            self.data_received(early)

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio's: where to put what has come. One for all: it is read before anything else can come."""
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio's: so much has come."""
        view = self._shared.buffer[:nbytes]
        self.data_received(bytes(view) if nbytes < _COPIED_BYTES else view)

    def data_received(self, data: bytes | memoryview) -> None:
        """Bytes have come; they are not looked at after this call."""
        if self._state >= _State.DISCARDING:
            if self._state is _State.DISCARDING:
                self._discard(data)
            return
        reader = self.reader
        messages = reader.feed(data)
        if messages and not self._is_told:
            self.owner.received(messages)
        if reader.controls:
            self._take_controls()
        if reader.close is not None:
            self._take_close(reader.close)
        elif reader.failure is not None:
            self._refuse(reader.failure)

    def pause_reading(self) -> None:
        """Read nothing more, pings and pongs included, until ``resume_reading``. Twice is nothing."""
        if not self._is_reading_paused and self._state is _State.OPEN:
            self._is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again. Twice is nothing."""
        if self._is_reading_paused:
            self._is_reading_paused = False
            if self._state is not _State.LOST:
                self.transport.resume_reading()
            if self.is_open and self._keep_alive is not None and self._keep_alive.has_deadline:
                # its pong may be in the kernel: time that we did not listen does not count
                self._shared.wheel.set(self, self._keep_alive.timeout_s or 0.0)

    def _take_controls(self) -> None:
        controls, self.reader.controls = self.reader.controls, []
        pongs = []
        for opcode, payload in controls:
            if opcode == frames.PING:
                pongs.append(frames.pong_frame(payload))
            else:
                self._take_pong(payload)
        if pongs and self._state <= _State.CLOSING:
            self._answer_pings(b"".join(pongs))

    def _answer_pings(self, pongs: bytes) -> None:
        """Ahead of all that waits here. A peer that pings and does not read makes us store its pongs (5.5.2)."""
        self.transport.write(pongs)
        # only pongs count: a slow reader of large messages may ping as well
        self._unread_pongs_bytes = 0 if self.writable else self._unread_pongs_bytes + len(pongs)
        if self._unread_pongs_bytes > limits.UNREAD_PONGS_BYTES_MAX:
            self.abort()

    def _take_pong(self, payload: bytes) -> None:
        """A pong answers its ping and all before it (5.5.3)."""
        now = self._shared.clock.now()
        latency_s = self._pings.answer(payload, now) if self._pings is not None else None
        if latency_s is not None:
            self.latency_s = latency_s
            return
        keep_alive = self._keep_alive
        latency_s = keep_alive.answer(payload, now) if keep_alive is not None else None
        if latency_s is not None and keep_alive is not None:
            self.latency_s = latency_s
            if self.is_open:
                self._shared.wheel.set(self, max(0.0, keep_alive.interval_s - latency_s))

    # Writing

    def write(self, data: bytes) -> bool:
        """Write whole frames at the end of this pass of the loop. Nothing once it is closing.

        Returns whether so much had gathered that it was written already: who writes more lets the loop run first.
        """
        if not self.is_open:
            return False
        if not self._out:
            self._shared.gather(self)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes < _GATHER_BYTES_MAX:
            return False
        self.flush()
        return True

    def send(self, message: str | bytes) -> bool:
        """Write a message; returns what ``write`` does. Small text is framed here: it is what most messages are."""
        if not self.is_open:
            return False
        if self._extension is not None:
            return self.write(frames.compressed_message(self._extension, message))
        if isinstance(message, str):
            payload = message.encode()
            if len(payload) < 126:
                return self.write(frames.SMALL_TEXT_HEADS[len(payload)] + payload)
        return self.write(frames.message_frame(message))

    def send_fragment(self, piece: str | bytes, *, is_first: bool, is_last: bool) -> bool:
        """Write a piece of a message (5.4); between the first and the last nothing else may be sent."""
        if self._state is not _State.OPEN:
            return False
        return self.write(frames.fragment(piece, self._extension, is_first=is_first, is_last=is_last))

    def flush(self) -> None:
        """Write what is gathered, unless the peer does not read."""
        if self._out and self.writable:
            self._write_out()

    def _write_out(self) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        if self._state is not _State.LOST:
            self.transport.write(data)

    def pending_bytes(self) -> int:
        """What is held back, here and in the transport."""
        return 0 if self._state is _State.LOST else self.transport.get_write_buffer_size() + self._out_bytes

    def pause_writing(self) -> None:
        """asyncio's: the peer does not read."""
        self.writable = False
        self.owner.must_wait()

    def resume_writing(self) -> None:
        """asyncio's: it does again."""
        self.writable = True
        self.flush()
        if self.writable and not self._is_told:
            self.owner.may_write()

    def ping(self, data: bytes | None) -> asyncio.Future[float]:
        """Send a ping now; the future gives the round trip in seconds. Raises what ``Pings.add`` raises."""
        payload = struct.pack("!Q", random.getrandbits(64)) if data is None else data
        waiter: asyncio.Future[float] = self._shared.loop.create_future()
        if self.is_open:
            self._pings = self._pings or Pings()
            self._pings.add(payload, waiter, self._shared.clock.now())
            self.transport.write(frames.ping_frame(payload))
        else:
            give_up(waiter)
        return waiter

    # Ending

    def _turn_to(self, state: _State) -> None:
        self._state = state
        self.is_open = False

    def close(self, code: int, reason: str = "", *, patience_s: float = limits.RAW_CLOSE_S) -> None:
        """Say goodbye behind what is written, and wait so long for the peer's close frame. Twice is nothing."""
        if self._state is not _State.OPEN:
            return
        close = Close(code, reason)
        # raises for a code that cannot be sent: nothing has happened then
        self._out.append(frames.close_frame(close))
        self.sent = close
        self._turn_to(_State.CLOSING)
        self.flush()
        self._shared.wheel.set(self, patience_s)
        self.resume_reading()

    def abort(self) -> None:
        """Drop it at once, with everything that waits for the peer."""
        if self._state is not _State.LOST:
            self._turn_to(_State.CLOSED)
            self._out.clear()
            self._out_bytes = 0
            abort_transport(self.transport)

    def shutdown(self) -> None:
        """uvicorn's: the server stops."""
        if self._state is _State.OPEN:
            self.close(1012, patience_s=limits.CLOSE_IN_A_HURRY_S)
            self._tell(closed_error(None, self.sent))
        elif self._state is not _State.LOST:
            self._shared.wheel.set(self, limits.CLOSE_IN_A_HURRY_S)

    def _take_close(self, received: Close) -> None:
        """The peer's close frame: the answer to ours, or to be answered with the same code (5.5.1)."""
        if self._state is _State.OPEN:
            self.sent = received
            self._out.append(frames.close_frame(received))
            closed = closed_error(received, received, received_first=True)
        elif self._state is _State.CLOSING:
            closed = closed_error(received, self.sent, received_first=False)
        else:
            return
        # before the owner hears of it: nothing it does about it may be written any more
        self._close_transport()
        self._tell(closed)

    def _refuse(self, failure: Close) -> None:
        """Say why, and read away what the peer still sends: closing with input unread resets the line (RFC 1122
        4.2.2.13), and the peer would not hear it.
        """
        if self._state >= _State.DISCARDING or self.transport.is_closing():
            return
        if self._state is _State.OPEN:
            self.sent = failure
            self._out.append(frames.close_frame(failure))
        self._turn_to(_State.DISCARDING)
        if self._out:
            self._write_out()
        self.resume_reading()
        self._lingers_until = self._shared.clock.now() + limits.REFUSED_LINGER_S
        self._shared.wheel.set(self, min(limits.REFUSED_QUIET_S, limits.REFUSED_LINGER_S))
        self._tell(closed_error(None, self.sent))

    def _discard(self, data: bytes | memoryview) -> None:
        """The line is closed when it has gone quiet, and before its time is over."""
        left_s = self._lingers_until - self._shared.clock.now()
        # a whole close frame is the answer to ours: nothing comes after it (5.5.1, 7.1.1)
        is_answer = len(data) >= 6 and data[0] == 0x88 and len(data) == 6 + (data[1] & 0x7F)
        if is_answer or left_s <= 0:
            # not by the wheel: data that comes in every pass would move a deadline on for ever
            self._close_transport()
        else:
            self._shared.wheel.set(self, min(limits.REFUSED_QUIET_S, left_s))

    def _close_transport(self) -> None:
        """Everything is said: close once the peer has taken it, or its time is over."""
        self._turn_to(_State.CLOSED)
        if self._out:
            self._write_out()
        self._shared.wheel.set(self, limits.RAW_CLOSE_S)
        self.transport.close()

    def _tell(self, closed: ConnectionClosed) -> None:
        if not self._is_told:
            self._is_told = True
            owner, self.owner = self.owner, _NOBODY
            owner.ended(closed)

    def on_time(self) -> None:
        """The wheel's: a ping is due, a pong did not come, or a goodbye has taken its time."""
        if self._state is _State.OPEN and self._keep_alive is not None:
            self._ping_on_time(self._keep_alive)
        elif self._state is _State.CLOSED or (self._state is _State.CLOSING and self.pending_bytes()):
            self.abort()
        elif self._state is not _State.LOST:
            self._close_transport()

    def _ping_on_time(self, keep_alive: KeepAlive) -> None:
        if not keep_alive.has_deadline:
            self.transport.write(frames.ping_frame(keep_alive.begin(self._shared.clock.now())))
        elif not self._is_reading_paused:
            # a close would wait behind what the peer does not read
            self.abort()
            return
        # while the application takes nothing we read nothing, pongs included: the kernel looks after the peer
        self._shared.wheel.set(self, keep_alive.timeout_s or keep_alive.interval_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: there is no line any more. One that went down without a close frame was cut."""
        self._turn_to(_State.LOST)
        self.writable = False
        self._out.clear()
        self._out_bytes = 0
        self._shared.wheel.clear(self)
        self._shared.connections.discard(self)
        self._tell(closed_error(None, self.sent))
        if self._pings is not None:
            self._pings.give_up()
