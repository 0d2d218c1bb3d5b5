"""One connection to one topic: opened, read, closed, and every way it can end turned into advice.

The ``websockets`` library does the reading: it pauses the socket when 16 frames wait, so a consumer that takes
its time costs the server an eviction and a resume, never memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, TypeAlias

from tidewire.client.dial import PING_S, Call, Cut, dial, silent
from tidewire.client.envelope import Envelope, Garbage, Header, parse_envelope, parse_header
from tidewire.client.errors import Disconnected, NotATopic, Refused
from tidewire.client.reconnect import Advice, ComeBack, advise_close
from tidewire.client.target import Target

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

Finalizer: TypeAlias = "weakref.finalize[[asyncio.AbstractEventLoop, asyncio.Transport], object]"

CLOSE_S = 1.0
"""What the peer gets to answer our close frame."""


class Link:
    """A live connection whose header has been read."""

    def __init__(self, socket: ClientConnection, target: Target, header: Header) -> None:
        self._socket = socket
        self._target = target
        # what the server said first
        self.header = header

    async def receive(self) -> Envelope:
        """The next envelope; cancelling loses nothing. Raises ``Cut``."""
        from websockets.exceptions import ConnectionClosed

        try:
            frame = await self._socket.recv()
        except ConnectionClosed as closed:
            raise explain_close(closed, self._target) from None
        try:
            return parse_envelope(frame)
        except Garbage as garbage:
            self.abort()
            raise _not_a_topic(self._target, str(garbage)) from None

    async def close(self) -> None:
        """Say goodbye; the peer gets a second to answer, then the socket is gone."""
        await _close(self._socket)

    def abort(self) -> None:
        """Drop the socket at once, without a word."""
        self._socket.transport.abort()

    def abort_when_forgotten(self, owner: object) -> Finalizer:
        """Drop the socket when nobody holds ``owner`` any more (a loop over it was left by ``break``)."""
        finalizer = weakref.finalize(owner, _abort_soon, self._socket.loop, self._socket.transport)
        finalizer.atexit = False
        return finalizer


def _abort_soon(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and its sockets with it
        loop.call_soon_threadsafe(transport.abort)


async def open_link(
    target: Target,
    *,
    since: str | None,
    max_per_s: float | None,
    headers: list[tuple[str, str]],
    origin: str | None,
    open_timeout_s: float,
    max_size_bytes: int,
) -> Link:
    """Connect and read the header, both within ``open_timeout_s``. Raises ``Cut``."""
    from websockets.exceptions import ConnectionClosed

    deadline = asyncio.get_running_loop().time() + open_timeout_s
    call = Call(
        target.ws_url(since, max_per_s),
        target.shown,
        NotATopic,
        headers,
        origin,
        proxy=None if target.is_loopback else True,
        max_size=max_size_bytes,
        open_timeout_s=open_timeout_s,
        close_timeout_s=CLOSE_S,
        ping_interval_s=PING_S,
        ping_timeout_s=PING_S,
    )
    socket = await dial(call)
    try:
        async with asyncio.timeout_at(deadline):
            frame = await socket.recv()
        return Link(socket, target, parse_header(frame))
    except TimeoutError:
        socket.transport.abort()
        raise silent(call, f"the WebSocket opened, and nothing was said within {open_timeout_s:g} s") from None
    except ConnectionClosed as closed:
        raise explain_close(closed, target) from None
    except Garbage as garbage:
        await _close(socket)
        raise _not_a_topic(target, str(garbage)) from None
    except BaseException:
        socket.transport.abort()
        raise


async def _close(socket: ClientConnection) -> None:
    """The closing handshake, within ``CLOSE_S``. What is unread is read away: the peer's goodbye comes behind it."""
    draining = asyncio.ensure_future(_drain(socket))
    try:
        await socket.close()
    except BaseException:
        socket.transport.abort()
        raise
    finally:
        draining.cancel()


async def _drain(socket: ClientConnection) -> None:
    from websockets.exceptions import ConcurrencyError, ConnectionClosed

    with contextlib.suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await socket.recv()


def explain_close(closed: ConnectionClosed, target: Target) -> Cut:
    """A close frame, or the lack of one, as advice and error."""
    rcvd, sent = closed.rcvd, closed.sent
    if rcvd is None or closed.rcvd_then_sent is False:
        if sent is not None and sent.code == 1009:
            why = "a message was larger than max_size_bytes; raise that limit to read it"
            return Cut(Advice(ComeBack.STOP, why), Disconnected(target.shown, 1009, why))
        if sent is not None and sent.code in (1002, 1007):
            return _not_a_topic(target, f"it broke the WebSocket protocol ({sent.reason or sent.code})")
        why = "the peer does not answer pings" if sent is not None and sent.code == 1011 else "the line was cut"
        return Cut(Advice(ComeBack.FAST, why), Disconnected(target.shown, 1006, why))
    advice = advise_close(rcvd.code, rcvd.reason)
    if advice.come_back is ComeBack.STOP:
        return Cut(advice, Refused(target.shown, code=rcvd.code, detail=rcvd.reason or advice.reason))
    return Cut(advice, Disconnected(target.shown, rcvd.code, advice.reason))


def _not_a_topic(target: Target, why: str) -> Cut:
    return Cut(Advice(ComeBack.STOP, why), NotATopic(target.shown, why))
