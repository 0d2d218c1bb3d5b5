"""What ``tidewire cat`` says on stderr: handshakes without their secrets, and endings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

    from tidewire.errors import ConnectionClosed

_SECRET = re.compile(r"auth|cookie|token|secret|passw|key|credential|session|signature", re.IGNORECASE)
# nonces of the handshake, no secrets (RFC 6455 1.3)
_PUBLIC = frozenset({"sec-websocket-key", "www-authenticate", "proxy-authenticate"})


def tell_request(request: Request) -> Iterator[str]:
    """The lines of a handshake, as curl marks them; no query, no values that look like secrets."""
    path, mark, _ = request.path.partition("?")
    yield f"> GET {path}{'?(not shown)' if mark else ''} HTTP/1.1"
    yield from _tell_headers(">", request.headers.raw_items())


def tell_response(response: Response) -> Iterator[str]:
    """The lines of the server's answer."""
    yield f"< HTTP/1.1 {response.status_code} {response.reason_phrase}"
    yield from _tell_headers("<", response.headers.raw_items())


def _tell_headers(mark: str, headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in headers:
        is_secret = _SECRET.search(name) and name.lower() not in _PUBLIC
        yield f"{mark} {name}: {'(not shown)' if is_secret else value}"


def find_answer(error: BaseException) -> Response | None:
    """The response that an error of ``connect`` was made from, where there was one."""
    from websockets.exceptions import InvalidStatus

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InvalidStatus):
            return cause.response
        cause = cause.__context__
    return None


def tell_end(closed: ConnectionClosed) -> str:
    """How a connection ended that we did not end."""
    if closed.rcvd is not None and (closed.sent is None or closed.received_first is not False):
        return f"the server closed the connection: {closed.rcvd}"
    if closed.sent is not None:
        return f"the connection had to be closed: {closed.sent}"
    return "the connection was lost: the line was cut without a goodbye"


def count(number: int, thing: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
