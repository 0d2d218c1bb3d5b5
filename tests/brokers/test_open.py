"""Brokers by their URLs, and an application that comes back on the same file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.project.documents import named_block
from tests.server.driver import SocketCall, request
from tidewire import Live, Log
from tidewire.brokers.memory import MemoryBroker
from tidewire.brokers.open import open_broker
from tidewire.brokers.sqlite import SqliteBroker
from tidewire.errors import BadBrokerURL
from tidewire.testing.lifespan import Lifespan


def test_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_broker("memory://"), MemoryBroker)
    for url, path in (
        ("sqlite:///live.db", tmp_path / "live.db"),
        (f"sqlite:///{tmp_path}/a/b%20c.db", tmp_path / "a" / "b c.db"),
        ("sqlite:///deep/down/live.db", tmp_path / "deep" / "down" / "live.db"),
    ):
        broker = open_broker(url)
        assert isinstance(broker, SqliteBroker)

        async def play(broker: SqliteBroker = broker) -> None:
            await broker.start(lambda topic, event: None)
            await broker.close()

        asyncio.run(play())
        assert path.exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "live.db",
        "sqlite://live.db",
        "sqlite:///",
        "sqlite:///live.db?mode=ro",
        "memory://somewhere",
        "redis://user:a-secret@host/0",
        "https://example.com",
    ],
)
def test_what_is_not(url: str) -> None:
    with pytest.raises(BadBrokerURL, match="sqlite:///") as told:
        open_broker(url)
    assert "a-secret" not in str(told.value)


TEXT = {"content-type": "text/plain"}


def make_app(broker: str) -> FastAPI:
    live = Live(broker)
    app = FastAPI()
    app.include_router(live.router, prefix="/live")

    @live.topic("log/{name}", policy=Log(keep=100), publish=True)
    async def log(name: str) -> None: ...

    return app


def test_clients_come_back_after_a_restart_with_nothing_missing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/live.db"

    async def before() -> str:
        app = make_app(url)
        async with Lifespan(app):
            for n in range(3):
                answer = await request(app, "POST", "/live/log/a", body=b"m%d" % n, headers=TEXT)
            socket = await SocketCall(app, "/live/log/a?since=-1").open()
            await socket.until(lambda s: len(s.frames) == 3)
            await socket.leave()
            return str(answer.headers["stream-next-offset"])

    async def after(position: str) -> None:
        app = make_app(url)
        async with Lifespan(app):
            await request(app, "POST", "/live/log/a", body=b"m3", headers=TEXT)
            socket = await SocketCall(app, f"/live/log/a?positions=1&since={position}").open()
            await socket.until(lambda s: len(s.frames) == 2)
            told, message = socket.envelopes
            assert told["recovered"] is True
            assert message["text"] == "m3"
            await socket.leave()
            assert (await request(app, "GET", "/live/log/a?offset=-1")).body_so_far == b"m0m1m2m3"

    asyncio.run(after(asyncio.run(before())))


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "live.db").write_bytes(b"something else, " * 100)

    async def scenario() -> None:
        async with Lifespan(make_app(f"sqlite:///{tmp_path}/live.db")):
            raise AssertionError("it has started")

    with pytest.raises(RuntimeError, match=r"BrokerFailed: the sqlite broker cannot use .*: file is not a database"):
        asyncio.run(scenario())


def test_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        namespace = named_block("brokers-sqlite").run()
        async with Lifespan(namespace["app"]):
            await namespace["live"].publish("orders/1", {"n": 1})
        assert "live.db" in os.listdir(tmp_path)
        again = named_block("brokers-sqlite").run()
        async with Lifespan(again["app"]):
            assert (await request(again["app"], "GET", "/live/orders/1?offset=-1")).json == [{"n": 1}]

    asyncio.run(scenario())
