"""The end of a server: within 5 seconds, whoever is attached, and each is told (CONTRACTS 10)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.wire.frames import follow, open_websocket
from tests.wire.readers import EventReader, Reader, WebSocketReader, connect, leaving
from tests.wire.servers import Peer, Server, open_events, serving, until
from tidewire import AddressInUse, Limits, run

KIB = 1024
# room enough for stalled readers to stay: their writer waits for the socket, and much waits behind it
PATIENT: dict[str, Any] = {"outbox_bytes_max": 64 * KIB * KIB, "outbox_messages_max": 1_000_000}


@contextmanager
def unpleasant_peers(server: Server) -> Iterator[None]:
    """Stalled readers, half requests, and routes that never answer."""
    with ExitStack() as stack:
        for kind in (follow, follow, follow, open_events, open_events):
            stack.enter_context(kind(server.port, "log/stalled", receive_buffer=4096))
        stack.enter_context(open_websocket(server.port, "/stuck", receive_buffer=4096))
        stack.enter_context(open_websocket(server.port, "/hang"))
        stack.enter_context(Peer(server.port)).request("/hang")
        stack.enter_context(Peer(server.port)).request("/length", "POST", content_length="10")
        stack.enter_context(Peer(server.port)).send(b"GET / HT")
        stack.enter_context(Peer(server.port))
        for first in range(0, 160, 40):
            server.publish("log/stalled", first, n=40, size=50 * KIB)
        until(lambda: server.stats()["sockets"] >= 11, "all of them are there")
        yield


@pytest.mark.parametrize(
    ("sign", "shutdown_s", "options"),
    [(signal.SIGTERM, Limits().shutdown_s, {}), (signal.SIGINT, 1.0, {"timeout_graceful_shutdown": 1})],
    ids=["SIGTERM", "SIGINT, in less time"],
)
def test_a_server_is_gone_within_five_seconds_and_says_so(
    tmp_path: Path, sign: signal.Signals, shutdown_s: float, options: dict[str, Any]
) -> None:
    sockets, streams = [WebSocketReader("log/all") for _ in range(60)], [EventReader("log/all") for _ in range(40)]
    readers: list[Reader] = [*sockets, *streams]

    async def main(server: Server) -> None:
        with leaving(readers):
            await connect(server, readers)
            await asyncio.to_thread(server.publish, "log/all", n=3)
            server.process.send_signal(sign)
            await asyncio.to_thread(server.process.wait, 5)
            for reader in readers:
                await reader.until_ended()

    limits = PATIENT | {"shutdown_s": shutdown_s}
    with serving(tmp_path, "ours", limits=limits, options=options) as server, unpleasant_peers(server):
        asyncio.run(main(server))
        assert [reader.numbers for reader in readers] == [[0, 1, 2]] * len(readers)
        assert {reader.close for reader in sockets} == {(1012, "the server stops")}
        assert {(stream.whole, stream.ended) for stream in streams} == {(True, "closed")}
        # uvicorn complains about the routes that never end, and nobody about anything else
        assert all("tests/wire/app.py" in trace for trace in server.log.split("Traceback")[1:]), server.log
        # the same address again, at once
        with serving(tmp_path, "ours", port=server.port) as again:
            assert again.port == server.port
            assert again.stats()["connections"] == 0


def test_a_busy_port_is_an_error_that_says_what_to_do(ours: Server) -> None:
    with pytest.raises(AddressInUse) as caught:
        run("tests.wire.app:nothing", port=ours.port)
    assert str(ours.port) in str(caught.value)
    assert "port" in str(caught.value)
