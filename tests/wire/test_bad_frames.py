"""WebSocket peers that break the rules: each is told which one, where it can hear it, and nobody else notices."""

from __future__ import annotations

import pytest

from tests.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    follow,
    frame,
    open_websocket,
    read_close,
    split,
    upgrade,
)
from tests.wire.servers import Peer, Server, until
from tidewire.limits import FRAGMENTS_MAX

MIB = 1024 * 1024


def close_after(server: Server, topic: str, *frames: bytes) -> tuple[int, str]:
    """What the server closes with when a peer on ``topic`` sends these."""
    with open_websocket(server.port, f"/live/{topic}") as peer:
        peer.send(b"".join(frames))
        # and not to the end: where the message was whole, the server waits for our close (RFC 6455 5.5.1)
        peer.receive(lambda data: any(said.opcode == CLOSE for said in split(data)[0]))
        close = split(peer.received)[0][-1].close
        peer.socket.close()
    return close


def test_a_message_over_the_limit_of_the_server_is_told_both_numbers(ours: Server) -> None:
    with open_websocket(ours.port, "/live/log/large") as peer:
        # only the head of the frame: nobody has to send ten megabytes to be refused
        peer.send(frame(TEXT, length=10 * MIB))
        code, reason = read_close(peer)
    assert code == 1009
    assert str(10 * MIB) in reason
    assert str(128 * 1024) in reason


def test_the_fragments_of_a_message_count_together(ours: Server) -> None:
    fragment = b"x" * 60_000
    first = frame(TEXT, fragment, fin=False)
    code, reason = close_after(ours, "log/large", first, *[frame(CONTINUATION, fragment, fin=False)] * 2)
    assert code == 1009
    assert str(128 * 1024) in reason


def test_a_message_over_the_limit_of_topics_is_told_both_numbers(ours: Server) -> None:
    code, reason = close_after(ours, "log/large", frame(TEXT, b"x" * 70_000))
    assert code == 1009
    assert "70000" in reason
    assert str(64 * 1024) in reason
    assert ours.ask("/live/log/large") == (200, b"[]")


def test_a_message_exactly_at_the_limit_of_topics_is_published(ours: Server) -> None:
    with follow(ours.port, "log/just-right") as peer:
        peer.send(frame(TEXT, b"x" * 64 * 1024))
        peer.receive(lambda data: len(split(data)[0]) == 2)


def test_a_message_in_endless_fragments_is_refused(ours: Server) -> None:
    fragments = frame(CONTINUATION, b"", fin=False) * (FRAGMENTS_MAX + 10)
    code, reason = close_after(ours, "log/fragments", frame(TEXT, b"x", fin=False), fragments)
    assert (code, reason) == (1009, f"a message of more than {FRAGMENTS_MAX} fragments")


def test_a_message_in_very_many_fragments_is_published(ours: Server) -> None:
    with follow(ours.port, "log/many-fragments") as peer:
        peer.send(
            frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 9998 + frame(CONTINUATION, b"x")
        )
        peer.receive(lambda data: len(split(data)[0]) == 2)
        assert b"x" * 10_000 in peer.received


BROKEN = {
    "unmasked": (frame(TEXT, b"hello", masked=False), 1002),
    "reserved bits": (frame(TEXT, b"hello", reserved=4), 1002),
    "unknown opcode": (frame(3, b"hello"), 1002),
    "a fragmented ping": (frame(PING, b"hello", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"hello"), 1002),
    "text inside of text": (frame(TEXT, b"he", fin=False) + frame(TEXT, b"llo"), 1002),
    "a close of one byte": (frame(CLOSE, b"x"), 1002),
    "invalid UTF-8": (frame(TEXT, b"caf\xe9"), 1007),
    "invalid UTF-8 in fragments": (frame(TEXT, b"caf", fin=False) + frame(CONTINUATION, b"\xe9"), 1007),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_is_refused_with_a_reason(ours: Server, name: str) -> None:
    sent, expected = BROKEN[name]
    with follow(ours.port, "log/broken") as healthy:
        code, reason = close_after(ours, "log/broken", sent)
        assert code == expected
        assert reason
        ours.publish("log/broken")
        healthy.receive(lambda data: len(split(data)[0]) == 2)


def test_text_that_is_cut_between_bytes_of_one_character_is_whole_again(ours: Server) -> None:
    with follow(ours.port, "log/cut") as peer:
        peer.send(frame(TEXT, "café".encode()[:-1], fin=False) + frame(CONTINUATION, "é".encode()[-1:]))
        peer.receive(lambda data: "café".encode() in data)


def test_text_where_json_was_promised_is_refused(ours: Server) -> None:
    code, reason = close_after(ours, "json/only", frame(TEXT, b"hello"))
    assert code == 1007
    assert "JSON" in reason


def test_bytes_where_json_was_promised_are_refused(ours: Server) -> None:
    code, reason = close_after(ours, "json/only", frame(BINARY, b"[1]"))
    assert code == 1003
    assert "json" in reason


def test_a_message_where_none_may_be_sent_is_refused(ours: Server) -> None:
    code, reason = close_after(ours, "quiet/one", frame(TEXT, b"hello"))
    assert code == 1008
    assert "takes no messages" in reason


def test_pings_of_a_peer_that_does_not_read_end_in_an_abort(ours: Server) -> None:
    before = ours.stats()["rss"]
    with open_websocket(ours.port, "/live/quiet/pings", receive_buffer=4096) as peer:
        peer.flood(frame(PING, b"x" * 125) * 500, most=64 * MIB)
        ours.until_stats("it is gone", sockets=0, subscriptions=0, tasks=0)
    assert ours.stats()["rss"] - before < 16 * MIB


def test_pings_and_messages_of_one_read_end_in_an_abort_as_well(ours: Server) -> None:
    """What stands behind the last ping is handled on a connection that has just been dropped."""
    with open_websocket(ours.port, "/live/log/pings", receive_buffer=4096) as peer:
        peer.flood((frame(PING, b"x" * 125) * 50 + frame(TEXT, b"x")) * 10, most=64 * MIB)
        ours.until_stats("it is gone", sockets=0, subscriptions=0, tasks=0)


def test_a_slow_reader_of_a_large_message_may_ping(ours: Server) -> None:
    """Its pong waits behind megabytes; only pongs count as such."""
    with open_websocket(ours.port, "/stuck") as peer:
        peer.send(frame(PING, b"still there?"))
        peer.receive(lambda data: len(data) >= 10 + 32 * MIB + 2 + len("still there?"))
        assert split(peer.received)[0][1] == (PONG, b"still there?")


HANDSHAKES = {
    "a head over the limit": (upgrade("/live/log/a", "cookie: " + "c" * 40_000), 431),
    "a long URL": (upgrade("/live/log/" + "a" * 9000), 404),
    "no key": (upgrade("/live/log/a").replace(b"sec-websocket-key", b"x-key"), 400),
    "a version of the past": (upgrade("/live/log/a").replace(b"version: 13", b"version: 8"), 426),
    "a POST": (upgrade("/live/log/a").replace(b"GET", b"POST"), 405),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_cannot_be_is_answered(ours: Server, name: str) -> None:
    sent, status = HANDSHAKES[name]
    with Peer(ours.port) as peer:
        peer.send(sent)
        assert peer.read_to_end() == "closed"
        assert peer.received.startswith(f"HTTP/1.1 {status} ".encode()), peer.received


LARGE = {
    "a cookie of 10 KB": upgrade("/live/log/a", "cookie: " + "c" * 10_000),
    "three hundred headers": upgrade("/live/log/a", *[f"x-{number}: 1" for number in range(300)]),
    "what Firefox says": upgrade("/live/log/a").replace(b"connection: upgrade", b"Connection: keep-alive, Upgrade"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_handshake_that_is_merely_large_or_unusual_is_accepted(ours: Server, name: str) -> None:
    with Peer(ours.port) as peer:
        peer.send(LARGE[name])
        peer.receive(lambda data: b"\r\n\r\n" in data)
        assert peer.received.startswith(b"HTTP/1.1 101 "), peer.received


def test_the_scope_extension_is_there_on_both_wires(ours: Server, stock: Server) -> None:
    offered = b'["abort","hand_over","latency_s","pending_bytes","ping","refused"]'
    for server, by_http, by_websocket in [(ours, b'["abort","pending_bytes"]', offered), (stock, b"[]", b"[]")]:
        assert server.ask("/extension") == (200, by_http)
        with open_websocket(server.port, "/extension") as peer:
            peer.receive(lambda data: split(data)[0])
            assert split(peer.received)[0][0] == (TEXT, by_websocket)


def test_pending_bytes_counts_and_abort_resets_a_websocket(ours: Server) -> None:
    with open_websocket(ours.port, "/extension/abort", receive_buffer=4096) as peer:
        empty, pending = until(lambda: ours.ask_json("/extension/pending"), "much is pending")
        assert empty == 0
        assert 8 * MIB < pending <= 33 * MIB
        peer.send(frame(TEXT, b"now"))
        assert peer.read_to_end() == "reset"
        assert split(peer.received)[0] == []


def test_pending_bytes_counts_and_abort_resets_a_response(ours: Server) -> None:
    with Peer(ours.port, receive_buffer=4096).request("/extension/abort") as peer:
        empty, pending = until(
            lambda: len(counts := ours.ask_json("/extension/pending")) == 2 and counts, "much is pending"
        )
        assert empty == 0
        assert 8 * MIB < pending <= 33 * MIB
        assert peer.read_to_end() == "reset"
        assert len(peer.received) < 32 * MIB
