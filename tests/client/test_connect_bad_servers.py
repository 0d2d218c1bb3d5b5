"""``connect`` against servers that are not there, not well, not trusted or not WebSockets: one sentence each."""

from __future__ import annotations

import asyncio
import email.utils
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from tests.client.servers import (
    TIMEOUT_S,
    Line,
    authority,
    expired_certificate,
    for_ever,
    frame,
    good_certificate,
    http,
    listening,
    opened,
    read_close,
    read_frame,
    read_head,
    run,
    saying,
    serving,
    trusting,
)
from tidewire import (
    Close,
    Connection,
    ConnectionClosedError,
    NoAnswer,
    NotAWebSocket,
    NothingListens,
    Refused,
    connect,
)
from tidewire.client.connect import Connecting
from tidewire.errors import ClientError


async def fail(connecting: Connecting, kind: type[ClientError], sentence: str) -> Any:
    """It must raise ``kind`` with exactly ``sentence``."""
    with pytest.raises(kind) as caught:
        await connecting
    assert str(caught.value) == sentence
    assert type(caught.value) is kind
    return caught.value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nothing_listens(scheme: str, host: str) -> None:
    async def main() -> None:
        url = f"{scheme}://{host}:{free_port()}/a"
        error = await fail(connect(url), NothingListens, f"nothing listens at {url}: start the server first")
        assert isinstance(error, ConnectionRefusedError)

    run(main())


def test_a_name_that_nobody_has() -> None:
    async def main() -> None:
        with pytest.raises(
            NothingListens, match=r"cannot reach ws://nobody\.invalid:1/: .+; check the address and the net"
        ):
            await connect("ws://nobody.invalid:1", proxy=None)

    run(main())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_accepts_and_never_answers(scheme: str) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await for_ever(reader, writer)
            gone.set()

        async with listening(talk) as port:
            url = f"{scheme}://127.0.0.1:{port}/a"
            sentence = f"{url} gave no answer: it did not complete the handshake within 0.05 s"
            error = await fail(connect(f"{url}?token=secret", open_timeout_s=0.05), NoAnswer, sentence)
            assert isinstance(error, TimeoutError)
            await gone.wait()

    run(main())


def test_answers_one_byte_at_a_time_for_ever() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_head(reader)
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.001)

        async with listening(talk) as port:
            with pytest.raises(NoAnswer, match=r"within 0\.1 s"):
                await connect(f"ws://127.0.0.1:{port}", open_timeout_s=0.1)

    run(main())


IS_NO_WEBSOCKET = {
    "200": (http("200 OK", body=b"hello"), "it answers plain HTTP with 200 and opens no WebSocket"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "it answers plain HTTP with 204 and opens no WebSocket"),
    "301 to a page": (
        http("301 Moved Permanently", "Location: https://127.0.0.1:1/b?token=secret"),
        "it redirects to https://127.0.0.1:1/b: if that is where it has gone, connect to wss://127.0.0.1:1/b",
    ),
    "301 to nowhere": (
        http("301 Moved Permanently", "Location: gopher://x/"),
        "it redirects to what is no URL of a WebSocket",
    ),
    "301 without a place": (http("301 Moved"), "it answers plain HTTP with 301 and opens no WebSocket"),
    "301 to itself": (
        http("301 Moved", "Location: /a"),
        "it does not answer a WebSocket handshake (more than 10 redirects)",
    ),
    "garbage": (
        b"\x00\xff garbage \r\n\r\n",
        "it does not answer a WebSocket handshake (did not receive a valid HTTP response)",
    ),
    "another protocol": (
        b"SSH-2.0-OpenSSH_9.6\r\n",
        "it does not answer a WebSocket handshake (did not receive a valid HTTP response)",
    ),
    "a wrong key": (
        http("101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x"),
        "it does not answer a WebSocket handshake (invalid Sec-WebSocket-Accept header: x)",
    ),
    "an endless head": (
        b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 1000,
        "it does not answer a WebSocket handshake (did not receive a valid HTTP response)",
    ),
}


@pytest.mark.parametrize("case", IS_NO_WEBSOCKET)
def test_answers_that_open_no_websocket(case: str) -> None:
    answer, why = IS_NO_WEBSOCKET[case]

    async def main() -> None:
        async with listening(saying(answer)) as port:
            url = f"ws://127.0.0.1:{port}/a"
            await fail(connect(f"{url}?token=secret"), NotAWebSocket, f"{url} is no WebSocket: {why}")

    run(main())


def test_redirect_to_a_websocket_is_followed() -> None:
    async def main() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"hello"))
            await read_close(reader)

        async with (
            listening(opened(greet)) as there,
            listening(saying(http("307 Moved", f"Location: ws://127.0.0.1:{there}/b"))) as here,
            connect(f"ws://127.0.0.1:{here}/a") as connection,
        ):
            assert await connection.recv() == "hello"
            assert connection.request.path == "/b"

    run(main())


REFUSALS = {
    400: "it does not understand the handshake: check the URL, and whether it begins with ws:// or wss://",
    401: "send credentials with the request: headers={'Authorization': ...}, or a token in the URL",
    403: "ask with credentials that may, or from an origin it allows: origin=...",
    404: "check the path of the URL",
    429: "connect less often",
    500: "it failed; its log says why",
    503: "it is overloaded or shutting down: try again later",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_refusals_say_what_to_do(status: int) -> None:
    async def main() -> None:
        async with listening(saying(http(f"{status} Whatever", "Content-Type: text/html", body=b"<h1>"))) as port:
            url = f"ws://127.0.0.1:{port}/a"
            error = await fail(
                connect(f"{url}?token=secret"), Refused, f"{url} refused with {status} ({REFUSALS[status]})"
            )
            assert (error.status, error.code, error.detail, error.retry_after_s) == (status, None, "", None)

    run(main())


def test_refusal_in_the_servers_own_words() -> None:
    async def main() -> None:
        said = b'{"detail": "members only, ask the door keeper"}'
        async with listening(saying(http("403 Forbidden", "Content-Type: application/json", body=said))) as port:
            url = f"ws://127.0.0.1:{port}/a"
            await fail(connect(url), Refused, f"{url} refused with 403: members only, ask the door keeper")

    run(main())


@pytest.mark.parametrize(
    ("value", "least_s", "most_s"),
    [("7", 7, 7), (email.utils.formatdate(time.time() + 1800, usegmt=True), 1, 1800), ("99999999", 3600, 3600)],
    ids=["seconds", "a date", "too long"],
)
def test_too_many_requests_and_when_to_come_back(value: str, least_s: float, most_s: float) -> None:
    async def main() -> None:
        async with listening(saying(http("429 Too Many Requests", f"Retry-After: {value}"))) as port:
            with pytest.raises(Refused, match=r"refused with 429 \(try again in [\d.]+ s\)$") as caught:
                await connect(f"ws://127.0.0.1:{port}")
            assert caught.value.retry_after_s is not None
            assert least_s <= caught.value.retry_after_s <= most_s

    run(main())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switch", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_half_an_answer(said: bytes, how: str) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if how == "close":
                await saying(said)(reader, writer)
            else:
                # closing with input unread resets the line
                await reader.readexactly(1)
                writer.write(said)
                writer.transport.abort()

        async with listening(talk) as port:
            url = f"ws://127.0.0.1:{port}/a"
            why = "the line was cut during the handshake (if the server speaks TLS, ask it by wss://)"
            await fail(connect(url), NoAnswer, f"{url} gave no answer: {why}")

    run(main())


# Certificates and TLS

_TRUST = "if you know the server, name a file with its authority in SSL_CERT_FILE, or give a fitting ssl context"
BAD_CERTIFICATES: dict[str, tuple[Callable[[], trustme.LeafCert], str]] = {
    "expired": (expired_certificate, "its certificate has expired; whoever runs the server has to renew it"),
    "of another authority": (
        lambda: trustme.CA().issue_cert("127.0.0.1"),
        f"its certificate is signed by an authority that this machine does not trust; {_TRUST}",
    ),
    "for another name": (
        lambda: authority().issue_cert("elsewhere.example"),
        "its certificate is for another address; connect by the name or address it was made for",
    ),
}


@pytest.mark.parametrize("case", BAD_CERTIFICATES)
def test_certificates_that_are_not_good(case: str) -> None:
    make, why = BAD_CERTIFICATES[case]

    async def main() -> None:
        async with listening(for_ever, tls=serving(make())) as port:
            url = f"wss://127.0.0.1:{port}/a"
            await fail(connect(url, ssl=trusting()), NothingListens, f"cannot reach {url}: {why}")

    run(main())


def test_certificate_for_another_host_name() -> None:
    async def main() -> None:
        async with listening(for_ever, tls=serving(authority().issue_cert("elsewhere.example"))) as port:
            url = f"wss://localhost:{port}/a"
            why = "its certificate is for another name; connect by the name it was made for"
            await fail(connect(url, ssl=trusting()), NothingListens, f"cannot reach {url}: {why}")

    run(main())


def test_self_signed_certificate(tmp_path: Any) -> None:
    """A root that serves itself: what everybody makes with one line of openssl."""
    root = trustme.CA()
    root.cert_pem.write_to_path(tmp_path / "root.pem")
    root.private_key_pem.write_to_path(tmp_path / "root.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "root.pem", tmp_path / "root.key")

    async def main() -> None:
        async with listening(for_ever, tls=context) as port:
            url = f"wss://127.0.0.1:{port}/a"
            why = f"its certificate is self-signed, so nobody vouches for it; {_TRUST}"
            await fail(connect(url, ssl=trusting()), NothingListens, f"cannot reach {url}: {why}")

    run(main())


def test_by_default_the_trust_of_the_system_counts() -> None:
    async def main() -> None:
        async with listening(for_ever, tls=serving(good_certificate())) as port:
            with pytest.raises(NothingListens, match="an authority that this machine does not trust"):
                await connect(f"wss://127.0.0.1:{port}")

    run(main())


def test_plain_server_asked_by_wss() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(http("400 Bad Request"))
            writer.write_eof()
            await for_ever(reader, writer)

        async with listening(talk) as port:
            url = f"wss://127.0.0.1:{port}/a"
            why = "it does not speak TLS; ask it by ws:// if it is meant to be without"
            await fail(connect(url), NotAWebSocket, f"{url} is no WebSocket: {why}")

    run(main())


def test_plain_server_that_hangs_up_on_wss() -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1 << 16)

        async with listening(talk) as port:
            url = f"wss://127.0.0.1:{port}/a"
            why = "the line was cut during the TLS handshake (if the server does not speak TLS, ask it by ws://)"
            await fail(connect(url), NoAnswer, f"{url} gave no answer: {why}")

    run(main())


def test_tls_server_asked_by_ws() -> None:
    async def main() -> None:
        async with listening(for_ever, tls=serving(good_certificate())) as port:
            with pytest.raises(NoAnswer, match=re.escape("(if the server speaks TLS, ask it by wss://)")):
                await connect(f"ws://127.0.0.1:{port}")

    run(main())


def test_ssl_for_a_url_without_tls() -> None:
    with pytest.raises(ValueError, match="is not encrypted: write wss://, or leave ssl out"):
        connect("ws://127.0.0.1:1", ssl=trusting())


# After the handshake


def hearing(payload: bytes, told: asyncio.Future[tuple[int, str]]) -> Any:
    """A server that says ``payload`` and notes the close frame it gets."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        told.set_result(await read_close(reader))

    return opened(talk)


BREACHES = {
    "invalid UTF-8": (frame(1, b"ab\xff"), 1007),
    "invalid UTF-8 over two fragments": (frame(1, b"\xc3", fin=False) + frame(0, b"\x28"), 1007),
    "half a character at the end": (frame(1, b"\xc3"), 1007),
    "one frame over the limit": (frame(2, bytes(201)), 1009),
    "many fragments over the limit": (frame(2, bytes(160), fin=False) + frame(0, bytes(41)), 1009),
    "an unknown opcode": (frame(3, b"x"), 1002),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a long ping": (frame(9, bytes(126)), 1002),
    "a masked frame": (b"\x81\x81\x00\x00\x00\x00x", 1002),
    "a reserved bit": (b"\xc1\x01x", 1002),
}


@pytest.mark.parametrize("case", BREACHES)
def test_what_breaks_the_protocol_is_told_on_both_sides(case: str) -> None:
    payload, code = BREACHES[case]

    async def main() -> None:
        told: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        async with listening(hearing(payload, told)) as port:
            async with connect(f"ws://127.0.0.1:{port}", max_size=200) as connection:
                with pytest.raises(ConnectionClosedError) as caught:
                    await connection.recv()
            assert caught.value.sent is not None
            assert (caught.value.sent.code, connection.close_code) == (code, code)
            assert await told == (code, caught.value.sent.reason)
            if code == 1009:
                assert caught.value.sent.reason == (
                    "frame with 201 bytes exceeds limit of 200 bytes"
                    if "one frame" in case
                    else "frame with 41 bytes after reading 160 bytes exceeds limit of 200 bytes"
                )

    run(main())


@pytest.mark.parametrize("pieces", [False, True])
def test_a_line_that_is_cut(pieces: bool) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(1, b"whole") + frame(1, b"ha", fin=False))
            await read_frame(reader)
            writer.transport.abort()

        async with (
            listening(opened(talk)) as port,
            connect(f"ws://127.0.0.1:{port}") as connection,
        ):
            assert await connection.recv() == "whole"
            await connection.send("go on")
            with pytest.raises(ConnectionClosedError, match="no close frame received or sent"):
                await (read_pieces(connection) if pieces else connection.recv())
            assert (connection.close_code, connection.close_reason) == (1006, "")
            for _ in range(2):
                with pytest.raises(ConnectionClosedError):
                    await connection.recv()
                with pytest.raises(ConnectionClosedError):
                    await connection.send("x")
                with pytest.raises(ConnectionClosedError):
                    await connection.ping()
            await connection.wait_closed()

    run(main())


def test_a_server_that_does_not_answer_the_goodbye() -> None:
    async def main() -> None:
        async with listening(opened(for_ever)) as port:
            connection = await connect(f"ws://127.0.0.1:{port}", close_timeout_s=0.05)
            await connection.close(4001, "enough")
            assert (connection.close_code, connection.close_reason) == (4001, "enough")

    run(main())


async def read_pieces(connection: Connection) -> list[str | bytes]:
    return [piece async for piece in connection.recv_streaming()]


# A peer that is gone, sockets open


async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer pings and nothing else."""
    while True:
        opcode, _, payload = await read_frame(reader)
        if opcode == 9:
            writer.write(frame(10, payload))
        elif opcode == 8:
            writer.write(frame(8, payload))
            return


@pytest.mark.parametrize("waits_in", ["recv", "iteration", "pieces", "wait_closed", "ping"])
def test_half_open_peer_is_found(waits_in: str) -> None:
    async def main() -> None:
        async with (
            listening(opened(chatty)) as port,
            Line.before(port) as line,
            # the goodbye's deadline is beyond that of the test: a peer that is gone is not waited for
            connect(
                f"ws://127.0.0.1:{line.port}",
                ping_interval_s=0.02,
                ping_timeout_s=0.02,
                close_timeout_s=10 * TIMEOUT_S,
            ) as connection,
        ):
            line.swallow()
            if waits_in == "wait_closed":
                await connection.wait_closed()
            else:
                with pytest.raises(ConnectionClosedError) as caught:
                    await wait_in(connection, waits_in)
                assert caught.value.sent == Close(1011, "keepalive ping timeout")
                assert caught.value.rcvd is None
            assert connection.close_code == 1011

    run(main())


async def wait_in(connection: Connection, verb: str) -> None:
    verbs: dict[str, Callable[[], Awaitable[Any]]] = {
        "recv": connection.recv,
        "iteration": lambda: anext(aiter(connection)),
        "pieces": lambda: anext(connection.recv_streaming()),
        "ping": lambda: pong_of(connection),
    }
    await verbs[verb]()


async def pong_of(connection: Connection) -> float:
    return await (await connection.ping())


def test_a_program_that_reads_slowly_is_not_taken_for_a_dead_peer() -> None:
    """Behind 17 unread messages no pong is read; the peer is well, and so is the connection."""

    async def main() -> None:
        many = 200

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in range(many):
                writer.write(frame(1, b"%d" % number))
            await chatty(reader, writer)

        pings = asyncio.Semaphore(0)
        async with (
            listening(opened(talk)) as port,
            Counting.pings(port, pings) as front,
            connect(f"ws://127.0.0.1:{front}", ping_interval_s=0.02, ping_timeout_s=0.02) as connection,
        ):
            assert await connection.recv() == "0"
            for _ in range(4):
                # several pings whose pongs stay behind what is not read
                await pings.acquire()
            assert connection.close_code is None
            rest = [int(str(await connection.recv())) for _ in range(many - 1)]
            assert rest == list(range(1, many))

    run(main())


class Counting:
    """A proxy that releases a semaphore for every short frame a client sends (a ping, that is)."""

    @staticmethod
    def pings(port: int, pings: asyncio.Semaphore) -> Any:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)

            async def up() -> None:
                back.write(await read_head(reader))
                while data := await reader.read(1 << 16):
                    pings.release()
                    back.write(data)
                back.write_eof()

            async def down() -> None:
                while data := await there.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()

            try:
                await asyncio.gather(up(), down())
            finally:
                back.transport.abort()

        return listening(talk)
