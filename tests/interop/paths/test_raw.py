"""``accept(websocket)`` in a route, whoever serves the application (CONTRACTS 9)."""

from __future__ import annotations

import asyncio

import pytest

from tests.client.servers import run
from tests.interop.paths.readers import read_close
from tests.interop.paths.servers import NOBODY, Server
from tests.wire.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, frame, open_websocket, split, upgrade
from tests.wire.servers import Peer
from tidewire import ConnectionClosedError, ConnectionClosedOK, connect

pytestmark = pytest.mark.interop


def test_an_echo(server: Server) -> None:
    async def main() -> None:
        async with connect(f"{server.ws_url}/raw/echo") as connection:
            for message in ("hällo", b"\x00\xff", "", b"", "x" * 70_000, bytes(70_000)):
                await connection.send(message)
                assert await connection.recv() == message
            # many at once, in order
            for number in range(200):
                await connection.send(str(number))
            assert [await connection.recv() for _ in range(200)] == [str(number) for number in range(200)]
        await asyncio.to_thread(server.until_notes, "echo is over")

    run(main())


def test_frames_in_parts_and_pings_between_them(server: Server) -> None:
    with open_websocket(server.port, "/raw/echo") as peer:
        peer.send(frame(TEXT, "hä".encode()[:2], fin=False) + frame(PING, b"ping"))
        peer.send(frame(CONTINUATION, "hä".encode()[2:], fin=False) + frame(CONTINUATION, b"llo"))
        peer.receive(lambda data: len(split(data)[0]) >= 2)
        assert split(peer.received)[0] == [(PONG, b"ping"), (TEXT, "hällo".encode())]


def test_the_subprotocol_and_the_headers_of_an_answer(server: Server) -> None:
    async def main() -> None:
        async with connect(f"{server.ws_url}/raw/chosen", subprotocols=["first", "second"]) as connection:
            assert connection.subprotocol == "second"
            assert await connection.recv() == "second"

    run(main())
    with Peer(server.port) as peer:
        peer.send(upgrade("/raw/chosen", "sec-websocket-protocol: first, second"))
        head = peer.receive(lambda data: b"\r\n\r\n" in data).decode("latin-1").lower()
        assert "sec-websocket-protocol: second" in head
        assert ("x-greeting: hello" in head) is server.way.accept_headers


def test_who_closes_with_a_code_is_heard(server: Server) -> None:
    with open_websocket(server.port, "/raw/ending") as peer:
        peer.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(CLOSE, b"\x0f\xa0why"))
        peer.receive(lambda data: split(data)[0])
        assert split(peer.received)[0][0].close[0] == 4000
    server.until_notes(
        "got 'one'",
        "got 'two'",
        f"ConnectionClosedError {server.way.hears_close}",
        "send: ConnectionClosedError",
        "closed",
    )


def test_who_is_cut_is_heard(server: Server) -> None:
    peer = open_websocket(server.port, "/raw/ending")
    peer.send(frame(TEXT, b"one"))
    server.until_notes("got 'one'")
    peer.vanish()
    kind = "ConnectionClosedOK" if server.way.hears_cut == 1005 else "ConnectionClosedError"
    server.until_notes(f"{kind} {server.way.hears_cut}", f"send: {kind}", "closed")


@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_a_block_that_never_receives_is_cancelled(server: Server, how: str) -> None:
    peer = open_websocket(server.port, "/raw/deaf")
    peer.receive(lambda data: split(data)[0])
    # what waits unread does not hide the end
    peer.send(frame(TEXT, b"unread") * 3)
    if how == "closes":
        peer.send(frame(CLOSE, b"\x03\xe8"))
        peer.read_to_end()
        peer.socket.close()
    else:
        peer.vanish()
    server.until_notes("cancelled", "the route goes on")


def test_more_unread_messages_than_there_is_room_for_do_not_hide_the_end(server: Server) -> None:
    peer = open_websocket(server.port, "/raw/deaf")
    peer.receive(lambda data: split(data)[0])
    peer.send(frame(TEXT, b"unread") * 200)
    # it is heard all the time: a ping is answered
    peer.received = b""
    peer.send(frame(PING, b"?"))
    peer.receive(lambda data: split(data)[0])
    peer.vanish()
    server.until_notes("cancelled", "the route goes on")


@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_a_block_that_only_sends_is_stopped(server: Server, how: str) -> None:
    peer = open_websocket(server.port, "/raw/pushing")
    peer.receive(lambda data: len(split(data)[0]) >= 3)
    if how == "closes":
        peer.send(frame(CLOSE, b"\x03\xe8"))
        peer.read_to_end()
        peer.socket.close()
    else:
        peer.vanish()
    server.until_notes("the pushing is over")
    server.until_stats("nothing is left", **NOBODY)


def test_an_endpoint_with_nothing_of_ours_works_as_ever(server: Server) -> None:
    async def main() -> None:
        async with connect(f"{server.ws_url}/raw/unchanged") as connection:
            await connection.send("hello")
            assert await connection.recv() == "HELLO"

    run(main())
    server.until_notes("unchanged is over")


def test_a_block_that_closes_is_heard(server: Server) -> None:
    with open_websocket(server.port, "/raw/closing") as peer:
        peer.send(frame(TEXT, b"go"))
        assert read_close(server, peer) == (4321, "enough")


def test_leaving_the_block_closes_well(server: Server) -> None:
    async def main() -> None:
        async with connect(f"{server.ws_url}/raw/chosen", subprotocols=["first", "second"]) as connection:
            assert await connection.recv() == "second"
            with pytest.raises(ConnectionClosedOK) as caught:
                await connection.recv()
            assert caught.value.code == 1000

    run(main())


def test_an_error_in_the_block_closes_with_1011(server: Server) -> None:
    async def main() -> None:
        async with connect(f"{server.ws_url}/raw/broken") as connection:
            await connection.send("go")
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
            assert caught.value.code == 1011

    run(main())
    # every server reports it in words of its own
    server.expected_errors = ["LookupError: broken on purpose", "Traceback", "ERROR"]
