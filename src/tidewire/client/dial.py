"""Opening a WebSocket with the ``websockets`` library, and every way that fails turned into advice and a sentence."""

from __future__ import annotations

import errno
import ssl as tls
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tidewire.client.errors import TOPIC_HINTS, BadURL, NoAnswer, NothingListens, Refused
from tidewire.client.keepalive import watch
from tidewire.client.reconnect import Advice, ComeBack, advise_status, parse_retry_after
from tidewire.client.refusal import read_detail
from tidewire.client.target import parse_address
from tidewire.errors import ClientError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import InvalidHandshake, InvalidStatus

PING_S = 20.0
"""A ping this often, and as long to wait for its pong: a dead peer is noticed within twice that."""

_TRUST: Final = "if you know the server, name a file with its authority in SSL_CERT_FILE, or give a fitting ssl context"
# The numbers of OpenSSL (x509_vfy.h) for what newcomers meet; what else it finds is quoted.
_BAD_CERTIFICATES: Final[dict[int, tuple[str, str]]] = {
    9: ("its certificate is not valid yet", "set the clock of this machine, or wait"),
    10: ("its certificate has expired", "whoever runs the server has to renew it"),
    18: ("its certificate is self-signed, so nobody vouches for it", _TRUST),
    19: ("its certificate is signed by an authority that this machine does not trust", _TRUST),
    20: ("its certificate is signed by an authority that this machine does not trust", _TRUST),
    62: ("its certificate is for another name", "connect by the name it was made for"),
    64: ("its certificate is for another address", "connect by the name or address it was made for"),
}


class Cut(Exception):
    """A connection ended or could not be made: what to do, and the error to raise if nothing is."""

    def __init__(self, advice: Advice, error: ClientError) -> None:
        self.advice = advice
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Call:
    """What a handshake asks for.

    ``shown`` is the URL without secrets; ``stranger`` makes the error for what is no WebSocket; ``hints`` say what to
    do about a status.
    """

    url: str
    shown: str
    stranger: Callable[[str, str], ClientError]
    headers: Sequence[tuple[str, str]] = ()
    origin: str | None = None
    subprotocols: Sequence[str] = ()
    ssl: tls.SSLContext | None = None
    proxy: str | Literal[True] | None = None
    max_size: int = 1024 * 1024
    open_timeout_s: float = 10.0
    close_timeout_s: float = 10.0
    ping_interval_s: float = PING_S
    ping_timeout_s: float = PING_S
    compression: Literal["deflate"] | None = None
    hints: Mapping[int, str] = field(default_factory=lambda: TOPIC_HINTS)

    @property
    def is_secure(self) -> bool:
        """Whether it asks for TLS."""
        return self.url.startswith("wss:")


async def dial(call: Call) -> ClientConnection:
    """An open connection of the library, which is dropped when its peer is gone. Raises ``Cut``."""
    from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidURI

    try:
        connection = await _open(call)
    except InvalidHandshake as refusal:
        raise explain_handshake(refusal, call) from None
    except InvalidURI as redirect:
        raise _explain_redirect(redirect.uri, call) from None
    except TimeoutError:
        raise silent(call, f"it did not complete the handshake within {call.open_timeout_s:g} s") from None
    except OSError as error:
        raise explain_os_error(error, call) from None
    except (InvalidProxy, ImportError) as error:
        why = f"the proxy that this machine is set to use cannot be used ({error})"
        raise Cut(Advice(ComeBack.STOP, why), NothingListens(call.shown, why)) from None
    watch(connection, call.ping_interval_s, call.ping_timeout_s)
    return connection


async def _open(call: Call) -> ClientConnection:
    from websockets.asyncio.client import connect
    from websockets.typing import Origin, Subprotocol

    # an argument that is there at all is checked against the scheme of the URL
    options: dict[str, Any] = {} if call.ssl is None else {"ssl": call.ssl}
    return await connect(
        call.url,
        additional_headers=list(call.headers),
        origin=None if call.origin is None else Origin(call.origin),
        subprotocols=[Subprotocol(name) for name in call.subprotocols] or None,
        compression=call.compression,
        proxy=call.proxy,
        open_timeout=call.open_timeout_s,
        close_timeout=call.close_timeout_s,
        # ``watch`` pings
        ping_interval=None,
        max_size=call.max_size,
        **options,
    )


def silent(call: Call, why: str) -> Cut:
    """Accepted, and then kept silent."""
    return Cut(Advice(ComeBack.SLOW, why), NoAnswer(call.shown, why))


def strange(call: Call, why: str) -> Cut:
    """It answers, but not as it should; it will not learn."""
    return Cut(Advice(ComeBack.STOP, why), call.stranger(call.shown, why))


def explain_handshake(refusal: InvalidHandshake, call: Call) -> Cut:
    """A handshake that was answered, but not with a WebSocket."""
    from websockets.exceptions import InvalidMessage, InvalidStatus, ProxyError

    if isinstance(refusal, InvalidStatus):
        return _explain_status(refusal, call)
    if isinstance(refusal, ProxyError):
        error: ClientError = NothingListens(call.shown, f"the proxy did not connect: {refusal}")
        return Cut(Advice(ComeBack.SLOW, "the proxy did not connect"), error)
    if isinstance(refusal, InvalidMessage) and isinstance(refusal.__cause__, EOFError | OSError):
        why = "the line was cut during the handshake"
        if not call.is_secure:
            why += " (if the server speaks TLS, ask it by wss://)"
        return Cut(Advice(ComeBack.FAST, why), NoAnswer(call.shown, why))
    return strange(call, f"it does not answer a WebSocket handshake ({refusal})")


def _explain_status(refusal: InvalidStatus, call: Call) -> Cut:
    response = refusal.response
    status, wall_s = response.status_code, time.time()
    retry_after = response.headers.get("Retry-After")
    advice = advise_status(status, retry_after, wall_s)
    if status < 400:
        return strange(call, f"it answers plain HTTP with {status} and opens no WebSocket")
    detail = read_detail(bytes(response.body), response.headers.get("Content-Type", ""))
    after_s = parse_retry_after(retry_after, wall_s)
    return Cut(advice, Refused(call.shown, status=status, detail=detail, retry_after_s=after_s, hints=call.hints))


def _explain_redirect(uri: str, call: Call) -> Cut:
    """The library follows redirects to ws and wss; others are for people to read."""
    try:
        address = parse_address(uri)
    except BadURL:
        return strange(call, "it redirects to what is no URL of a WebSocket")
    scheme = "wss" if address.is_secure else "ws"
    there = f"{scheme}://{address.shown.partition('://')[2]}"
    return strange(call, f"it redirects to {address.shown}: if that is where it has gone, connect to {there}")


def explain_os_error(error: OSError, call: Call) -> Cut:
    """A socket that could not be connected."""
    if isinstance(error, tls.SSLCertVerificationError):
        return _explain_certificate(error, call)
    if is_refused(error):
        return Cut(Advice(ComeBack.FAST, "nothing listens there"), NothingListens(call.shown))
    if isinstance(error, tls.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return strange(call, "it does not speak TLS; ask it by ws:// if it is meant to be without")
    if call.is_secure and isinstance(error, ConnectionResetError | ConnectionAbortedError | tls.SSLEOFError):
        why = "the line was cut during the TLS handshake (if the server does not speak TLS, ask it by ws://)"
        return Cut(Advice(ComeBack.FAST, why), NoAnswer(call.shown, why))
    why = error.strerror or str(error) or type(error).__name__
    return Cut(Advice(ComeBack.FAST, f"cannot reach it: {why}"), NothingListens(call.shown, why))


def _explain_certificate(error: tls.SSLCertVerificationError, call: Call) -> Cut:
    quoted = f"its certificate is not trusted ({error.verify_message})"
    why, what_to_do = _BAD_CERTIFICATES.get(error.verify_code, (quoted, _TRUST))
    return Cut(Advice(ComeBack.STOP, why), NothingListens(call.shown, why, what_to_do))


def is_refused(error: BaseException) -> bool:
    """Whether the address answers, but nothing listens there. asyncio joins several addresses into one text."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)
