"""``connect``: a raw connection to any WebSocket server, once or again and again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from tidewire.client.dial import PING_S, Call, Cut, dial
from tidewire.client.errors import RAW_HINTS, Disconnected, NotAWebSocket, Refused
from tidewire.client.reconnect import Advice, Backoff, ComeBack, advise_close
from tidewire.client.socket import ClientSocket
from tidewire.client.target import Headers, check_headers, parse_address
from tidewire.errors import ClientError, ConnectionClosed, closed_error
from tidewire.limits import CLOSE_IN_A_HURRY_S, RAW_MESSAGE_BYTES_MAX
from tidewire.wire.connection import Connection

logger = logging.getLogger("tidewire")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection of a reconnecting loop ended, or why there was none; what a ``policy`` is asked about.

    ``code`` and ``reason``: the close code (1006 for a cut line). ``status``: the HTTP status of a refused handshake.
    ``error``: what would be raised. ``advice``: what is done unless the policy says otherwise.
    """

    advice: Advice
    error: ClientError
    code: int | None = None
    reason: str = ""
    status: int | None = None


Policy = Callable[[Ending], Advice]


def connect(
    url: str,
    *,
    headers: Headers | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    ssl: tls.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
    compression: Literal["deflate"] | None = None,
    max_size: int = RAW_MESSAGE_BYTES_MAX,
    open_timeout_s: float = 10.0,
    close_timeout_s: float = 10.0,
    ping_interval_s: float = PING_S,
    ping_timeout_s: float = PING_S,
    policy: Policy | None = None,
    backoff: Backoff | None = None,
) -> Connecting:
    """Connect to a WebSocket server.

    ::

        async with connect("ws://127.0.0.1:8765") as connection:
            await connection.send("hello")
            print(await connection.recv())

    Leaving the block closes with 1000, with 1011 after an error, and with 1001 when it is cancelled (then it waits a
    second at most). ``await connect(url)`` gives the ``Connection`` too, which is then yours to close. A loop over it
    reconnects::

        async for connection in connect("wss://feed.example/v1"):
            async for message in connection:
                ...

    Each turn of that loop is a new connection. After one has ended the next comes with a delay that grows, fully
    jittered, also when the server accepts and closes at once, and falls back after a connection that was healthy for
    a while (``backoff``). What the server said decides whether it goes on: 401, 403, 404 or 1008 end the loop with
    ``Refused``; 429 and its Retry-After slow it down; 1001, 1012, 1013 and cut lines come back soon (``policy`` may
    decide otherwise). Inside of such a loop ``async for message in connection`` ends quietly however the connection
    ended; what ``recv`` and ``send`` raise then is for the turn's body to catch.

    ``url``: ws or wss; http and https mean the same. ``headers``: a mapping or pairs. ``origin``: for servers that ask
    for one. ``subprotocols``: in the order of preference. ``ssl``: a client's context, by default the system's trust.
    ``proxy``: a URL, True for the system's (never for loopback), None for none. ``compression="deflate"``: offer the
    server to compress messages (RFC 7692). ``max_size``: bytes of one message, inflated; a larger one closes with
    1009, naming both numbers. ``open_timeout_s``: for the whole handshake.

    Raises ``BadURL`` and ``ValueError`` here; connecting raises ``NothingListens`` (also a ``ConnectionRefusedError``),
    ``NoAnswer`` (also a ``TimeoutError``), ``Refused``, ``NotAWebSocket``.
    """
    address = parse_address(url)
    if ssl is not None and not address.is_secure:
        raise ValueError(f"{address.shown} is not encrypted: write wss://, or leave ssl out")
    call = Call(
        address.url,
        address.shown,
        NotAWebSocket,
        check_headers(headers),
        origin,
        tuple(subprotocols),
        ssl,
        None if proxy is True and address.is_loopback else proxy,
        max_size,
        open_timeout_s,
        close_timeout_s,
        ping_interval_s,
        ping_timeout_s,
        compression,
        RAW_HINTS,
    )
    return Connecting(call, policy, backoff or Backoff())


class Connecting:
    """What ``connect`` gives: ``async with`` it, ``await`` it, or loop over it."""

    def __init__(self, call: Call, policy: Policy | None, backoff: Backoff) -> None:
        self._call = call
        self._policy = policy
        self._backoff = backoff
        # what ``async with`` has to close
        self._link: ClientSocket | None = None

    def __await__(self) -> Generator[object, None, Connection]:
        return self._connect().__await__()

    async def __aenter__(self) -> Connection:
        self._link = await self._open()
        return Connection(self._link)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        link, self._link = self._link, None
        if link is not None:
            await _say_goodbye(link, error)

    async def _connect(self) -> Connection:
        return Connection(await self._open())

    async def _open(self) -> ClientSocket:
        try:
            return ClientSocket(await dial(self._call))
        except Cut as cut:
            raise cut.error from None

    async def __aiter__(self) -> AsyncIterator[Connection]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                # the loop around it deals with how it ends
                link = ClientSocket(await dial(self._call))
            except Cut as cut:
                ending = Ending(cut.advice, cut.error, status=getattr(cut.error, "status", None))
            else:
                self._backoff.connected(loop.time())
                try:
                    yield Connection(link, ends_quietly=True)
                except BaseException as error:
                    await _say_goodbye(link, error)
                    raise
                await link.close(1000, "")
                ending = self._explain(link)
            if not await self._pause(ending, loop):
                return

    def _explain(self, link: ClientSocket) -> Ending:
        ended = link.ended or closed_error(None, None)
        advice, is_refusal = _advise(ended, closed_here=link.closed_here)
        error: ClientError
        if is_refusal:
            error = Refused(self._call.shown, code=ended.code, detail=ended.reason or advice.reason)
        else:
            error = Disconnected(self._call.shown, ended.code, advice.reason)
        return Ending(advice, error, ended.code, ended.reason)

    async def _pause(self, ending: Ending, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait as long as is advised; False when that is for ever."""
        advice = ending.advice if self._policy is None else self._policy(ending)
        if advice.come_back is ComeBack.END:
            return False
        if advice.come_back is ComeBack.STOP:
            raise ending.error
        delay_s = self._backoff.failed(loop.time(), advice)
        logger.info("%s: %s; next attempt in %.1f s", self._call.shown, advice.reason, delay_s)
        await asyncio.sleep(delay_s)
        return True


def _advise(ended: ConnectionClosed, *, closed_here: bool) -> tuple[Advice, bool]:
    """What an ending advises, and whether it is a refusal by the server."""
    if ended.sent is None or ended.received_first:
        advice = advise_close(ended.code, ended.reason)
        if advice.come_back is ComeBack.END:
            # of a topic it would be the end; a raw connection has just ended, and the loop is there to go on
            advice = Advice(ComeBack.FAST, f"the connection was closed ({ended.code})")
        return advice, advice.come_back is ComeBack.STOP
    if closed_here:
        return Advice(ComeBack.FAST, "it was closed here"), False
    sent = ended.sent
    if sent.code == 1009:
        return Advice(ComeBack.STOP, f"a message is too large: raise max_size to take it ({sent.reason})"), False
    if sent.code == 1011:
        return Advice(ComeBack.FAST, "the server answers no pings"), False
    return Advice(ComeBack.SLOW, f"the server broke the WebSocket protocol ({sent.reason or sent.code})"), False


async def _say_goodbye(link: ClientSocket, error: BaseException | None) -> None:
    """Close as a body has ended: well, with an error (1011, as ``websockets`` has it), or in a hurry.

    That is when it was cancelled, and when a loop was left (a GeneratorExit, for whatever reason; nobody waits for it).
    """
    if error is None:
        await link.close(1000, "")
    elif isinstance(error, Exception):
        await link.close(1011, "")
    else:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_IN_A_HURRY_S):
                await link.close(1000 if isinstance(error, GeneratorExit) else 1001, "")
