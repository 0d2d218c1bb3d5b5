"""The programs of README.md do what it says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

import tidewire
from tests.project.documents import named_block
from tidewire.server.run import Server, bind, make_config, url_of
from tidewire.testing import Probe
from tidewire.testing.probe import ProbeRefused


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """``app`` on a free port, in a thread."""
    (sock,) = bind("127.0.0.1", 0)
    listening = threading.Event()
    server = Server(make_config(app, log_config=None, log_level=None), lambda url: listening.set())
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    assert listening.wait(20)
    try:
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()


def test_the_first_server_in_twelve_lines() -> None:
    block = named_block("readme-server")
    assert sum(bool(line.strip()) for line in block.code.splitlines()) <= 12
    names = block.run()

    async def scenario() -> None:
        async with Probe(names["app"]) as probe:
            reader = await probe.subscribe("chat/lobby")
            await reader.send("hello")
            assert (await reader.next()).data == "hello"

    asyncio.run(scenario())


def test_dependencies_decide() -> None:
    names = named_block("readme-depends").run()

    async def scenario() -> None:
        async with Probe(names["app"]) as probe:
            for topic, user, words in (("quotes/AAPL", "", "log in"), ("quotes/SECRET", "Bearer me", "not for you")):
                with pytest.raises(ProbeRefused, match=words):
                    await probe.subscribe(topic, headers={"authorization": user})
            reader = await probe.subscribe("quotes/SECRET", headers={"authorization": "Bearer ceo"})
            first = await reader.next()
            assert (first.data, first.snapshot) == ({"bid": 99.5}, True)
            transport = httpx.ASGITransport(names["app"])
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                await http.post("/trade/SECRET?price=12.5")
            assert (await reader.next()).data == {"bid": 12.5}

    asyncio.run(scenario())


def test_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    app = named_block("readme-server").run()["app"]
    main = named_block("readme-client").run()["main"]
    with serving(app) as url:
        asyncio.run(main(f"{url}/live/chat/lobby"))
    said = capsys.readouterr().out
    assert said.startswith("{'text': 'hello'} ")
    assert said.endswith(" None\n")


def test_raw_connections(capsys: pytest.CaptureFixture[str]) -> None:
    echo = named_block("readme-echo").run()["echo"]
    client = named_block("readme-connect").run()

    async def scenario() -> None:
        async with asyncio.timeout(10), tidewire.serve(echo, port=0) as server:
            await client["ask"](server.url)

        turns = iter([1012, 1008])

        async def greet(connection: tidewire.Connection) -> None:
            code = next(turns)
            await connection.send(f"{connection.request.path} {code}")
            await connection.close(code, "that is enough")

        async with asyncio.timeout(10), tidewire.serve(greet, port=0) as server:
            with pytest.raises(tidewire.Refused, match="that is enough"):
                await client["follow"](f"{server.url}/feed")

    asyncio.run(scenario())
    assert capsys.readouterr().out == "hello\n/feed 1012\n/feed 1008\n"


def test_a_raw_connection_in_a_route() -> None:
    async def scenario(url: str) -> None:
        async with tidewire.connect(f"{url}/echo") as connection:
            await connection.send("hi")
            assert await connection.recv() == "You said: hi"

    with serving(named_block("readme-accept").run()["app"]) as url:
        asyncio.run(scenario(url))


def test_the_probe() -> None:
    names = named_block("readme-server").run()
    named_block("readme-probe").run()["test_nothing_is_missed"](names["app"], names["live"])
