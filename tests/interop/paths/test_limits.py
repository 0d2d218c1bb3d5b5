"""Large messages up to the limit, and what is said beyond it; whoever serves the application."""

from __future__ import annotations

import pytest

from tests.client.servers import run
from tests.interop.paths.app import MESSAGE_BYTES_MAX
from tests.interop.paths.readers import read_close
from tests.interop.paths.servers import NOBODY, Server
from tests.wire.frames import BINARY, CLOSE, CONTINUATION, TEXT, frame, open_websocket, split
from tests.wire.servers import Peer
from tidewire import Refused, connect, publish, subscribe

pytestmark = pytest.mark.interop


def test_a_message_of_the_largest_size_arrives_on_each_wire(server: Server) -> None:
    largest = [b"\xff" * MESSAGE_BYTES_MAX, "x" * MESSAGE_BYTES_MAX, "ü" * (MESSAGE_BYTES_MAX // 2)]

    async def main() -> None:
        url = f"{server.live}/log/largest"
        async with subscribe(url) as messages, connect(f"{server.ws_url}/live/log/largest") as bare:
            for message in largest:
                await publish(url, message)
                assert (await messages.next(10)).data == message
                assert await bare.recv() == message
                await bare.send(message)
                assert (await messages.next(10)).data == message
                assert await bare.recv() == message

    run(main())


@pytest.mark.parametrize("kind", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["one frame", "in parts"])
def test_a_byte_more_ends_the_socket_and_names_both_numbers(server: Server, kind: int, in_parts: bool) -> None:
    message = b"x" * (MESSAGE_BYTES_MAX + 1)
    with open_websocket(server.port, "/live/log/too-large") as peer:
        server.until_stats("it is there", subscriptions=1)
        if in_parts:
            half = len(message) // 2
            peer.send(frame(kind, message[:half], fin=False) + frame(CONTINUATION, message[half:]))
        else:
            peer.send(frame(kind, message))
        code, reason = read_close(server, peer)
    assert code == 1009
    assert str(MESSAGE_BYTES_MAX) in reason
    assert str(MESSAGE_BYTES_MAX + 1) in reason
    server.until_stats("it is gone", **NOBODY)
    assert server.ask("/live/log/too-large") == (200, b"[]")


def test_a_post_of_a_byte_more_is_413_and_names_both_numbers(server: Server) -> None:
    async def main() -> None:
        with pytest.raises(Refused) as caught:
            await publish(f"{server.live}/log/post-too-large", "x" * (MESSAGE_BYTES_MAX + 1))
        assert caught.value.status == 413
        assert str(MESSAGE_BYTES_MAX) in caught.value.detail
        assert str(MESSAGE_BYTES_MAX + 1) in caught.value.detail

    run(main())


def test_a_body_without_a_length_is_counted_as_it_comes(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.request("/live/log/endless", "POST", content_type="text/plain", transfer_encoding="chunked")
        for _ in range(5):
            peer.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        peer.receive(lambda data: b"\r\n\r\n" in data)
        assert b" 413 " in peer.received.splitlines()[0]
    assert server.ask("/live/log/endless") == (200, b"[]")


def test_the_server_has_a_limit_of_its_own(server: Server) -> None:
    """On raw connections, where no topic has one; the connection ends, and the others go on."""
    way = server.way
    with open_websocket(server.port, "/raw/echo") as other, open_websocket(server.port, "/raw/echo") as peer:
        largest = b"x" * way.wire_bytes_max
        peer.send(frame(BINARY, largest))
        peer.receive(lambda data: len(data) > len(largest))
        peer.received = b""
        payload = b"" if way.judges_by_the_head else largest + b"x"
        peer.send(frame(BINARY, payload, length=way.wire_bytes_max + 1))
        peer.receive(lambda data: split(data)[0])
        (close,) = split(peer.received)[0]
        assert close.opcode == CLOSE
        code, reason = close.close if close.payload else (1005, "")
        other.send(frame(TEXT, b"still here"))
        other.receive(lambda data: data.endswith(b"still here"))
    assert code == way.too_large[0]
    assert way.too_large[1] in reason
    server.until_notes("echo is over", "echo is over")
