"""``serve`` on real sockets, asked by the ``websockets`` library and by bytes."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

import tidewire
from tidewire import AddressInUse, BadAddress, Connection, ConnectionClosed, Server, serve

Scenario = Callable[[Server], Awaitable[None]]


async def echo(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message)


def play(handler: Any, scenario: Scenario, **options: Any) -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(10), serve(handler, port=0, **options) as server:
            await scenario(server)
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, "nothing is left behind"

    asyncio.run(run())


async def ask(port: int, request: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """One HTTP request by hand: status and body."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request.replace("\n", "\r\n").encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str = "/", **headers: str) -> str:
    lines = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\n{lines}Connection: close\n\n"


def test_an_echo() -> None:
    async def scenario(server: Server) -> None:
        assert server.url == f"ws://127.0.0.1:{server.port}"
        assert server.is_serving()
        async with connect(server.url) as client:
            for message in ("text", b"binary", "", "ä" * 100_000):
                await client.send(message)
                assert await client.recv() == message
            assert len(server.connections) == 1
        await until(lambda: not server.connections)

    play(echo, scenario)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_it_can_be_awaited_and_closed_by_hand() -> None:
    async def run() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        forever = asyncio.create_task(server.serve_forever())
        async with connect(server.url) as client:
            server.close()
            server.close()
            with pytest.raises(websockets.ConnectionClosedOK) as told:
                await client.recv()
            assert told.value.rcvd is not None
            assert told.value.rcvd.code == 1001
        await server.wait_closed()
        await server.close()
        await forever
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await connect(server.url)

    asyncio.run(run())


def test_cancelling_serve_forever_closes_it() -> None:
    async def run() -> None:
        server = await serve(echo, port=0)
        forever = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        forever.cancel()
        await asyncio.wait([forever])
        assert forever.cancelled()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await connect(server.url)

    asyncio.run(run())


def test_no_port_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"port=8000, or port=0 for a free one"):
        serve(echo)


def test_a_free_port_is_the_same_on_every_address() -> None:
    async def run() -> None:
        async with serve(echo, "localhost", 0) as server:
            assert {sock.getsockname()[1] for sock in server.sockets} == {server.port}
            for sock in server.sockets:
                host = "[::1]" if sock.family == socket.AF_INET6 else "127.0.0.1"
                async with connect(f"ws://{host}:{server.port}") as client:
                    await client.send("x")
                    assert await client.recv() == "x"
        async with serve(echo, "", 0) as server:
            assert len({sock.getsockname()[1] for sock in server.sockets}) == 1
            assert server.url.startswith(("ws://127.0.0.1:", "ws://[::1]:"))

    asyncio.run(run())


def test_a_busy_port_is_named() -> None:
    async def scenario(server: Server) -> None:
        with pytest.raises(AddressInUse, match=f"port {server.port} on 127.0.0.1 is in use"):
            await serve(echo, "127.0.0.1", server.port)

    play(echo, scenario)


def test_a_host_that_is_not_ours_is_explained() -> None:
    async def run() -> None:
        with pytest.raises(BadAddress, match="cannot listen on"):
            await serve(echo, "192.0.2.1", 0)
        with pytest.raises(BadAddress, match="no-such-host"):
            await serve(echo, "no-such-host.invalid", 0)

    asyncio.run(run())


def test_a_handler_that_returns_and_one_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection) -> None:
        if await connection.recv() == "raise":
            raise ValueError("a bug of the application")

    async def scenario(server: Server) -> None:
        for message, code in [("return", 1000), ("raise", 1011), ("return", 1000)]:
            async with connect(f"{server.url}/path?token=secret") as client:
                await client.send(message)
                with pytest.raises(websockets.ConnectionClosed) as told:
                    await client.recv()
                assert told.value.rcvd is not None
                assert told.value.rcvd.code == code

    with caplog.at_level(logging.ERROR):
        play(handler, scenario)
    (record,) = caplog.records
    assert "the handler of /path failed" in record.getMessage()
    assert "a bug of the application" in caplog.text
    assert "secret" not in caplog.text


def test_a_handler_that_is_told_the_end_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.recv()

    async def scenario(server: Server) -> None:
        async with connect(server.url) as client:
            await client.send("x")
        async with connect(server.url) as client:
            client.transport.abort()
        await until(lambda: not server.connections)

    with caplog.at_level(logging.WARNING):
        play(handler, scenario)
    assert not caplog.records


def test_a_cut_line_is_1006() -> None:
    endings: list[Any] = []

    async def handler(connection: Connection) -> None:
        try:
            async for _ in connection:
                pass
        except ConnectionClosed as closed:
            endings.append((type(closed).__name__, closed.code, connection.close_code))

    async def scenario(server: Server) -> None:
        async with connect(server.url) as client:
            client.transport.abort()
        await until(lambda: endings)
        assert endings == [("ConnectionClosedError", 1006, 1006)]

    play(handler, scenario)


def test_handlers_by_path() -> None:
    async def shout(connection: Connection) -> None:
        async for message in connection:
            assert isinstance(message, str)
            await connection.send(message.upper())

    async def scenario(server: Server) -> None:
        for path, answer in [("/", "x"), ("/shout?a=1", "X")]:
            async with connect(server.url + path) as client:
                await client.send("x")
                assert await client.recv() == answer
        with pytest.raises(websockets.InvalidStatus) as told:
            await connect(f"{server.url}/nowhere")
        assert told.value.response.status_code == 404
        assert b"nothing is served at '/nowhere': there is /, /shout" in told.value.response.body

    async def to_strangers(server: Server) -> None:
        with pytest.raises(websockets.InvalidStatus) as told:
            await connect(f"{server.url}/nowhere")
        assert told.value.response.body == b"nothing is served at '/nowhere'\n"

    play({"/": echo, "/shout": shout}, scenario)
    play({"/": echo, "/shout": shout}, to_strangers, origins=["https://app.example"])


def test_who_comes_while_it_stops_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        await server._app.drain()
        with pytest.raises(websockets.InvalidStatus) as told:
            await connect(server.url)
        assert told.value.response.status_code == 503
        assert b"stopping" in told.value.response.body

    with caplog.at_level(logging.WARNING):
        play(echo, scenario)
    assert not caplog.records


def test_a_start_that_is_cancelled_leaves_no_socket() -> None:
    async def run() -> None:
        starting = asyncio.ensure_future(serve(echo, port=0)._start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    # an open socket would be a ResourceWarning, which is an error here
    asyncio.run(run())


def test_plain_http_is_told_what_this_is() -> None:
    async def scenario(server: Server) -> None:
        status, body = await ask(server.port, get("/x", Host=f"127.0.0.1:{server.port}"))
        assert status == 426
        assert f"tidewire cat ws://127.0.0.1:{server.port}/x" in body

    play(echo, scenario)


@pytest.mark.parametrize(
    ("origin", "origins", "allowed"),
    [
        (None, None, True),
        ("http://localhost:3000", None, True),
        ("https://evil.example", None, False),
        ("null", None, False),
        ("https://app.example", ["https://app.example"], True),
        ("https://evil.example", ["https://app.example"], False),
        ("https://evil.example", ["*"], True),
        (None, [None, "https://app.example"], True),
    ],
)
def test_origins(origin: str | None, origins: Any, allowed: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        if allowed:
            async with connect(server.url, origin=origin):
                return
        with pytest.raises(websockets.InvalidStatus) as told:
            await connect(server.url, origin=origin)
        assert told.value.response.status_code == 403

    play(echo, scenario, origins=origins)
    assert allowed or "origins=[" in caplog.text or origin == "null"


def test_a_loopback_server_answers_to_loopback_names_only() -> None:
    async def scenario(server: Server) -> None:
        for host, status in [("evil.example", 421), ("evil.example:80", 421), ("localhost", 426), ("[::1]:9", 426)]:
            assert (await ask(server.port, get(Host=host)))[0] == status

    async def open_scenario(server: Server) -> None:
        assert (await ask(server.port, get(Host="app.example")))[0] == 426

    play(echo, scenario)
    play(echo, open_scenario, origins=["https://app.example"])


def test_subprotocols_and_the_handshake() -> None:
    seen: list[Any] = []

    async def handler(connection: Connection) -> None:
        seen.append((connection.subprotocol, connection.request.path, connection.request.headers["X-Token"]))

    async def scenario(server: Server) -> None:
        for offered, chosen in [(["b", "a"], "a"), (["c"], None), (None, None)]:
            async with connect(
                f"{server.url}/p?q=1",
                subprotocols=offered,  # type: ignore[arg-type]
                additional_headers={"X-Token": "t"},
            ) as client:
                assert client.subprotocol == chosen
        assert seen == [("a", "/p?q=1", "t"), (None, "/p?q=1", "t"), (None, "/p?q=1", "t")]

    play(handler, scenario, subprotocols=["a", "b"])


@pytest.mark.parametrize("fragments", [1, 30])
def test_a_message_over_the_limit_names_both_numbers_on_both_sides(fragments: int) -> None:
    told: list[ConnectionClosed] = []

    async def handler(connection: Connection) -> None:
        try:
            await connection.recv()
        except ConnectionClosed as closed:
            told.append(closed)

    async def scenario(server: Server) -> None:
        async with connect(server.url, compression=None, max_size=None) as client:
            # far more than the buffers of the line hold: the answer must survive what is still under way
            piece = b"x" * (30_000_000 // fragments)

            async def send() -> None:
                await client.send([piece] * fragments if fragments > 1 else piece)
                await client.recv()

            with pytest.raises(websockets.ConnectionClosedError) as heard:
                await send()
        assert heard.value.rcvd is not None
        assert heard.value.rcvd.code == 1009
        await until(lambda: told)
        assert told[0].sent is not None
        assert told[0].code == 1009
        assert told[0].reason == heard.value.rcvd.reason
        assert "exceeds limit of 3000000 bytes" in told[0].reason
        assert "bytes" in told[0].reason.split("exceeds")[0]

    play(handler, scenario, max_size=3_000_000)


def test_text_that_is_not_utf8_is_1007() -> None:
    async def scenario(server: Server) -> None:
        async with connect(server.url) as client:
            await client.send(b"\xff\xfe", text=True)
            with pytest.raises(websockets.ConnectionClosedError) as told:
                await client.recv()
            assert told.value.rcvd is not None
            assert told.value.rcvd.code == 1007
            assert "not UTF-8" in told.value.rcvd.reason

    play(echo, scenario)


def test_pings_and_the_round_trip() -> None:
    seen: list[float] = []

    async def handler(connection: Connection) -> None:
        first = await connection.ping("same")
        with pytest.raises(ValueError, match="same data"):
            await connection.ping("same")
        second = await connection.ping()
        seen.extend([await second, await first, connection.latency_s])
        await connection.send("measured")
        await connection.recv()

    async def scenario(server: Server) -> None:
        async with connect(server.url) as client:
            assert await client.recv() == "measured"
            assert len(seen) == 3
            assert all(0 < latency < 5 for latency in seen)

    play(handler, scenario)


def test_a_ping_to_a_peer_that_is_gone_is_told() -> None:
    told: list[BaseException] = []

    async def handler(connection: Connection) -> None:
        waiter = await connection.ping()
        await connection.send("pinged")
        try:
            await waiter
        except ConnectionClosed as closed:
            told.append(closed)

    async def scenario(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"pinged")
        writer.transport.abort()
        await until(lambda: told)

    play(handler, scenario)


def test_a_peer_whose_pongs_we_do_not_read_is_not_dropped() -> None:
    """The handler takes nothing for longer than a ping may take, and what is unread keeps the pongs away."""
    held = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.recv()
        await held.wait()
        count = 1
        async for message in connection:
            count += 1
            if message == "last":
                break
        await connection.send(f"{count}")

    async def scenario(server: Server) -> None:
        async with connect(server.url, ping_interval=None) as client:
            for _ in range(99):
                await client.send("x")
            await client.send("last")
            # several pings and their deadlines
            await asyncio.sleep(0.5)
            held.set()
            assert await client.recv() == "100"

    play(handler, scenario, ping_interval_s=0.05, ping_timeout_s=0.05)


def test_a_peer_that_answers_no_ping_is_dropped() -> None:
    ended: list[int | None] = []

    async def handler(connection: Connection) -> None:
        await connection.wait_closed()
        ended.append(connection.close_code)

    async def scenario(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await until(lambda: ended)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert ended == [1006]
        writer.close()

    play(handler, scenario, ping_interval_s=0.05, ping_timeout_s=0.05)


def test_a_handler_that_never_receives_has_a_while_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire.server.handler.RAW_GRACE_S", 0.05)
    seen: list[str] = []

    async def handler(connection: Connection) -> None:
        if connection.request.path == "/pushes":
            try:
                while True:
                    await connection.send("tick")
                    await asyncio.sleep(0.001)
            except ConnectionClosed:
                seen.append("told")
        else:
            await connection.send("tick")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    async def scenario(server: Server) -> None:
        for path in ("/pushes", "/sleeps"):
            async with connect(server.url + path) as client:
                await client.recv()
            await until(lambda: not server.connections)
        assert seen == ["told", "cancelled"]

    play(handler, scenario)


def test_closing_ends_handlers_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewire.server.run._GRACE_S", 1)
    ended: list[str] = []

    async def handler(connection: Connection) -> None:
        await connection.send("here")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def run() -> None:
        async with asyncio.timeout(10):
            server = await serve(handler, port=0)
            async with connect(server.url) as client:
                await client.recv()
                await server.close()
            assert ended == ["cancelled"]

    asyncio.run(run())


def test_two_servers_and_an_application_live_in_one_loop() -> None:
    async def run() -> None:
        async with serve(echo, port=0) as one, serve(echo, port=0) as two:
            assert one.port != two.port
            async with tidewire.connect(one.url) as first, tidewire.connect(two.url) as second:
                await first.send("1")
                await second.send("2")
                assert (await first.recv(), await second.recv()) == ("1", "2")

    asyncio.run(run())


def test_no_signal_handler_is_touched() -> None:
    import signal

    async def run() -> None:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        async with serve(echo, port=0):
            assert {number: signal.getsignal(number) for number in before} == before
        assert {number: signal.getsignal(number) for number in before} == before

    asyncio.run(run())


def test_tokens_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        async with connect(f"{server.url}/x?token=secret&a=1"):
            pass

    with caplog.at_level(logging.DEBUG, "uvicorn.error"):
        play(echo, scenario)
    assert "/x?" in caplog.text
    assert "secret" not in caplog.text


def test_logging_is_left_as_it_was() -> None:
    before = list(logging.getLogger("uvicorn").handlers), logging.getLogger("uvicorn.error").level

    async def run() -> None:
        async with serve(echo, port=0):
            pass

    asyncio.run(run())
    assert (list(logging.getLogger("uvicorn").handlers), logging.getLogger("uvicorn.error").level) == before


def test_a_port_that_is_only_half_free_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free on the first address, taken on the second: another one is taken for both."""
    from tidewire.server import run as running

    real, refusals = running._bind_one, [OSError(errno.EADDRINUSE, "taken")]

    def bind_one(family: int, kind: int, number: int, address: tuple[Any, ...]) -> socket.socket:
        if address[1] and refusals:
            raise refusals.pop()
        return real(family, kind, number, address)

    monkeypatch.setattr(running, "_bind_one", bind_one)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 0)) for n in (1, 2)],
    )
    sockets = running.bind("localhost", 0)
    try:
        assert not refusals
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert len(sockets) == 2
    finally:
        for sock in sockets:
            sock.close()
