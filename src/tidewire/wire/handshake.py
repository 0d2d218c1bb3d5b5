"""The server's side of the opening handshake (RFC 6455 4.2). Pure: a request's head in, an answer's bytes out."""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
import http
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from tidewire.limits import HEAD_BYTES_MAX

Headers = Sequence[tuple[bytes, bytes]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DEFLATE = "permessage-deflate"
# what may not stand in a header: it would end it, or make another one (RFC 9110 5.5)
_ENDS_HEADER = re.compile(rb"[\r\n\x00]")
# what an absolute-form target begins with, up to its path
_AUTHORITY = re.compile(rb"[^/?]*://[^/?]*")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Request:
    """A handshake that can be accepted."""

    raw_path: bytes
    """As it came, without the query."""
    path: str
    """The same, percent-decoded."""
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in the order they came."""
    subprotocols: list[str]
    """What the client offers, the one it likes best first."""
    key: bytes

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        return [value for known, value in self.headers if known == name]


class BadHandshake(Exception):
    """A request that cannot become a WebSocket: the status of the answer, a sentence, and headers of its own."""

    def __init__(self, status: int, sentence: str, headers: Headers = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


def read_request(head: bytes) -> Request:
    """Check the head of a request, from its first line to the empty one (4.2.1); raises ``BadHandshake``."""
    if len(head) > HEAD_BYTES_MAX:
        raise BadHandshake(431, f"the head of a request may have {HEAD_BYTES_MAX} bytes: send fewer or shorter headers")
    first, _, rest = head.partition(b"\r\n")
    method, _, target = first.rpartition(b" ")[0].partition(b" ")
    if method != b"GET":
        raise BadHandshake(405, "a WebSocket begins with GET", [(b"allow", b"GET")])
    headers = [_split_header(line) for line in rest.split(b"\r\n") if line]
    raw_path, path, query = _split_target(target)
    request = Request(raw_path, path, query, headers, [], _one(headers, b"sec-websocket-key"))
    if not _names(request.all(b"connection"), b"upgrade") or not _names(request.all(b"upgrade"), b"websocket"):
        raise BadHandshake(426, "this is a WebSocket: upgrade to it", [(b"upgrade", b"websocket")])
    if _one(headers, b"sec-websocket-version") != b"13":
        raise BadHandshake(426, "this server speaks version 13", [(b"sec-websocket-version", b"13")])
    if not _is_key(request.key):
        raise BadHandshake(400, "Sec-WebSocket-Key is 16 bytes in base64")
    offered = b",".join(request.all(b"sec-websocket-protocol")).decode("latin-1")
    request.subprotocols.extend(name for part in offered.split(",") if (name := part.strip()))
    return request


def _split_header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise BadHandshake(400, "a header is a name, a colon and a value")
    return name.lower(), value.strip(b" \t")


def _split_target(target: bytes) -> tuple[bytes, str, bytes]:
    """Path as it came, path and query of an origin-form or absolute-form target (RFC 9112 3.2)."""
    if not target.startswith(b"/"):
        target = _AUTHORITY.sub(b"", target, count=1)
    raw_path, _, query = target.partition(b"?")
    raw_path = raw_path if raw_path.startswith(b"/") else b"/"
    try:
        return raw_path, unquote(raw_path.decode("ascii")), query.decode("ascii").encode()
    except UnicodeDecodeError:
        raise BadHandshake(400, "a URL is ASCII: percent-encode the rest") from None


def _one(headers: Headers, name: bytes) -> bytes:
    values = [value for known, value in headers if known == name]
    if len(values) != 1:
        shown = name.decode().title().replace("Websocket", "WebSocket")
        raise BadHandshake(400, f"a WebSocket's handshake has one {shown}, not {len(values)}")
    return values[0]


def _names(values: Iterable[bytes], token: bytes) -> bool:
    return any(part.strip().lower() == token for value in values for part in value.split(b","))


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def negotiate_deflate(
    request: Request, factory: ServerPerMessageDeflateFactory
) -> tuple[Extension | None, bytes | None]:
    """The first offer of permessage-deflate that ``factory`` can take (RFC 7692 5), and the header that says so.

    (None, None) where none was offered. Raises ``BadHandshake`` for an offer that cannot be read.
    """
    for value in request.all(b"sec-websocket-extensions"):
        try:
            offers = parse_extension(value.decode("latin-1"))
        except InvalidHeader:
            raise BadHandshake(400, "Sec-WebSocket-Extensions cannot be read (RFC 6455 9.1)") from None
        for name, parameters in offers:
            if name != _DEFLATE:
                continue
            try:
                agreed, extension = factory.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return extension, build_extension([(name, list(agreed))]).encode()
    return None, None


def accept_response(
    request: Request, *, subprotocol: str | None, extensions: bytes | None, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The answer that makes it a WebSocket (4.2.2); raises ``ValueError`` for a header that cannot be sent."""
    accept = base64.b64encode(hashlib.sha1(request.key + _GUID, usedforsecurity=False).digest())
    given = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept)]
    if subprotocol:
        given.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
    if extensions:
        given.append((b"sec-websocket-extensions", extensions))
    return _head(101, [*given, *headers])


def response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Any other answer; the connection ends with it. Raises ``ValueError`` as ``accept_response`` does.

    The body is here, whole: what the application has said of sending it in chunks is left out.
    """
    given = [(name.lower(), value) for name, value in headers if name.lower() != b"transfer-encoding"]
    names = {name for name, _ in given}
    defaults = [
        (b"date", email.utils.formatdate(usegmt=True).encode()),
        (b"connection", b"close"),
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"text/plain; charset=utf-8"),
    ]
    return _head(status, [*given, *(pair for pair in defaults if pair[0] not in names)]) + body


def refusal(bad: BadHandshake) -> bytes:
    """The answer to a handshake that cannot be."""
    return response(bad.status, bad.headers, f"{bad}\n".encode())


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, _phrase(status))]
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _ENDS_HEADER.search(value):
            raise ValueError(f"this cannot be sent as a header: {name!r}: {value!r}")
        lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])


def _phrase(status: int) -> bytes:
    try:
        return http.HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
