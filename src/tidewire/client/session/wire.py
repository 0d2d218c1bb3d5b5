"""The socket of a session: opened by the ``websockets`` library, and each way it ends as advice and a sentence."""

from __future__ import annotations

import ssl as tls
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from tidewire.client.dial import Call, dial, strange
from tidewire.client.errors import TOPIC_HINTS, Disconnected, NotASession, Refused
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.session.advice import advise_close
from tidewire.client.socket import ClientSocket
from tidewire.client.target import Address
from tidewire.errors import ClientError, ConnectionClosed
from tidewire.protocol.codecs import Codec

MAX_SIZE_BYTES: Final = 16 * 1024 * 1024
"""One frame of the server's, which may carry many messages."""
_HINTS = {
    **TOPIC_HINTS,
    403: "ask with credentials that may, from an allowed origin, and by the URL of the router (http://host/live)",
    404: "check the URL: it is that of the router, such as http://host/live",
}


class Wire(Protocol):
    """An open connection. After its end ``send`` and ``receive`` raise ``ConnectionClosed``."""

    async def send(self, message: str | bytes) -> None:
        """Write one frame; waits while the server does not read."""

    async def receive(self) -> str | bytes:
        """The next frame."""

    async def close(self, code: int, reason: str) -> None:
        """The closing handshake."""

    def abort(self) -> None:
        """Drop the line at once."""


OpenWire = Callable[[], Awaitable[Wire]]
"""Opens a connection, or raises ``Cut``."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What every handshake says and allows."""

    headers: list[tuple[str, str]]
    origin: str | None
    ssl: tls.SSLContext | None
    open_timeout_s: float
    max_size_bytes: int


def opener(address: Address, codec: Codec, handshake: Handshake) -> OpenWire:
    """How to open the session at ``address``."""
    call = Call(
        address.url,
        address.shown,
        NotASession,
        handshake.headers,
        handshake.origin,
        # SDKs offer a subprotocol for Protobuf only
        () if codec.is_text else (codec.subprotocol,),
        handshake.ssl,
        None if address.is_loopback else True,
        handshake.max_size_bytes,
        handshake.open_timeout_s,
        hints=_HINTS,
    )

    async def open_wire() -> Wire:
        socket = ClientSocket(await dial(call))
        if not codec.is_text and socket.subprotocol != codec.subprotocol:
            socket.abort()
            raise strange(call, f"it does not offer {codec.subprotocol}; leave protobuf=True out")
        return socket

    return open_wire


def explain_end(closed: ConnectionClosed, shown: str) -> tuple[Advice, ClientError]:
    """What to do after a connection has ended so, and the error to raise if nothing is done."""
    if closed.rcvd is not None and closed.received_first is not False:
        advice = advise_close(closed.rcvd.code, closed.rcvd.reason)
        if advice.come_back is ComeBack.STOP:
            return advice, Refused(shown, code=closed.rcvd.code, detail=closed.rcvd.reason or advice.reason)
        return advice, Disconnected(shown, closed.rcvd.code, advice.reason)
    sent = closed.sent
    if sent is not None and sent.code == 1009:
        why = "a frame was larger than max_size_bytes; raise that limit to read it"
        return Advice(ComeBack.STOP, why), Disconnected(shown, 1009, why)
    if sent is not None and sent.code in (1002, 1007):
        why = f"the server broke the WebSocket protocol ({sent.reason or sent.code})"
        return Advice(ComeBack.SLOW, why), Disconnected(shown, 1006, why)
    why = "the server answers no pings" if sent is not None and sent.code == 1011 else "the line was cut"
    return Advice(ComeBack.FAST, why), Disconnected(shown, 1006, why)
