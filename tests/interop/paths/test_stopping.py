"""SIGTERM: in full with ``tidewire.run``, elsewhere what ``docs/running.md`` promises (CONTRACTS 10)."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.client.fakes import States, quick
from tests.client.servers import run
from tests.interop.paths.readers import EventReader, Reader, WebSocketReader
from tests.interop.paths.servers import Way, serving
from tests.wire.readers import all_have, connect, leaving
from tidewire import subscribe

pytestmark = pytest.mark.interop

PATIENCE_S = 20.0


def test_a_server_that_stops_tells_its_readers(way: Way, tmp_path: Path) -> None:
    sockets = [WebSocketReader("log/stops") for _ in range(5)]
    streams = [EventReader("log/stops") for _ in range(5)]
    readers: list[Reader] = [*sockets, *streams]

    async def main() -> None:
        with leaving(readers):
            await connect(server, readers)
            await asyncio.to_thread(server.publish, "log/stops", 0, 3)
            await all_have(readers, 3)
            server.process.send_signal(signal.SIGTERM)
            for reader in readers:
                await reader.until_ended()
            await asyncio.to_thread(server.process.wait, PATIENCE_S)

    with serving(way, tmp_path) as server:
        asyncio.run(main())
        assert [reader.numbers for reader in readers] == [[0, 1, 2]] * len(readers)
        assert [reader.close for reader in sockets] == [way.stop_close] * len(sockets)
        assert [stream.whole for stream in streams] == [way.stop_ends_streams] * len(streams)
        log = server.log
    assert log.count("application started") == 1
    assert log.count("application stopped") == way.stop_runs_shutdown
    assert ("Traceback" in log) is way.stop_is_noisy


def test_a_server_that_stops_is_no_end_of_a_topic(way: Way, tmp_path: Path) -> None:
    states = States()

    async def main() -> None:
        async with subscribe(f"{server.live}/log/again", on_state=states.append, backoff=quick()) as messages:
            await asyncio.to_thread(server.publish, "log/again", 0, 1)
            assert (await messages.next(10)).data["n"] == 0
            server.process.send_signal(signal.SIGTERM)
            reading = asyncio.create_task(messages.next())
            async with asyncio.timeout(PATIENCE_S):
                while states[-1].name != "reconnecting":
                    await asyncio.sleep(0.01)
            assert not reading.done()
            reading.cancel()
            await asyncio.wait([reading])
        await asyncio.to_thread(server.process.wait, PATIENCE_S)

    with serving(way, tmp_path) as server:
        run(main())
        # no event stream was open: nothing kept the server from ending as it should
        assert server.log.count("application stopped") == 1
