"""A reader that does not read harms nobody but itself, whoever serves the application (CONTRACTS 7 and 8).

In full where our extension is: its socket is reset. Elsewhere an application cannot abort: hub, outbox and task are
gone, and the socket stays until its kernel or its server gives it up.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence

import pytest

from tests.interop.paths.readers import EventReader, Reader, WebSocketReader
from tests.interop.paths.servers import NOBODY, Server
from tests.wire.frames import CLOSE, TEXT, follow, split
from tests.wire.readers import all_have, connect, leaving
from tests.wire.servers import Peer, open_events

pytestmark = pytest.mark.interop

MIB = 1024 * 1024
ROUND = 12
SIZE = 16 * 1024
TINY = 4096

Follow = Callable[..., Peer]


async def flood_until_evicted(server: Server, topic: str, readers: Sequence[Reader]) -> int:
    """Publish in rounds that the healthy readers acknowledge, until somebody is evicted; returns how many."""
    evicted = (await asyncio.to_thread(server.stats))["evicted"]
    total = 0
    while True:
        stats = await asyncio.to_thread(server.publish, topic, total, ROUND, SIZE)
        total += ROUND
        await all_have(list(readers), total)
        if stats["evicted"] > evicted:
            return total
        assert total * SIZE < 64 * MIB, "a reader that never reads has taken it all"


@pytest.mark.parametrize(
    ("kind", "stall"), [(WebSocketReader, follow), (EventReader, open_events)], ids=["websocket", "events"]
)
def test_ten_readers_miss_nothing_while_one_never_reads(server: Server, kind: type[Reader], stall: Follow) -> None:
    topic = f"log/never-reads-{kind.__name__}"
    readers: list[Reader] = [kind(topic) for _ in range(10)]
    server.expected_errors = list(server.way.says_given_up)

    async def main() -> None:
        with stall(server.port, topic, receive_buffer=TINY) as stalled, leaving(readers):
            await connect(server, readers)
            total = await flood_until_evicted(server, topic, readers)
            assert [reader.numbers for reader in readers] == [list(range(total))] * len(readers)
            for reader in readers:
                reader.leave()
            # the stalled one still holds its line, and nothing here knows it any more
            await asyncio.to_thread(server.until_stats, "nobody is left, nor is the evicted one", **NOBODY)
            await asyncio.to_thread(check_stalled_one, server, stalled, total)

    asyncio.run(main())


def check_stalled_one(server: Server, stalled: Peer, total: int) -> None:
    """What it gets to see when it reads at last: a part, in order, and no end that looks like a good one."""
    is_stream = stalled.received.startswith(b"HTTP/1.1 200")
    ended = stalled.read_to_end()
    assert ended == "reset" or not (server.way.is_fast_http if is_stream else server.way.is_fast)
    if is_stream:
        numbers = [int(number) for number in re.findall(rb'data: {"n":(\d+),', stalled.received)]
        assert b"event: end" not in stalled.received
        assert not stalled.received.endswith(b"\r\n0\r\n\r\n")
    else:
        frames = split(stalled.received)[0]
        numbers = [json.loads(frame.payload)["data"]["n"] for frame in frames[1:] if frame.opcode == TEXT]
        # not 1000, which would say that everything has been sent
        assert [frame.close[0] for frame in frames if frame.opcode == CLOSE and frame.payload] in ([], [1011], [3008])
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < total


def test_memory_stays_flat_under_readers_that_never_read(server: Server) -> None:
    """Unbounded queues would hold 24 MiB for each of 8 readers."""
    topic = "log/memory"
    server.expected_errors = list(server.way.says_given_up)

    async def flood(healthy: Reader) -> None:
        with leaving([healthy]):
            await connect(server, [healthy])
            for first in range(0, 400, 4):
                await asyncio.to_thread(server.publish, topic, first, 4, 60 * 1024)
                await all_have([healthy], first + 4)
            assert healthy.numbers == list(range(400))

    before = server.stats()["rss"]
    stalled = [kind(server.port, topic, receive_buffer=TINY) for kind in (follow, open_events) for _ in range(4)]
    try:
        asyncio.run(flood(WebSocketReader(topic)))
        server.until_stats("nobody is left", **NOBODY)
        assert server.stats()["rss"] - before < 48 * MIB
    finally:
        for peer in stalled:
            peer.socket.close()


def test_an_evicted_reader_is_told_the_gap_when_it_returns(server: Server) -> None:
    topic = "log/returns"
    server.expected_errors = list(server.way.says_given_up)

    async def be_evicted() -> None:
        reader: Reader = WebSocketReader(topic)
        with leaving([reader]):
            await connect(server, [reader])
            await flood_until_evicted(server, topic, [reader])

    with follow(server.port, topic, receive_buffer=TINY) as stalled:
        asyncio.run(be_evicted())
        server.until_stats("it is gone", **NOBODY)
        stalled.read_to_end()
        seen = [json.loads(frame.payload) for frame in split(stalled.received)[0] if frame.opcode == TEXT]
    # so much that what is kept does not reach back to it
    server.publish(topic, first=10_000, n=50)
    with follow(server.port, topic, query=f"since={seen[-1]['position']}") as back:
        back.receive(lambda data: len(split(data)[0]) >= 2)
        header, gap = [json.loads(frame.payload) for frame in split(back.received)[0]][:2]
    assert header["recovered"] is False
    assert gap["gap"]["from"] == seen[-1]["position"]
