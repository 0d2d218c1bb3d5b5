"""What is once for each process, whoever serves the application."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.interop.paths.servers import Server
from tests.server.driver import SocketCall, play_with
from tests.wire.frames import follow, open_websocket
from tests.wire.servers import open_events
from tidewire import Live

pytestmark = pytest.mark.interop

HINT = "uvicorn app:app --ws tidewire.wire:Protocol"


def test_the_lifespan_runs_once_and_one_process_has_the_topics(server: Server) -> None:
    """Two processes with a memory broker each would show: a reader misses what the other one publishes."""
    with follow(server.port, "log/one-process") as peer:
        peer.received = b""
        processes = {server.ask_json("/control/lifespans")["process"] for _ in range(20)}
        server.publish("log/one-process", n=20)
        peer.receive(lambda data: data.count(b'"n":') >= 20)
    assert len(processes) == 1
    said = server.ask_json("/control/lifespans")
    assert said["lifespans"] == ["started"]
    # the router is included twice, and brings its lifespan each time
    assert said["started"] == 2
    assert server.log.count("application started") == 1
    assert "processes" not in server.log, "nobody warns of several processes"


def test_the_first_reader_on_plain_asgi_makes_one_line_about_the_fast_way(server: Server) -> None:
    for _ in range(3):
        with follow(server.port, "log/hint"), open_websocket(server.port, "/live/log/hint"):
            server.until_stats("both are there", subscriptions=2)
    lines = [line for line in server.log.splitlines() if HINT in line]
    if server.way.is_fast:
        assert lines == []
    else:
        assert len(lines) == 1
        assert lines[0].startswith("INFO:tidewire:")
        assert "tidewire run app:app" in lines[0]


def declare(live: Live) -> None:
    @live.topic("log/{name}")
    async def log(name: str) -> None: ...


def test_each_live_tells_the_fast_way_once_and_event_streams_do_not(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: Any, live: Live) -> None:
        for expected in (1, 1):
            call = await SocketCall(app, "/live/log/a").open()
            assert sum(HINT in record.getMessage() for record in caplog.records) == expected
            await call.leave()

    with caplog.at_level(logging.INFO, "tidewire"):
        play_with(declare, scenario)
        assert {record.name for record in caplog.records if HINT in record.getMessage()} == {"tidewire"}
        caplog.clear()
        play_with(declare, scenario)


def test_event_streams_say_nothing_about_it(server: Server) -> None:
    before = server.log.count(HINT)
    with open_events(server.port, "log/hint-events"):
        pass
    assert server.log.count(HINT) == before
