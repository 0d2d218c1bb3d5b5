"""HTTP peers that never end what they begin, send too much, or send nonsense."""

from __future__ import annotations

import json
import time

import pytest

from tests.wire.frames import upgrade
from tests.wire.servers import PATIENCE_S, Peer, Server, open_events
from tidewire.limits import HEAD_BYTES_MAX

MIB = 1024 * 1024
GET = b"GET /extension HTTP/1.1\r\nhost: 127.0.0.1\r\n"


def trickle(peer: Peer, byte: bytes) -> str:
    """Send one byte after another, slowly, until the server has had enough; says how it ended."""
    peer.socket.settimeout(0.05)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            peer.send(byte)
            data = peer.socket.recv(65536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        if not data:
            return "closed"
        peer.received += data
    raise AssertionError("the server has endless patience")


# The head


def test_one_endless_header_is_refused_and_not_stored(ours: Server) -> None:
    before = ours.stats()["rss"]
    with Peer(ours.port) as peer:
        peer.send(GET + b"x-endless: ")
        peer.flood(b"x" * 65536, most=64 * MIB)
        peer.read_to_end()
        assert peer.received.startswith(b"HTTP/1.1 431 ")
        assert str(HEAD_BYTES_MAX).encode() in peer.received
    assert ours.stats()["rss"] - before < 16 * MIB


@pytest.mark.parametrize("endless", [b"\r\n", b"GET /" + b"x" * 60_000], ids=["empty lines", "path"])
def test_a_head_that_never_ends_otherwise_is_refused(ours: Server, endless: bytes) -> None:
    with Peer(ours.port) as peer:
        peer.flood(endless if endless != b"\r\n" else endless * 4096, most=64 * MIB)
        peer.read_to_end()
        assert peer.received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), peer.received


@pytest.mark.parametrize("together", [True, False])
def test_many_headers_are_refused(ours: Server, together: bool) -> None:
    headers = b"".join(b"x-%d: y\r\n" % number for number in range(4000))
    with Peer(ours.port) as peer:
        if together:
            peer.send(GET + headers + b"\r\n")
        else:
            peer.send(GET + headers)
        assert peer.read_to_end() == "closed"
        assert peer.received.startswith(b"HTTP/1.1 431 ")
        assert b"send fewer or shorter headers" in peer.received


def test_a_head_exactly_at_the_limit_is_answered_and_one_byte_more_is_not(ours: Server) -> None:
    rest = len("/extension") + len("host" + "127.0.0.1") + 4 + len("x-large") + 4
    for more, status in [(0, 200), (1, 431)]:
        with Peer(ours.port) as peer:
            peer.send(GET + b"x-large: " + b"y" * (HEAD_BYTES_MAX - rest + more) + b"\r\n\r\n")
            assert peer.answer()[0] == status


def test_a_head_exactly_at_the_limit_may_come_in_pieces(ours: Server) -> None:
    rest = len("/extension") + len("host" + "127.0.0.1") + 4 + len("x-large") + 4
    with Peer(ours.port) as peer:
        head = GET + b"x-large: " + b"y" * (HEAD_BYTES_MAX - rest) + b"\r\n\r\n"
        for begin in range(0, len(head), 5000):
            peer.send(head[begin : begin + 5000])
        assert peer.answer()[0] == 200


BEHIND = {
    "request": b"POST /control/publish?topic=log/behind HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n",
    "handshake": upgrade("/live/log/behind"),
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_stands_behind_a_refused_head_is_not_done(ours: Server, name: str) -> None:
    published = ours.stats()["published"]
    with Peer(ours.port) as peer:
        peer.send(GET + b"x: " + b"y" * 40_000 + b"\r\n\r\n" + BEHIND[name])
        peer.read_to_end()
        assert peer.received.count(b"HTTP/1.1 ") == 1
    assert ours.stats()["published"] == published


def test_a_request_that_does_not_come_is_given_up(hasty: Server) -> None:
    with Peer(hasty.port) as silent, Peer(hasty.port) as half_a_line, Peer(hasty.port) as half_a_head:
        half_a_line.send(b"GET / HT")
        half_a_head.send(GET)
        for peer in (silent, half_a_line, half_a_head):
            assert peer.read_to_end() == "closed"
            assert peer.received.startswith(b"HTTP/1.1 408 ")
            assert b"0.4 s" in peer.received


def test_a_head_that_comes_byte_by_byte_is_given_up(hasty: Server) -> None:
    with Peer(hasty.port) as peer:
        peer.send(GET + b"x-slow: ")
        trickle(peer, b"x")
        assert peer.received.startswith(b"HTTP/1.1 408 ")


def test_a_slow_head_after_a_good_request_is_given_up(hasty: Server) -> None:
    with Peer(hasty.port) as peer:
        peer.send(GET + b"\r\n")
        assert peer.answer()[0] == 200
        peer.send(GET + b"x-slow: ")
        trickle(peer, b"x")
        assert peer.received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\nx: y", b"garbage\r\n\r\n"], ids=["half a head", "garbage"])
def test_nothing_is_said_in_the_middle_of_an_event_stream(hasty: Server, behind: bytes) -> None:
    with open_events(hasty.port, "log/behind") as peer:
        for byte in behind:
            peer.send(bytes([byte]))
        hasty.stats()
        with Peer(hasty.port) as idle:
            # once this one's deadline has passed, so has that of the other, which began before
            assert idle.read_to_end() == "closed"
        hasty.publish("log/behind", n=3)
        hasty.ask("/live/log/behind", "POST", b"last", **{"content-type": "text/plain"})
        peer.receive(lambda data: b"data: last\n" in data)
        assert b"HTTP/1.1 4" not in peer.received


def test_garbage_behind_a_good_request_ends_the_connection_after_its_answer(ours: Server) -> None:
    with Peer(ours.port) as peer:
        peer.send(GET + b"\r\n" + b"garbage\r\n\r\n")
        assert peer.answer()[0] == 200
        assert peer.read_to_end() == "closed"
        assert peer.received == b""


def test_garbage_is_refused(ours: Server) -> None:
    client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    for garbage in [client_hello, b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nbroken\r\n\r\n"]:
        with Peer(ours.port) as peer:
            peer.send(garbage)
            assert peer.read_to_end() == "closed"
            assert peer.received.startswith(b"HTTP/1.1 400 ")


def test_two_lengths_are_refused(ours: Server) -> None:
    """Or a proxy before us could take one of them and we the other (RFC 9112 6.3)."""
    both = b"content-type: text/plain\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with Peer(ours.port) as peer:
        peer.send(b"POST /live/log/both HTTP/1.1\r\nhost: 127.0.0.1\r\n" + both)
        assert peer.answer()[0] == 400


# What works


def test_a_connection_is_kept_alive(ours: Server) -> None:
    with Peer(ours.port) as peer:
        for _ in range(3):
            peer.send(GET + b"\r\n")
            assert peer.answer() == (200, b'["abort","pending_bytes"]')


def test_pipelined_requests_are_answered_in_order(ours: Server) -> None:
    body = b"x" * 50_000
    post = b"POST /length HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with Peer(ours.port) as peer:
        # the head of the last one comes in two pieces, the first together with more than a head may have
        peer.send(GET + b"\r\n" + post + GET + b"\r\n" + GET)
        assert peer.answer() == (200, b'["abort","pending_bytes"]')
        assert json.loads(peer.answer()[1])["length"] == 50_000
        assert peer.answer()[0] == 200
        peer.send(b"\r\n")
        assert peer.answer()[0] == 200


# The body


def test_a_body_that_never_ends_is_given_up(hasty: Server) -> None:
    with Peer(hasty.port).request("/live/log/late", "POST", content_type="text/plain", content_length="100") as peer:
        peer.send(b"x" * 10)
        status, body = peer.answer()
        assert status == 408
        assert b"did not arrive in time" in body
        # the rest has the time of a head, and then the line is cut
        trickle(peer, b"")
        assert peer.received == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_comes_byte_by_byte_is_given_up(hasty: Server, chunked: bool) -> None:
    length = {"transfer_encoding": "chunked"} if chunked else {"content_length": "1000"}
    with Peer(hasty.port).request("/live/log/slow", "POST", content_type="text/plain", **length) as peer:
        trickle(peer, b"1\r\nx\r\n" if chunked else b"x")
        assert peer.received.startswith(b"HTTP/1.1 408 ")
        assert peer.received.count(b"HTTP/1.1 ") == 1
    assert hasty.ask("/live/log/slow") == (200, b"[]")


def test_a_body_that_is_too_large_by_its_own_word_is_refused_at_once(ours: Server) -> None:
    with Peer(ours.port).request("/live/log/big", "POST", content_type="text/plain", content_length="2000000") as peer:
        status, body = peer.answer()
        assert status == 413
        assert b"2000000" in body
        assert str(64 * 1024).encode() in body
        # whoever sends it all the same may go on with the next request
        peer.send(b"x" * 2_000_000 + GET + b"\r\n")
        assert peer.answer() == (200, b'["abort","pending_bytes"]')


def test_an_endless_body_is_refused_and_cut(hasty: Server) -> None:
    before = hasty.stats()["rss"]
    with Peer(hasty.port).request("/live/log/big", "POST", transfer_encoding="chunked") as peer:
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        try:
            while True:
                peer.send(chunk)
        except (ConnectionResetError, BrokenPipeError):
            peer.read_to_end()
        assert peer.received.startswith(b"HTTP/1.1 413 ")
        assert peer.received.count(b"HTTP/1.1 ") == 1
    assert hasty.stats()["rss"] - before < 32 * MIB
    assert hasty.ask("/live/log/big") == (200, b"[]")


def test_a_body_longer_than_declared_is_not_more_than_declared(ours: Server) -> None:
    with Peer(ours.port).request("/live/log/more", "POST", content_type="text/plain", content_length="3") as peer:
        peer.send(b"abcdef\r\n\r\n")
        assert peer.answer()[0] == 204
        assert peer.read_to_end() == "closed"
        assert peer.received == b""
    assert ours.ask("/live/log/more") == (200, b"abc\n")


def test_trailers_do_not_become_headers(ours: Server) -> None:
    """Whoever checks headers, a proxy before us or the application, does it when the body has not come yet."""
    with Peer(ours.port) as peer:
        head = b"POST /length HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
        peer.send(head + b"1\r\nx\r\n0\r\nauthorization: Bearer stolen\r\n\r\n")
        said = json.loads(peer.answer()[1])
        assert said == {"length": 1, "headers": ["host", "transfer-encoding"]}
        peer.send(GET + b"\r\n")
        assert peer.answer()[0] == 200


@pytest.mark.parametrize("endless", [b"1\r\nx\r\n0\r\nx-trailer: ", b"1;extension="], ids=["trailer", "extension"])
def test_what_is_endless_around_a_body_is_cut(ours: Server, endless: bytes) -> None:
    before = ours.stats()["rss"]
    with Peer(ours.port).request("/live/log/around", "POST", transfer_encoding="chunked") as peer:
        peer.send(endless)
        peer.flood(b"x" * 65536, most=64 * MIB)
    assert ours.stats()["rss"] - before < 16 * MIB
    assert ours.ask("/live/log/around") == (200, b"[]")
