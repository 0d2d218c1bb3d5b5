"""The programs of README.md do what it says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from tests.project.documents import named_block
from tidewire.server.run import Server, bind, make_config, url_of
from tidewire.testing import Probe
from tidewire.testing.probe import ProbeRefused


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """``app`` on a free port, in a thread."""
    (sock,) = bind("127.0.0.1", 0)
    listening = threading.Event()
    server = Server(make_config(app, log_level="error"), lambda url: listening.set())
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


def test_the_probe() -> None:
    names = named_block("readme-server").run()
    named_block("readme-probe").run()["test_nothing_is_missed"](names["app"], names["live"])
