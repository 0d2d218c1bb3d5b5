"""The server's side of the opening handshake: what is accepted, every refusal, and what the answers look like."""

from __future__ import annotations

import base64
import re

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.utils import accept_key

from tests.wire.frames import upgrade
from tidewire.limits import HEAD_BYTES_MAX
from tidewire.wire import handshake
from tidewire.wire.handshake import BadHandshake, Request, accept_response, negotiate_deflate, read_request, response

FACTORY = ServerPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)


def request(*headers: str, path: str = "/chat", drop: str = "", method: str = "GET") -> bytes:
    lines = upgrade(path, *headers).replace(b"GET", method.encode(), 1).split(b"\r\n")
    # the first of the name: what stands in its place comes behind it
    dropped = next((line for line in lines if drop and line.startswith(drop.encode() + b":")), b"not there")
    return b"\r\n".join(line for line in lines if line != dropped)


def refused(head: bytes) -> BadHandshake:
    with pytest.raises(BadHandshake) as bad:
        read_request(head)
    return bad.value


def answer(data: bytes) -> tuple[bytes, dict[bytes, list[bytes]], bytes]:
    """First line, headers and body of an answer, read by hand."""
    head, end, body = data.partition(b"\r\n\r\n")
    assert end
    first, *lines = head.split(b"\r\n")
    headers: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        headers.setdefault(name, []).append(value)
    return first, headers, body


# Reading


def test_the_example_of_the_rfc() -> None:
    """RFC 6455 1.3: this key has this answer."""
    head = b"\r\n".join(
        [
            b"GET /chat HTTP/1.1",
            b"Host: server.example.com",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Origin: http://example.com",
            b"Sec-WebSocket-Protocol: chat, superchat",
            b"Sec-WebSocket-Version: 13",
            b"",
            b"",
        ]
    )
    found = read_request(head)
    assert (found.path, found.raw_path, found.query) == ("/chat", b"/chat", b"")
    assert found.subprotocols == ["chat", "superchat"]
    assert found.headers[4] == (b"origin", b"http://example.com")
    first, headers, body = answer(accept_response(found, subprotocol="chat", extensions=None, headers=[]))
    assert first == b"HTTP/1.1 101 Switching Protocols"
    assert headers == {
        b"upgrade": [b"websocket"],
        b"connection": [b"Upgrade"],
        b"sec-websocket-accept": [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
        b"sec-websocket-protocol": [b"chat"],
    }
    assert body == b""


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_to_any_key_is_what_websockets_says(seed: int) -> None:
    key = base64.b64encode(bytes(range(seed, seed + 16)))
    found = read_request(upgrade("/").replace(b"dGhlIHNhbXBsZSBub25jZQ==", key))
    headers = answer(accept_response(found, subprotocol=None, extensions=None, headers=[]))[1]
    assert headers[b"sec-websocket-accept"] == [accept_key(key.decode()).encode()]


UNUSUAL = {
    "what Firefox says": request("Connection: keep-alive, Upgrade", drop="connection"),
    "the last of several headers": request("connection: keep-alive", "CONNECTION: uPgRaDe", drop="connection"),
    "among other protocols": request("Upgrade: h2c , WebSocket", drop="upgrade"),
    "spaces and tabs around values": request("sec-websocket-version: \t 13 \t", drop="sec-websocket-version"),
    "names in capitals": request().replace(b"sec-websocket-", b"SEC-WEBSOCKET-"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_accepted(name: str) -> None:
    assert read_request(UNUSUAL[name]).path == "/chat"


REFUSALS = {
    "POST": (request(method="POST"), 405, ("allow", "GET")),
    "HEAD": (request(method="HEAD"), 405, ("allow", "GET")),
    "get in small letters": (request(method="get"), 405, ("allow", "GET")),
    "no version": (request(drop="sec-websocket-version"), 400, None),
    "version 8": (request().replace(b"version: 13", b"version: 8"), 426, ("sec-websocket-version", "13")),
    "version 013": (request().replace(b"version: 13", b"version: 013"), 426, ("sec-websocket-version", "13")),
    "two versions": (request("sec-websocket-version: 13"), 400, None),
    "no key": (request(drop="sec-websocket-key"), 400, None),
    "two keys": (request("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="), 400, None),
    "a key of 15 bytes": (request("sec-websocket-key: " + "A" * 20, drop="sec-websocket-key"), 400, None),
    "a key of 17 bytes": (request("sec-websocket-key: " + "A" * 23 + "=", drop="sec-websocket-key"), 400, None),
    "an empty key": (request("sec-websocket-key: ", drop="sec-websocket-key"), 400, None),
    "a key that is no base64": (request("sec-websocket-key: " + "é" * 22 + "==", drop="sec-websocket-key"), 400, None),
    "no upgrade": (request(drop="upgrade"), 426, ("upgrade", "websocket")),
    "another upgrade": (request("upgrade: h2c", drop="upgrade"), 426, ("upgrade", "websocket")),
    "no connection": (request(drop="connection"), 426, ("upgrade", "websocket")),
    "connection close": (request("connection: close", drop="connection"), 426, ("upgrade", "websocket")),
    "upgrade as a part of a word": (request("connection: upgraded", drop="connection"), 426, ("upgrade", "websocket")),
    "a path that is not ASCII": (request(path="/é"), 400, None),
    "a query that is not ASCII": (request(path="/a?b=é"), 400, None),
    "a line that is no header": (request("what is this"), 400, None),
    "a header without a name": (request(": value"), 400, None),
    "a name with a space": (request("a b: c"), 400, None),
    "a space before the colon": (request("a : c"), 400, None),
    "a folded header": (request("a: b", " c: d"), 400, None),
    "a head over the limit": (request("cookie: " + "c" * HEAD_BYTES_MAX), 431, None),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_has_a_status_and_a_sentence(name: str) -> None:
    head, status, header = REFUSALS[name]
    bad = refused(head)
    assert bad.status == status
    first, headers, body = answer(handshake.refusal(bad))
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert headers[b"connection"] == [b"close"]
    assert headers[b"content-length"] == [str(len(body)).encode()]
    assert body.decode() == f"{bad}\n" and len(body) > 10
    if header:
        assert headers[header[0].encode()] == [header[1].encode()]


def test_a_head_exactly_at_the_limit_is_read() -> None:
    filler = HEAD_BYTES_MAX - len(request("x: "))
    assert read_request(request("x: " + "y" * filler)).path == "/chat"
    assert refused(request("x: " + "y" * (filler + 1))).status == 431


TARGETS = {
    "/": (b"/", "/", b""),
    "/a/b?c=d&e": (b"/a/b", "/a/b", b"c=d&e"),
    "/a?": (b"/a", "/a", b""),
    "/a?b?c": (b"/a", "/a", b"b?c"),
    "/%C3%A9%2Fx?%C3%A9": (b"/%C3%A9%2Fx", "/é/x", b"%C3%A9"),
    "//double": (b"//double", "//double", b""),
    "/a://b": (b"/a://b", "/a://b", b""),
    # absolute-form: a proxy may send it (RFC 9112 3.2.2)
    "http://example.com/a?b": (b"/a", "/a", b"b"),
    "ws://example.com:80/a/b": (b"/a/b", "/a/b", b""),
    "http://example.com": (b"/", "/", b""),
    "http://example.com?b=/c": (b"/", "/", b"b=/c"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_paths_and_queries(target: str) -> None:
    found = read_request(request(path=target))
    assert (found.raw_path, found.path, found.query) == TARGETS[target]


def test_headers_keep_their_order_and_their_bytes() -> None:
    found = read_request(request("X-One: é", "cookie: a=1", "x-one: two", "Cookie: b=2"))
    assert found.headers[-4:] == [(b"x-one", b"\xe9"), (b"cookie", b"a=1"), (b"x-one", b"two"), (b"cookie", b"b=2")]
    assert found.all(b"x-one") == [b"\xe9", b"two"]
    assert found.all(b"nothing") == []


def test_subprotocols_may_stand_in_several_headers() -> None:
    found = read_request(request("Sec-WebSocket-Protocol: a,b", "sec-websocket-protocol:  c , ,d"))
    assert found.subprotocols == ["a", "b", "c", "d"]
    assert read_request(request()).subprotocols == []


# Compression


def offer(*values: str) -> Request:
    return read_request(request(*[f"Sec-WebSocket-Extensions: {value}" for value in values]))


OFFERS = {
    ("permessage-deflate",): b"permessage-deflate; server_max_window_bits=12",
    ("permessage-deflate; client_max_window_bits",): (
        b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    ),
    # the first one that can be taken, whatever stands around it
    ("x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=10",): (
        b"permessage-deflate; server_max_window_bits=10"
    ),
    ("permessage-deflate; server_max_window_bits=7, permessage-deflate; server_no_context_takeover",): (
        b"permessage-deflate; server_no_context_takeover; server_max_window_bits=12"
    ),
    ("permessage-deflate; nonsense=1", "permessage-deflate; client_no_context_takeover"): (
        b"permessage-deflate; client_no_context_takeover; server_max_window_bits=12"
    ),
    ("permessage-deflate; client_max_window_bits=10; client_max_window_bits=11, permessage-deflate",): (
        b"permessage-deflate; server_max_window_bits=12"
    ),
}


@pytest.mark.parametrize("values", OFFERS, ids=str)
def test_the_first_offer_that_can_be_taken_is(values: tuple[str, ...]) -> None:
    extension, header = negotiate_deflate(offer(*values), FACTORY)
    assert isinstance(extension, PerMessageDeflate)
    assert header == OFFERS[values]


@pytest.mark.parametrize("values", [(), ("x-other; a=b",), ("permessage-deflate; server_max_window_bits=99",)], ids=str)
def test_no_offer_that_can_be_taken_means_no_compression(values: tuple[str, ...]) -> None:
    assert negotiate_deflate(offer(*values), FACTORY) == (None, None)


@pytest.mark.parametrize("value", ["permessage-deflate; =", "permessage-deflate;;", "é", 'a; b="', ";"])
def test_an_offer_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(BadHandshake) as bad:
        negotiate_deflate(offer(value), FACTORY)
    assert bad.value.status == 400


# Answers


def test_the_headers_of_the_application_are_in_the_answer() -> None:
    found = read_request(request())
    given = [(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=\xe9"), (b"x-empty", b"")]
    data = accept_response(found, subprotocol=None, extensions=b"permessage-deflate", headers=given)
    assert b"set-cookie: a=1\r\nSet-Cookie: b=\xe9\r\nx-empty: \r\n\r\n" in data
    assert b"\r\nsec-websocket-extensions: permessage-deflate\r\n" in data


INJECTED = [
    (b"x", b"a\r\nset-cookie: b=1"),
    (b"x", b"a\nb"),
    (b"x", b"a\rb"),
    (b"x", b"a\0b"),
    (b"x\r\ny", b"a"),
    (b"x: y", b"a"),
    (b"x y", b"a"),
    (b"", b"a"),
    (b"\xe9", b"a"),
]


@pytest.mark.parametrize(("name", "value"), INJECTED, ids=str)
def test_what_would_be_another_header_is_an_error(name: bytes, value: bytes) -> None:
    found = read_request(request())
    with pytest.raises(ValueError, match="cannot be sent as a header"):
        accept_response(found, subprotocol=None, extensions=None, headers=[(name, value)])
    with pytest.raises(ValueError, match="cannot be sent as a header"):
        response(403, [(name, value)], b"")


@pytest.mark.parametrize("subprotocol", ["a\r\nset-cookie: b=1", "a\nb", "€"])
def test_a_subprotocol_that_cannot_be_a_header_is_an_error(subprotocol: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent as a header|codec can't encode"):
        accept_response(read_request(request()), subprotocol=subprotocol, extensions=None, headers=[])


def test_any_other_answer_says_how_long_it_is_and_that_it_is_the_last() -> None:
    first, headers, body = answer(response(418, [(b"X-One", b"1"), (b"X-One", b"2")], b"tea"))
    assert first == b"HTTP/1.1 418 I'm a Teapot"
    assert headers[b"x-one"] == [b"1", b"2"]
    assert headers[b"content-length"] == [b"3"]
    assert headers[b"connection"] == [b"close"]
    assert headers[b"content-type"] == [b"text/plain; charset=utf-8"]
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers[b"date"][0])
    assert body == b"tea"


def test_headers_of_the_application_stand_in_place_of_ours() -> None:
    given = [(b"Content-Type", b"application/json"), (b"DATE", b"today"), (b"Content-Length", b"2")]
    headers = answer(response(403, given, b"{}"))[1]
    assert headers[b"content-type"] == [b"application/json"]
    assert headers[b"date"] == [b"today"]
    assert headers[b"content-length"] == [b"2"]


def test_a_body_is_whole_whatever_the_application_thought_of_sending_it() -> None:
    """A streamed denial says ``transfer-encoding: chunked``; here it is gathered and has a length."""
    headers = answer(response(403, [(b"Transfer-Encoding", b"chunked")], b"body"))[1]
    assert b"transfer-encoding" not in headers
    assert headers[b"content-length"] == [b"4"]


def test_a_status_without_a_name_is_sent_without_one() -> None:
    assert response(499, [], b"").startswith(b"HTTP/1.1 499 \r\n")
