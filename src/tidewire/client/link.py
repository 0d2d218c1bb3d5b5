"""One connection to one topic: opened, read, closed, and every way it can end turned into advice.

The ``websockets`` library does the reading: it pauses the socket when 16 frames wait, so a consumer that takes
its time costs the server an eviction and a resume, never memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
import time
import weakref
from typing import TYPE_CHECKING, TypeAlias

from tidewire.client.envelope import Envelope, Garbage, Header, parse_envelope, parse_header
from tidewire.client.errors import Disconnected, NoAnswer, NotATopic, NothingListens, Refused
from tidewire.client.reconnect import Advice, ComeBack, advise_close, advise_status, parse_retry_after
from tidewire.client.refusal import read_detail
from tidewire.client.target import Target
from tidewire.errors import ClientError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

Finalizer: TypeAlias = "weakref.finalize[[asyncio.AbstractEventLoop, asyncio.Transport], object]"

PING_S = 20.0
"""A ping this often, and as long to wait for its pong: a dead peer is noticed within twice that."""
CLOSE_S = 1.0
"""What the peer gets to answer our close frame."""


class Cut(Exception):
    """A connection ended or could not be made: what to do, and the error to raise if nothing is."""

    def __init__(self, advice: Advice, error: ClientError) -> None:
        self.advice = advice
        self.error = error
        super().__init__(str(error))


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
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy
    from websockets.typing import Origin

    deadline = asyncio.get_running_loop().time() + open_timeout_s
    try:
        socket = await connect(
            target.ws_url(since, max_per_s),
            additional_headers=headers,
            origin=None if origin is None else Origin(origin),
            compression=None,
            proxy=None if target.is_loopback else True,
            open_timeout=open_timeout_s,
            close_timeout=CLOSE_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            max_size=max_size_bytes,
        )
    except InvalidHandshake as refusal:
        raise explain_handshake(refusal, target) from None
    except TimeoutError:
        raise _silent(target, f"no answer to the handshake within {open_timeout_s:g} s") from None
    except OSError as error:
        raise explain_os_error(error, target) from None
    except (InvalidProxy, ImportError) as error:
        why = f"the proxy that this machine is set to use cannot be used ({error})"
        raise Cut(Advice(ComeBack.STOP, why), NothingListens(target.shown, why)) from None
    try:
        async with asyncio.timeout_at(deadline):
            frame = await socket.recv()
        return Link(socket, target, parse_header(frame))
    except TimeoutError:
        socket.transport.abort()
        raise _silent(target, f"the WebSocket opened, and nothing was said within {open_timeout_s:g} s") from None
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


def explain_handshake(refusal: InvalidHandshake, target: Target) -> Cut:
    """A handshake that was answered, but not with a WebSocket."""
    from websockets.exceptions import InvalidMessage, InvalidStatus, ProxyError

    if isinstance(refusal, InvalidStatus):
        return _explain_status(refusal, target)
    if isinstance(refusal, ProxyError):
        error: ClientError = NothingListens(target.shown, f"the proxy did not connect: {refusal}")
        return Cut(Advice(ComeBack.SLOW, "the proxy did not connect"), error)
    if isinstance(refusal, InvalidMessage) and isinstance(refusal.__cause__, EOFError | OSError):
        why = "the line was cut during the handshake"
        return Cut(Advice(ComeBack.FAST, why), NoAnswer(target.shown, why))
    return _not_a_topic(target, f"it does not answer a WebSocket handshake ({refusal})")


def _explain_status(refusal: InvalidStatus, target: Target) -> Cut:
    response = refusal.response
    status, wall_s = response.status_code, time.time()
    retry_after = response.headers.get("Retry-After")
    advice = advise_status(status, retry_after, wall_s)
    if status < 400:
        return _not_a_topic(target, f"it answers plain HTTP with {status} and opens no WebSocket")
    detail = read_detail(bytes(response.body), response.headers.get("Content-Type", ""))
    after_s = parse_retry_after(retry_after, wall_s)
    return Cut(advice, Refused(target.shown, status=status, detail=detail, retry_after_s=after_s))


def explain_os_error(error: OSError, target: Target) -> Cut:
    """A socket that could not be connected."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted ({error.verify_message})"
        return Cut(Advice(ComeBack.STOP, why), NothingListens(target.shown, why))
    if is_refused(error):
        return Cut(Advice(ComeBack.FAST, "nothing listens there"), NothingListens(target.shown))
    why = error.strerror or str(error) or type(error).__name__
    return Cut(Advice(ComeBack.FAST, f"cannot reach it: {why}"), NothingListens(target.shown, why))


def is_refused(error: BaseException) -> bool:
    """Whether the address answers, but nothing listens there. asyncio joins several addresses into one text."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _silent(target: Target, why: str) -> Cut:
    return Cut(Advice(ComeBack.SLOW, why), NoAnswer(target.shown, why))


def _not_a_topic(target: Target, why: str) -> Cut:
    return Cut(Advice(ComeBack.STOP, why), NotATopic(target.shown, why))
