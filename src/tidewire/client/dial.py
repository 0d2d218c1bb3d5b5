"""Opening a WebSocket with the ``websockets`` library, and every way that fails turned into advice and a sentence."""

from __future__ import annotations

import errno
import ssl as tls
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tidewire.client.errors import NoAnswer, NothingListens, Refused
from tidewire.client.reconnect import Advice, ComeBack, advise_status, parse_retry_after
from tidewire.client.refusal import read_detail
from tidewire.errors import ClientError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import InvalidHandshake, InvalidStatus

PING_S = 20.0
"""A ping this often, and as long to wait for its pong: a dead peer is noticed within twice that."""


class Cut(Exception):
    """A connection ended or could not be made: what to do, and the error to raise if nothing is."""

    def __init__(self, advice: Advice, error: ClientError) -> None:
        self.advice = advice
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Call:
    """What a handshake asks for.

    ``shown`` is the URL without secrets; ``stranger`` makes the error for what is no WebSocket.
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


async def dial(call: Call) -> ClientConnection:
    """An open connection of the library. Raises ``Cut``."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidProxy
    from websockets.typing import Origin, Subprotocol

    # an argument that is there at all is checked against the scheme of the URL
    options: dict[str, Any] = {} if call.ssl is None else {"ssl": call.ssl}
    try:
        return await connect(
            call.url,
            additional_headers=list(call.headers),
            origin=None if call.origin is None else Origin(call.origin),
            subprotocols=[Subprotocol(name) for name in call.subprotocols] or None,
            compression=None,
            proxy=call.proxy,
            open_timeout=call.open_timeout_s,
            close_timeout=call.close_timeout_s,
            ping_interval=call.ping_interval_s,
            ping_timeout=call.ping_timeout_s,
            max_size=call.max_size,
            **options,
        )
    except InvalidHandshake as refusal:
        raise explain_handshake(refusal, call) from None
    except TimeoutError:
        raise silent(call, f"no answer to the handshake within {call.open_timeout_s:g} s") from None
    except OSError as error:
        raise explain_os_error(error, call.shown) from None
    except (InvalidProxy, ImportError) as error:
        why = f"the proxy that this machine is set to use cannot be used ({error})"
        raise Cut(Advice(ComeBack.STOP, why), NothingListens(call.shown, why)) from None


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
    return Cut(advice, Refused(call.shown, status=status, detail=detail, retry_after_s=after_s))


def explain_os_error(error: OSError, shown: str) -> Cut:
    """A socket that could not be connected."""
    if isinstance(error, tls.SSLCertVerificationError):
        why = f"its certificate is not trusted ({error.verify_message})"
        return Cut(Advice(ComeBack.STOP, why), NothingListens(shown, why))
    if is_refused(error):
        return Cut(Advice(ComeBack.FAST, "nothing listens there"), NothingListens(shown))
    why = error.strerror or str(error) or type(error).__name__
    return Cut(Advice(ComeBack.FAST, f"cannot reach it: {why}"), NothingListens(shown, why))


def is_refused(error: BaseException) -> bool:
    """Whether the address answers, but nothing listens there. asyncio joins several addresses into one text."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)
