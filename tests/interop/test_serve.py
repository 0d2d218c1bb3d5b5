"""Our ``serve`` with the clients of others, and with one by hand, over ws and wss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import websockets

from tests.client.servers import good_certificate, run, serving, trusting
from tests.interop.clients import CLIENTS, MAX_SIZE, ByHand, Client
from tidewire import Connection, ConnectionClosed, serve

pytestmark = pytest.mark.interop

PAYLOADS = [0, 1, 125, 126, 127, 65535, 65536, MAX_SIZE - 1, MAX_SIZE]
ORIGIN = "https://shop.example"

Endings = asyncio.Queue[tuple[int | None, str | None]]
Scenario = Callable[[Client, Endings], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["ws", "wss"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=CLIENTS)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def obey(connection: Connection) -> None:
    """Everything comes back as it is, but for commands."""
    async for message in connection:
        word, _, rest = message.partition(" ") if isinstance(message, str) else ("", "", "")
        if word == "close":
            code, _, reason = rest.partition(" ")
            await connection.close(int(code), reason)
        elif word == "ping":
            pong = await connection.ping(b"are you there")
            await connection.send("asked")
            await pong
            await connection.send(f"pong, {connection.latency_s > 0}")
        elif word == "pieces":
            await connection.send(["pie", "", "ces"])
        elif word == "header":
            await connection.send(str(connection.request.headers.get(rest)))
        elif word == "path":
            await connection.send(connection.request.path)
        else:
            await connection.send(message)


def play(library: str, secure: bool, scenario: Scenario, **asked: Any) -> None:
    async def main() -> None:
        ended: Endings = asyncio.Queue()

        async def handler(connection: Connection) -> None:
            try:
                await obey(connection)
            except ConnectionClosed:
                pass
            finally:
                ended.put_nowait((connection.close_code, connection.close_reason))

        async with serve(
            handler,
            port=0,
            ssl=serving(good_certificate()) if secure else None,
            max_size=MAX_SIZE,
            subprotocols=["v2", "v1"],
            origins=[ORIGIN],
        ) as server:
            client = await CLIENTS[library](f"{server.url}/a/b?c=d", trusting() if secure else None, **asked)
            await scenario(client, ended)

    run(main())


def test_text_and_binary_of_every_length(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        for size in PAYLOADS:
            for message in ("x" * size, b"\xff" * size):
                await client.send(message)
                assert await client.receive() == message
        await client.send("grüße 🌊 \x00")
        assert await client.receive() == "grüße 🌊 \x00"
        await client.close(1000, "")
        assert await ended.get() == (1000, "")

    play(library, secure, scenario)


def test_fragments_both_ways(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        for pieces in (["one", " ", "message", ""], ["", "ü"], [b"a" * 70_000, b"", b"b" * 70_000]):
            await client.send_fragments(pieces)  # type: ignore[arg-type]
            assert await client.receive() == ("" if isinstance(pieces[0], str) else b"").join(pieces)  # type: ignore[attr-defined]
        await client.send("pieces")
        assert await client.receive() == "pieces"
        await client.close(1000, "")

    play(library, secure, scenario)


def test_pings_both_ways(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        for data in (b"", b"x", b"x" * 125):
            await client.ping(data)
        await client.send("ping")
        assert [await client.receive() for _ in range(1)] == ["asked"]
        assert await client.receive() == "pong, True"
        await client.close(1000, "")

    play(library, secure, scenario)


def test_many_messages_at_once_keep_their_order(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        async def send() -> None:
            for number in range(300):
                await client.send(f"{number} {'x' * (number * 7 % 3000)}")

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = [int(str(await client.receive()).split()[0]) for _ in range(300)]
        assert got == list(range(300))
        await client.close(1000, "")

    play(library, secure, scenario)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (1008, "grüße"), (1012, "x" * 123), (4999, "z")]
)
def test_close_codes_of_ours(library: str, secure: bool, code: int, reason: str) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        await client.send(f"close {code} {reason}")
        assert await client.receive() == (code, reason)
        # aiohttp answers every goodbye with 1000, and what the peer has said counts (RFC 6455 7.1.5)
        assert await ended.get() == ((1000, "") if library == "aiohttp" else (code, reason))

    play(library, secure, scenario)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (1011, "grüße"), (4999, "x" * 123)])
def test_close_codes_of_the_client(library: str, secure: bool, code: int, reason: str) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        await client.close(code, reason)
        assert await ended.get() == (code, reason)

    play(library, secure, scenario)


def test_too_large(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        await client.send(bytes(MAX_SIZE + 1))
        came = await client.receive()
        assert isinstance(came, tuple)
        assert came[0] == 1009
        assert str(MAX_SIZE) in came[1]
        assert str(MAX_SIZE + 1) in came[1]
        assert await ended.get() == came

    play(library, secure, scenario)


def test_subprotocol_path_headers_and_an_origin_that_may(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        assert client.subprotocol == "v1"
        for question, answer in {"header X-Mine": "a value", "header Origin": ORIGIN, "path": "/a/b?c=d"}.items():
            await client.send(question)
            assert await client.receive() == answer
        await client.close(1000, "")

    play(library, secure, scenario, subprotocols=["v0", "v1"], headers={"X-Mine": "a value"}, origin=ORIGIN)


def test_an_origin_that_may_not(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        raise AssertionError("it was let in")

    refusals = (websockets.InvalidStatus, aiohttp.WSServerHandshakeError, ConnectionRefusedError)
    with pytest.raises(refusals, match="403"):
        play(library, secure, scenario, origin="https://evil.example")


def test_no_subprotocol_in_common(library: str, secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        assert client.subprotocol is None
        await client.close(1000, "")

    play(library, secure, scenario, subprotocols=["v0"])


def test_a_message_of_many_small_fragments_with_pings_between(secure: bool) -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        assert isinstance(client, ByHand)
        pieces = [chr(ord("a") + at % 26) for at in range(1000)]
        await client.send_fragments(pieces)
        assert await client.receive() == "".join(pieces)
        await client.close(1000, "")

    play("by hand", secure, scenario)


def test_one_byte_at_a_time() -> None:
    async def scenario(client: Client, ended: Endings) -> None:
        assert isinstance(client, ByHand)
        sent = client._writer.write
        chunks: list[bytes] = []
        client._writer.write = chunks.append  # type: ignore[method-assign,assignment]
        client.write(1, "grü".encode(), fin=False)
        client.write(9, b"?")
        client.write(0, "ße".encode())
        client._writer.write = sent  # type: ignore[method-assign]
        client._pongs.append(b"?")
        for byte in b"".join(chunks):
            client._writer.write(bytes([byte]))
            await client._writer.drain()
            await asyncio.sleep(0)
        assert await client.receive() == "grüße"
        await client.close(1000, "")

    play("by hand", False, scenario)
