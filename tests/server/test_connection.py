"""One socket's writer: what becomes of errors in a write that somebody else began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tidewire.hub.outbox import Batch, Offered
from tidewire.limits import Limits
from tidewire.server.connection import GONE, Connection


class Source:
    """A subscription that holds nothing back."""

    def pull(self) -> Batch | None:
        return None

    def handed_over(self, batch: Batch) -> None:
        raise AssertionError("it was not written")


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


async def offer_to_a_sleeping_writer(error: Exception) -> Connection:
    connection = Connection(BrokenLink(error), Limits())
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    assert connection.ready
    assert connection.outbox.offer(Batch(("x",), 1, 1), Source()) is Offered.QUEUED
    assert not connection.ready
    async with asyncio.timeout(5):
        await running
    return connection


def test_an_error_of_a_begun_write_is_the_writers() -> None:
    with pytest.raises(ValueError, match="a middleware's bug"):
        asyncio.run(offer_to_a_sleeping_writer(ValueError("a middleware's bug")))


def test_a_peer_found_gone_by_a_begun_write_ends_the_connection() -> None:
    connection = asyncio.run(offer_to_a_sleeping_writer(ConnectionResetError()))
    assert connection.verdict is not None
    assert connection.verdict.code == GONE
    assert connection.outbox.closed
