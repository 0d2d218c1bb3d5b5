"""A transport without a socket, an owner that remembers, and an open WebSocket on both: no ports, no time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from tests.wire.frames import CLOSE, TEXT, Frame, split
from tidewire.errors import Close, ConnectionClosed
from tidewire.testing import ManualClock
from tidewire.wire.frames import Message
from tidewire.wire.open import OpenSocket, Shared

HIGH_WATER = 64 * 1024


class FakeTransport(asyncio.Transport):
    """What asyncio's and uvloop's transports do, as far as they agree; where they do not, the stricter of both.

    ``stalled``: the peer reads nothing, so what is written stays in the buffer. Nothing may be written once the
    protocol was told that the connection is lost (uvloop raises then).
    """

    def __init__(self) -> None:
        super().__init__()
        # one for each call of write
        self.writes: list[bytes] = []
        # what a peer that reads would have, and what is left here of a peer that does not
        self.taken = b""
        self.buffered = b""
        self.stalled = False
        self.is_paused = False
        # how often it was paused, resumed, aborted
        self.pauses = self.resumes = self.aborts = 0
        self.closed = False
        self.lost = False
        self._is_ending = False
        self._protocol: Any = None
        self._is_over_water = False

    # What the socket calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def get_write_buffer_size(self) -> int:
        return len(self.buffered)

    def is_closing(self) -> bool:
        return self.closed or bool(self.aborts)

    def is_reading(self) -> bool:
        return not self.is_paused and not self.is_closing()

    def write(self, data: Any) -> None:
        assert not self.lost, f"written to a transport that is lost: {data!r}"
        if self.aborts:
            return
        self.writes.append(bytes(data))
        self.buffered += data
        if not self.stalled:
            self._drain()
        if len(self.buffered) > HIGH_WATER and not self._is_over_water:
            self._is_over_water = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        if self.is_reading():
            self.is_paused = True
            self.pauses += 1

    def resume_reading(self) -> None:
        if self.is_paused and not self.is_closing():
            self.is_paused = False
            self.resumes += 1

    def close(self) -> None:
        if not self.is_closing():
            self.closed = True
            if not self.buffered:
                self._end()

    def abort(self) -> None:
        self.aborts += 1
        self.buffered = b""
        self._end()

    # What a test does in the peer's place

    def deliver(self, data: bytes) -> None:
        """Bytes have come; asyncio gives none to a protocol that has paused, or closed."""
        assert self.is_reading(), "nobody reads"
        self._protocol.data_received(data)

    def stall(self) -> None:
        """The peer reads nothing from now on."""
        self.stalled = True

    def unstall(self) -> None:
        """The peer reads all there is, and goes on reading."""
        self.stalled = False
        self._drain()
        if self._is_over_water:
            self._is_over_water = False
            self._protocol.resume_writing()
        if self.closed and not self.buffered:
            self._end()

    def lose(self) -> None:
        """The line is cut."""
        self.aborts += 1
        self._end()

    def _drain(self) -> None:
        self.taken += self.buffered
        self.buffered = b""

    def _end(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        self.lost = True
        self._protocol.connection_lost(None)

    @property
    def frames(self) -> list[Frame]:
        """The frames that the peer has read; nothing else may be between them."""
        found, rest = split(self.taken)
        assert rest == b"", f"half a frame: {rest!r}"
        return found


class FakeOwner:
    """Remembers what it is told; ``on_received`` and ``on_ended`` are what it does about it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        # how many came with each call
        self.batches: list[int] = []
        self.ends: list[ConnectionClosed] = []
        # "wait" and "write", in order
        self.turns: list[str] = []
        self.on_received: Callable[[], None] = _do_nothing
        self.on_ended: Callable[[], None] = _do_nothing

    def received(self, messages: list[Message]) -> None:
        assert not self.ends, f"received after the end: {messages!r}"
        assert messages, "nothing came"
        self.messages += messages
        self.batches.append(len(messages))
        self.on_received()

    def ended(self, closed: ConnectionClosed) -> None:
        self.ends.append(closed)
        self.on_ended()

    def must_wait(self) -> None:
        self.turns.append("wait")

    def may_write(self) -> None:
        assert not self.ends, "nothing can be written after the end"
        self.turns.append("write")

    @property
    def end(self) -> tuple[Close | None, Close | None, bool | None]:
        """What it was told of the end, which it was told once: received, sent, received first."""
        assert len(self.ends) == 1, self.ends
        return self.ends[0].rcvd, self.ends[0].sent, self.ends[0].received_first


def _do_nothing() -> None:
    """What an owner does by default."""


class Bench:
    """An open socket between a fake transport and a fake owner, on a clock moved by hand. Needs a running loop."""

    def __init__(self, *, early: bytes = b"", **options: Any) -> None:
        self.clock = ManualClock()
        self.connections: set[Any] = set()
        self.shared = Shared(asyncio.get_running_loop(), self.connections, self.clock)
        self.transport = FakeTransport()
        self.owner = FakeOwner()
        self.socket = OpenSocket(self.transport, self.shared, self.owner, **{"max_size": 1 << 20, **options})
        self.socket.start(early)

    @property
    def timers(self) -> int:
        """How many stand on the wheel."""
        return len(self.shared.wheel)


async def passes(n: int = 1) -> None:
    """Let the event loop go round: everything that is due now, and nothing else, is done."""
    for _ in range(n):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def opens(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test inside of an event loop, with a bound."""

    def wrapped(**values: Any) -> None:
        run(lambda: test(**values))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    # what pytest fills in
    wrapped.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return wrapped


def texts(bench: Bench) -> list[bytes]:
    return [one.payload for one in bench.transport.frames if one.opcode == TEXT]


def said(bench: Bench) -> list[tuple[int, str]]:
    """The close frames that the peer has read."""
    return [one.close for one in bench.transport.frames if one.opcode == CLOSE]
