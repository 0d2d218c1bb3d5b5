"""Peers that try to make a server store, work or wait, over real sockets: each is closed or cut, others go on."""

from __future__ import annotations

import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    close_payload,
    follow,
    frame,
    open_websocket,
    read_close,
    split,
    upgrade,
)
from tests.wire.servers import Peer, Server
from tidewire.limits import FRAGMENTS_MAX

MIB = 1024 * 1024
DEFLATE = "sec-websocket-extensions: permessage-deflate"


@contextmanager
def unharmed(server: Server, *, more_bytes: int = 16 * MIB) -> Iterator[None]:
    """Who behaves is served all the while, and what it cost in memory is bounded; the fixture sees to the rest."""
    before = server.stats()["rss"]
    with follow(server.port, "log/healthy", context=server.context) as healthy:
        yield
        server.publish("log/healthy", size=100)
        healthy.receive(lambda data: len(split(data)[0]) == 2)
        healthy.send(frame(TEXT, b"mine", mask=b"\x01\x02\x03\x04"))
        healthy.receive(lambda data: b"mine" in data)
        healthy.send(frame(CLOSE, close_payload(1000)))
        assert read_close(healthy) == (1000, "")
    assert server.stats()["rss"] - before < more_bytes


def refused(peer: Peer) -> tuple[int, str]:
    """Read to the end, without an answer of ours: what the server closes with, when it has read all that we sent."""
    assert peer.read_to_end() == "closed"
    return split(peer.received)[0][-1].close


# Deflate


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(level=9, wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def bomb(size: int) -> bytes:
    """So many zeros in less than a hundredth, without ever making them."""
    packer = zlib.compressobj(level=9, wbits=-12)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // MIB) + b"\x00"


def test_compression_was_agreed_on_and_works_both_ways(deflating: Server) -> None:
    text = b"hello " * 1000
    path = "/live/log/packed"
    with follow(deflating.port, "log/packed") as reader, open_websocket(deflating.port, path, DEFLATE) as peer:
        packed = deflated(text)
        peer.send(frame(TEXT, packed, reserved=4))
        peer.send(frame(TEXT, packed[:9], reserved=4, fin=False) + frame(CONTINUATION, packed[9:]))
        reader.receive(lambda data: data.count(text) == 2)
    with open_websocket(deflating.port, "/extension", DEFLATE) as peer:
        peer.receive(lambda data: len(split(data)[0]) == 2)
        peer.send(frame(CLOSE, close_payload(1000)))
        assert peer.read_to_end() == "closed"
        assert peer.received[0] == 0xC1
        packed = split(peer.received)[0][0].payload + b"\x00\x00\xff\xff"
        assert "abort" in json.loads(zlib.decompressobj(wbits=-12).decompress(packed))


def one_frame(packed: bytes) -> bytes:
    return frame(BINARY, packed, reserved=4)


def fragments(packed: bytes) -> bytes:
    pieces = [packed[at : at + 500] for at in range(0, len(packed), 500)]
    first = frame(BINARY, pieces[0], reserved=4, fin=False)
    return first + b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:])


@pytest.mark.parametrize("way", [one_frame, fragments])
def test_deflate_bombs_are_refused(deflating: Server, way: Callable[[bytes], bytes]) -> None:
    """Each is under the limit as it comes, and a hundred times over it when it is inflated."""
    packed = bomb(64 * MIB)
    assert len(packed) < 120_000
    with unharmed(deflating), ExitStack() as stack:
        peers = [stack.enter_context(open_websocket(deflating.port, "/live/log/bomb", DEFLATE)) for _ in range(10)]
        for peer in peers:
            peer.send(way(packed))
        for peer in peers:
            code, reason = refused(peer)
            assert code == 1009
            assert str(128 * 1024) in reason


def test_a_bomb_of_a_gibibyte_is_refused_by_its_head(deflating: Server) -> None:
    with unharmed(deflating), open_websocket(deflating.port, "/live/log/bomb", DEFLATE) as peer:
        packed = bomb(1024 * MIB)
        assert len(packed) > MIB
        peer.send(frame(BINARY, packed, reserved=4))
        assert refused(peer)[0] == 1009


def test_what_stands_behind_the_end_of_a_stream_is_not_stored(deflating: Server) -> None:
    """A deflate block may say that it is the last: what follows is neither inflated nor kept."""
    packer = zlib.compressobj(wbits=-12)
    ended = packer.compress(b"x") + packer.flush(zlib.Z_FINISH) + b"\x00"
    junk = frame(CONTINUATION, random.Random(1).randbytes(60_000), fin=False) * 16
    with unharmed(deflating), open_websocket(deflating.port, "/live/log/end", DEFLATE) as peer:
        peer.send(frame(TEXT, ended, reserved=4, fin=False))
        peer.send(junk)
        assert refused(peer)[0] == 1002


def test_what_cannot_be_inflated_is_refused(deflating: Server) -> None:
    with unharmed(deflating), open_websocket(deflating.port, "/live/log/junk", DEFLATE) as peer:
        peer.send(frame(BINARY, b"\xff" * 100, reserved=4))
        assert refused(peer)[0] == 1002


def test_the_reserved_bit_is_refused_where_compression_was_not_agreed_on(deflating: Server) -> None:
    with unharmed(deflating), open_websocket(deflating.port, "/live/log/plain") as peer:
        peer.send(frame(TEXT, deflated(b"hello"), reserved=4))
        assert refused(peer)[0] == 1002


# Frames that never end


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "small"])
def test_endless_fragments_are_refused(ours: Server, payload: bytes) -> None:
    more = frame(CONTINUATION, payload, fin=False) * 1000
    with unharmed(ours), open_websocket(ours.port, "/live/log/endless") as peer:
        peer.send(frame(TEXT, b"", fin=False))
        for _ in range(FRAGMENTS_MAX // 1000 + 2):
            peer.send(more)
        assert refused(peer) in [
            (1009, f"a message of more than {FRAGMENTS_MAX} fragments"),
            (1009, f"frame with 1 bytes after reading {128 * 1024} bytes exceeds limit of {128 * 1024} bytes"),
        ]


def test_endless_fragments_that_inflate_to_nothing_are_refused(deflating: Server) -> None:
    empty = b"\x00\x00\x00\xff\xff"
    more = frame(CONTINUATION, empty, fin=False) * 1000
    with unharmed(deflating), open_websocket(deflating.port, "/live/log/endless", DEFLATE) as peer:
        peer.send(frame(TEXT, empty, fin=False, reserved=4))
        for _ in range(FRAGMENTS_MAX // 1000 + 2):
            peer.send(more)
        assert refused(peer) == (1009, f"a message of more than {FRAGMENTS_MAX} fragments")


def test_lengths_that_are_announced_and_never_sent_cost_nothing(ours: Server) -> None:
    with unharmed(ours), ExitStack() as stack:
        for number in range(100):
            peer = stack.enter_context(open_websocket(ours.port, "/live/log/announced"))
            size = 128 * 1024 if number % 2 else 60_000
            peer.send(frame(BINARY, b"x", length=size))
        ours.until_stats("all are here", subscriptions=101)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**63 - 1, 2**32, 128 * 1024 + 1])
def test_lengths_that_nobody_has_are_refused_by_the_head(ours: Server, length: int) -> None:
    with unharmed(ours), open_websocket(ours.port, "/live/log/long") as peer:
        peer.send(frame(BINARY, length=length)[:10])
        assert refused(peer)[0] == (1002 if length >= 2**63 else 1009)


# Masks


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, b"hello", masked=False),
        frame(TEXT, b"hello", mask=b"abcd") + frame(TEXT, b"hello", masked=False),
        frame(TEXT, b"hel", fin=False) + frame(CONTINUATION, b"lo", masked=False),
        frame(PING, b"hello", masked=False),
        frame(CLOSE, close_payload(1000), masked=False),
    ],
    ids=["at first", "later", "a fragment", "a ping", "a close"],
)
def test_frames_without_a_mask_are_refused(ours: Server, sent: bytes) -> None:
    with unharmed(ours), open_websocket(ours.port, "/live/log/mask") as peer:
        peer.send(sent)
        assert refused(peer) == (1002, "clients mask their frames")


def test_every_mask_is_taken_off_however_the_frame_is_cut(ours: Server) -> None:
    payload = random.Random(2).randbytes(30_000).hex().encode()
    with unharmed(ours), follow(ours.port, "log/masked") as peer:
        data = frame(TEXT, payload, mask=b"\x80\x01\xff\x7e")
        assert payload not in data
        for at in range(0, len(data), 7001):
            peer.send(data[at : at + 7001])
        peer.receive(lambda received: payload in received)


# Before the answer


@pytest.mark.parametrize("together", [True, False])
def test_frames_that_come_before_the_answer_are_messages(ours: Server, together: bool) -> None:
    """A client should wait (RFC 6455 4.1); one that does not loses nothing."""
    sent = frame(BINARY, b"x" * 10) + frame(BINARY, b"y" * 70_000) + frame(BINARY)
    name = f"early-{together}"
    with unharmed(ours), Peer(ours.port) as peer:
        peer.send(upgrade(f"/late/{name}") + sent if together else upgrade(f"/late/{name}"))
        if not together:
            ours.until_stats("it is here", sockets=2)
            peer.send(sent)
        ours.ask(f"/control/accept/{name}", "POST")
        peer.receive(lambda data: b"\r\n\r\n" in data and split(data.partition(b"\r\n\r\n")[2])[0])
        assert json.loads(split(peer.received.partition(b"\r\n\r\n")[2])[0][0].payload) == [10, 70_000]


def test_a_flood_before_the_answer_is_held_back_in_the_kernel(ours: Server) -> None:
    message = frame(BINARY, b"x" * 60_000)
    with unharmed(ours), Peer(ours.port) as peer:
        peer.send(upgrade("/late/flood"))
        peer.socket.setblocking(False)
        sent = b""
        try:
            while len(sent) < 64 * MIB:
                data = message[len(sent) % len(message) :]
                sent += data[: peer.socket.send(data)]
        except BlockingIOError:
            pass
        assert len(sent) < 32 * MIB, "the server has taken all of it"
        ours.ask("/control/accept/flood", "POST")
        peer.socket.settimeout(20)
        peer.send(message[len(sent) % len(message) :] + frame(BINARY))
        peer.receive(lambda data: b"\r\n\r\n" in data and split(data.partition(b"\r\n\r\n")[2])[0])
        sizes = json.loads(split(peer.received.partition(b"\r\n\r\n")[2])[0][0].payload)
        assert sizes == [60_000] * (len(sent) // len(message) + 1)


def test_a_refused_handshake_with_frames_behind_it_has_one_answer(ours: Server) -> None:
    for head, status in [
        (upgrade("/live/log/a").replace(b"version: 13", b"version: 7"), b"426"),
        (upgrade("/live/members/a"), b"403"),
        (upgrade("/live/nothing"), b"40"),
    ]:
        with unharmed(ours), Peer(ours.port) as peer:
            peer.send(head + frame(TEXT, b"x") * 3)
            peer.read_to_end()
            assert peer.received.startswith(b"HTTP/1.1 " + status), peer.received
            assert peer.received.count(b"HTTP/1.1 ") == 1


def test_handshakes_that_are_half_sent_are_given_up_and_hold_up_nobody(hasty: Server) -> None:
    head = upgrade("/live/log/half")
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(hasty.port)) for _ in range(100)]
        for number, peer in enumerate(peers):
            peer.send(head[: 1 + number * (len(head) - 2) // 100])
        # nobody waits for them
        assert hasty.ask("/live/log/half") == (200, b"[]")
        open_websocket(hasty.port, "/live/log/half").vanish()
        for peer in peers:
            assert peer.read_to_end() == "closed"
            assert peer.received.startswith(b"HTTP/1.1 408 ")


# Peers that go


HALVES = {
    "half a head": frame(TEXT, b"hello", mask=b"abcd")[:1],
    "half a length": frame(TEXT, b"x" * 300)[:3],
    "half a mask": frame(TEXT, b"hello", mask=b"abcd")[:4],
    "half a payload": frame(TEXT, b"hello", mask=b"abcd")[:-1],
    "half a large payload": frame(TEXT, b"x" * 100_000)[:80_000],
    "half a message": frame(TEXT, b"hello", fin=False),
    "half a close": frame(CLOSE, close_payload(1000, "bye"))[:-1],
}


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("name", HALVES)
def test_a_peer_that_goes_in_the_middle_is_forgotten(ours: Server, name: str, reset: bool) -> None:
    with unharmed(ours), open_websocket(ours.port, "/live/log/half") as peer:
        peer.send(HALVES[name])
        ours.until_stats("it is here", subscriptions=2)
        if reset:
            peer.vanish()
        else:
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.read_to_end() == "closed"
        ours.until_stats("it is gone", subscriptions=1)
    assert ours.ask("/live/log/half") == (200, b"[]")


def test_a_peer_that_goes_on_after_its_close_frame_is_not_heard(ours: Server) -> None:
    with unharmed(ours), open_websocket(ours.port, "/live/log/after") as peer:
        peer.send(frame(CLOSE, close_payload(1000)) + frame(TEXT, b"after") * 100)
        peer.read_to_end()
    assert ours.ask("/live/log/after") == (200, b"[]")


def test_a_refused_peer_that_goes_on_and_on_is_cut(hasty: Server) -> None:
    """It is read away for a while, so that it hears why; not for ever."""
    before = hasty.stats()["rss"]
    with open_websocket(hasty.port, "/live/log/on-and-on") as peer:
        peer.send(frame(3))
        peer.flood(b"\xff" * 65_536, most=1 << 50)
        hasty.until_stats("it is gone", subscriptions=0, sockets=0)
    assert hasty.stats()["rss"] - before < 16 * MIB


def test_garbage_ends_with_a_close_frame_and_nothing_else(ours: Server) -> None:
    rng = random.Random(3)
    with unharmed(ours), ExitStack() as stack:
        peers = [stack.enter_context(open_websocket(ours.port, "/live/quiet/garbage")) for _ in range(50)]
        for peer in peers:
            # opcode 3 to 7, or 11 to 15: nothing that could be a frame
            first = rng.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) | rng.choice([0, 0x80])
            peer.send(bytes([first, rng.randrange(256)]) + rng.randbytes(rng.randrange(5000)))
        for peer in peers:
            assert refused(peer)[0] == 1002


# TLS


def test_messages_by_tls(secure: Server) -> None:
    with unharmed(secure), follow(secure.port, "log/tls", context=secure.context) as peer:
        for size in (1, 20_000, 60_000):
            payload = random.Random(size).randbytes(size // 2).hex().encode()
            peer.send(frame(TEXT, payload, mask=b"\x01\x02\x03\x04"))
            peer.receive(lambda data, payload=payload: payload in data)  # type: ignore[misc]


@pytest.mark.parametrize("sent", [frame(3), frame(BINARY, length=2**63), frame(TEXT, b"x", masked=False)], ids=str)
def test_broken_frames_by_tls(secure: Server, sent: bytes) -> None:
    with unharmed(secure), open_websocket(secure.port, "/live/log/tls", context=secure.context) as peer:
        peer.send(sent)
        assert refused(peer)[0] == 1002


def test_pings_of_a_peer_that_does_not_read_by_tls(secure: Server) -> None:
    path = "/live/quiet/pings"
    with (
        unharmed(secure),
        open_websocket(secure.port, path, receive_buffer=4096, context=secure.context) as peer,
    ):
        peer.flood(frame(PING, b"x" * 125) * 500, most=64 * MIB)
        secure.until_stats("it is gone", subscriptions=1)


def test_a_peer_that_vanishes_by_tls_and_one_that_never_greets(secure: Server) -> None:
    with unharmed(secure):
        with open_websocket(secure.port, "/live/log/tls", context=secure.context) as peer:
            peer.send(frame(TEXT, b"x" * 100)[:50])
            secure.until_stats("it is here", subscriptions=2)
            peer.vanish()
            secure.until_stats("it is gone", subscriptions=1)
        with Peer(secure.port) as silent, Peer(secure.port) as wrong:
            wrong.send(upgrade("/live/log/tls"))
            wrong.read_to_end()
            assert b"HTTP/1.1 101" not in wrong.received
            silent.socket.close()
