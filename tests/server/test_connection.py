"""One socket's writer: what becomes of errors in a write that somebody else began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tidewire.hub.outbox import Batch
from tidewire.limits import Limits
from tidewire.server.connection import GONE, TopicConnection
from tidewire.server.pump import Pump


class BrokenLink:
    """Fails once, then takes everything."""

    def __init__(self, error: Exception) -> None:
        self._errors = [error]

    async def write_one(self, item: Any) -> None:
        if self._errors:
            raise self._errors.pop()

    async def write(self, items: Sequence[Any]) -> None:
        await self.write_one(items[0])

    async def close(self, code: int, reason: str) -> None:
        raise AssertionError("nobody is there to hear it")

    def abort(self) -> bool:
        return False

    def pending_bytes(self) -> int:
        return 0


async def flush_to_a_sleeping_writer(error: Exception) -> TopicConnection:
    pump, batch = Pump(), Batch(("x",), 1, 1)
    connection = TopicConnection(BrokenLink(error), Limits(), pump)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    assert connection.ready
    assert pump.write((connection,), batch) == [connection]
    assert not connection.ready
    assert connection.outbox.busy
    pump.close()
    async with asyncio.timeout(5):
        await running
    return connection


def test_an_error_of_a_begun_write_is_the_writers() -> None:
    with pytest.raises(ValueError, match="a middleware's bug"):
        asyncio.run(flush_to_a_sleeping_writer(ValueError("a middleware's bug")))


def test_a_peer_found_gone_by_a_begun_write_ends_the_connection() -> None:
    connection = asyncio.run(flush_to_a_sleeping_writer(ConnectionResetError()))
    assert connection.verdict is not None
    assert connection.verdict.code == GONE
    assert connection.outbox.closed


class StuckLink(BrokenLink):
    """Waits for a peer that takes nothing, and says how that ended."""

    def __init__(self) -> None:
        super().__init__(ValueError("unused"))
        self.cancelled = 0

    async def write_one(self, item: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.mark.parametrize("passes", [0, 1, 5])
def test_a_begun_write_that_does_not_return_is_cancelled_with_the_connection(passes: int) -> None:
    async def run() -> None:
        link, pump = StuckLink(), Pump()
        connection = TopicConnection(link, Limits(), pump)
        running = asyncio.create_task(connection.run())
        await asyncio.sleep(0)
        pump.write((connection,), Batch(("x",), 1, 1))
        for _ in range(passes):
            await asyncio.sleep(0)
        connection.peer_gone()
        async with asyncio.timeout(5):
            await running
            pump.close()
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
        assert link.cancelled == 1
        assert not connection.outbox.busy

    asyncio.run(run())
