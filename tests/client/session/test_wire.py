"""The socket of a session: how it is opened, and what each of its ends advises."""

import asyncio
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.client.servers import run
from tidewire.client.dial import Cut
from tidewire.client.errors import Disconnected, NotASession, Refused
from tidewire.client.reconnect import ComeBack
from tidewire.client.session.place import session_address
from tidewire.client.session.wire import Handshake, explain_end, opener
from tidewire.errors import Close, closed_error
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec


@pytest.mark.parametrize(
    ("rcvd", "sent", "received_first", "come_back", "error", "code"),
    [
        # the server's word counts
        (Close(3001, "shutdown"), Close(3001, ""), True, ComeBack.FAST, Disconnected, 3001),
        (Close(3500, "invalid token"), None, None, ComeBack.STOP, Refused, 3500),
        (Close(1000, ""), Close(1000, ""), True, ComeBack.FAST, Disconnected, 1000),
        # a line that was cut
        (None, None, None, ComeBack.FAST, Disconnected, 1006),
        # what this side has ended, whatever is answered to it
        (Close(1009, ""), Close(1009, "too large"), False, ComeBack.STOP, Disconnected, 1009),
        (None, Close(1009, "too large"), None, ComeBack.STOP, Disconnected, 1009),
        (Close(1002, ""), Close(1002, "bad frame"), False, ComeBack.SLOW, Disconnected, 1006),
        (None, Close(1007, ""), None, ComeBack.SLOW, Disconnected, 1006),
        (None, Close(1011, "keepalive ping timeout"), None, ComeBack.FAST, Disconnected, 1006),
    ],
)
def test_ends(rcvd: Any, sent: Any, received_first: Any, come_back: ComeBack, error: type[Any], code: int) -> None:
    advice, raised = explain_end(closed_error(rcvd, sent, received_first), "ws://h")
    assert (advice.come_back, type(raised), raised.code) == (come_back, error, code)


def test_ends_are_sentences() -> None:
    def sentence(rcvd: Close | None, sent: Close | None) -> str:
        return str(explain_end(closed_error(rcvd, sent), "ws://h")[1])

    assert sentence(Close(3500, "invalid token"), None) == "ws://h refused with close code 3500: invalid token"
    assert sentence(None, None) == "the connection to ws://h ended: the line was cut"
    assert sentence(None, Close(1009, "")).endswith(
        "a frame was larger than max_size_bytes; raise that limit to read it"
    )
    assert sentence(None, Close(1002, "bad opcode")).endswith("broke the WebSocket protocol (bad opcode)")


def open_at(port: int, codec: Codec, max_size_bytes: int = 1000) -> Any:
    handshake = Handshake([("x-who", "me")], None, None, 5.0, max_size_bytes)
    return opener(session_address(f"http://127.0.0.1:{port}"), codec, handshake)()


def test_what_is_asked_for() -> None:
    async def main() -> None:
        asked: list[tuple[str, str | None, str | None]] = []

        async def talk(socket: ServerConnection) -> None:
            request = socket.request
            assert request is not None
            asked.append((request.path, request.headers.get("sec-websocket-protocol"), request.headers.get("x-who")))
            await socket.wait_closed()

        def choose(socket: ServerConnection, offered: Any) -> Any:
            return offered[0] if offered else None

        async with serve(talk, "127.0.0.1", 0, select_subprotocol=choose) as server:
            port = server.sockets[0].getsockname()[1]
            for codec in (JSON, PROTOBUF):
                await (await open_at(port, codec)).close(1000, "")
        assert asked == [("/-/session", None, "me"), ("/-/session", "centrifuge-protobuf", "me")]

    run(main())


def test_a_server_without_protobuf() -> None:
    async def main() -> None:
        async def talk(socket: ServerConnection) -> None:
            await socket.wait_closed()

        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Cut) as caught:
                await open_at(port, PROTOBUF)
            assert isinstance(caught.value.error, NotASession)
            assert "leave protobuf=True out" in str(caught.value.error)
            assert caught.value.advice.come_back is ComeBack.STOP

    run(main())


def test_a_frame_that_is_too_large_ends_it() -> None:
    async def main() -> None:
        async def talk(socket: ServerConnection) -> None:
            await socket.send("x" * 2000)
            await socket.wait_closed()

        async with serve(talk, "127.0.0.1", 0) as server:
            wire = await open_at(server.sockets[0].getsockname()[1], JSON)
            with pytest.raises(Exception, match="1009") as caught:
                await wire.receive()
            assert explain_end(caught.value, "ws://h")[0].come_back is ComeBack.STOP  # type: ignore[arg-type]
            wire.abort()
            await asyncio.sleep(0)

    run(main())
