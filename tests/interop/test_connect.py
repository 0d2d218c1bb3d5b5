"""Our ``connect`` with the servers of others, over ws and wss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.client.servers import good_certificate, run, serving, trusting
from tests.interop.servers import MAX_SIZE, PATH, SERVERS, Ended
from tidewire import Close, Connection, ConnectionClosed, ConnectionClosedError, connect

pytestmark = pytest.mark.interop

PAYLOADS = [0, 1, 125, 126, 127, 65535, 65536, MAX_SIZE - 1]

Scenario = Callable[[Connection, Ended], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["ws", "wss"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=SERVERS)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def play(library: str, secure: bool, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        ended = Ended()
        async with SERVERS[library](serving(good_certificate()) if secure else None, ended) as port:
            url = f"{'wss' if secure else 'ws'}://127.0.0.1:{port}{PATH}"
            # servers of websockets that speak subprotocols refuse whoever offers none
            asked = {"subprotocols": ["v0", "v1"], "ssl": trusting() if secure else None} | options
            async with connect(url, **asked) as connection:
                await scenario(connection, ended)

    run(main())


def test_text_and_binary_of_every_length(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        for size in PAYLOADS:
            for message in ("x" * size, b"\xff" * size):
                await connection.send(message)
                assert await connection.recv() == message
        await connection.send("grüße 🌊 \x00")
        assert await connection.recv() == "grüße 🌊 \x00"

    play(library, secure, scenario)


def test_fragments_both_ways(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        await connection.send(["frag", "", "ments"])
        assert "".join([str(piece) async for piece in connection.recv_streaming()]) == "fragments"
        await connection.send([b"a" * 70_000, b"", b"b" * 70_000])
        assert await connection.recv() == b"a" * 70_000 + b"b" * 70_000
        await connection.send("after")
        assert await connection.recv() == "after"

    play(library, secure, scenario)


def test_many_messages_at_once_keep_their_order(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        async def send() -> None:
            for number in range(500):
                await connection.send(f"{number} {'x' * (number * 7 % 3000)}")

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = [int(str(await connection.recv()).split()[0]) for _ in range(500)]
        assert got == list(range(500))

    play(library, secure, scenario)


def test_pings_both_ways(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        for data in (None, b"", b"x" * 125):
            assert await (await connection.ping(data)) > 0
        await connection.send("ping")
        assert await connection.recv() == "pong"

    play(library, secure, scenario)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (1008, "grüße"), (1012, "x" * 123), (4999, "z")]
)
def test_close_codes_of_the_server(library: str, secure: bool, code: int, reason: str) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        await connection.send(f"close {code} {reason}")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
        assert caught.value.rcvd == Close(code, reason)
        assert isinstance(caught.value, ConnectionClosedError) is (code not in (1000, 1001))
        assert (connection.close_code, connection.close_reason) == (code, reason)

    play(library, secure, scenario)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (1011, "grüße"), (4999, "x" * 123)])
def test_close_codes_of_ours(library: str, secure: bool, code: int, reason: str) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        await connection.close(code, reason)
        # aiohttp keeps no reason
        assert await ended.queue.get() == (code, "" if library == "aiohttp" else reason)
        # aiohttp answers every goodbye with 1000
        assert connection.close_code == (1000 if library == "aiohttp" else code)

    play(library, secure, scenario)


def test_subprotocol_path_and_headers(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        for question, answer in {
            "subprotocol": "v1",
            "path": PATH,
            "headers X-Mine": "a value",
            "headers Origin": "https://shop.example",
        }.items():
            await connection.send(question)
            assert await connection.recv() == answer
        assert connection.subprotocol == "v1"

    options = {"headers": {"X-Mine": "a value"}, "origin": "https://shop.example"}
    play(library, secure, scenario, **options)


def test_too_large_for_the_server(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        await connection.send(bytes(MAX_SIZE + 1))
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1009

    play(library, secure, scenario)


def test_too_large_for_us(library: str, secure: bool) -> None:
    async def scenario(connection: Connection, ended: Ended) -> None:
        await connection.send(bytes(2000))
        with pytest.raises(ConnectionClosedError) as caught:
            await connection.recv()
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1009
        assert "2000" in caught.value.sent.reason
        assert "1999" in caught.value.sent.reason
        assert (await ended.queue.get())[0] == 1009

    play(library, secure, scenario, max_size=1999)
