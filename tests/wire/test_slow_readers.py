"""A reader that does not read harms nobody but itself (CONTRACTS 7 and 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest

from tests.wire.frames import follow, split
from tests.wire.readers import EventReader, Reader, WebSocketReader, all_have, connect, leaving
from tests.wire.servers import Peer, Server, chunks_of, open_events, until

MIB = 1024 * 1024
ROUND = 12
SIZE = 16 * 1024
TINY = 4096

Follow = Callable[..., Peer]


async def flood_until_evicted(server: Server, topic: str, readers: Sequence[Reader]) -> int:
    """Publish in rounds that the healthy readers acknowledge, until somebody is evicted; returns how many."""
    evicted = server.stats()["evicted"]
    total = 0
    while True:
        stats = await asyncio.to_thread(server.publish, topic, total, ROUND, SIZE)
        total += ROUND
        await all_have(list(readers), total)
        if stats["evicted"] > evicted:
            return total
        assert total * SIZE < 64 * MIB, "a reader that never reads has taken it all"


async def share_with_a_stalled_one(server: Server, topic: str, follow_: Follow, readers: list[Reader]) -> None:
    # the error is uvicorn's word for a response that could only be left alone
    server.expected_errors = ["ASGI callable returned without completing response."] if server.is_stock else []
    with follow_(server.port, topic, receive_buffer=TINY) as stalled, leaving(readers):
        await connect(server, readers)
        total = await flood_until_evicted(server, topic, readers)
        assert [reader.numbers for reader in readers] == [list(range(total))] * len(readers)
        # on our own wire nobody who reads a WebSocket has a task
        tasks = 0 if follow_ is follow and not server.is_stock else len(readers)
        await asyncio.to_thread(
            server.until_stats, "one is gone, of its task nothing is left", connections=len(readers), tasks=tasks
        )
        await asyncio.to_thread(check_stalled_one, server, stalled, len(readers))


def check_stalled_one(server: Server, stalled: Peer, healthy: int) -> None:
    """On our classes the connection is gone, too."""
    if not server.is_stock:
        server.until_stats("its socket is closed", sockets=healthy)
        assert stalled.read_to_end() == "reset"


@pytest.mark.parametrize("flavour", ["ours", "stock"])
def test_a_hundred_websockets_miss_nothing_while_one_never_reads(request: pytest.FixtureRequest, flavour: str) -> None:
    server = request.getfixturevalue(flavour)
    topic = f"log/never-reads-{flavour}"
    readers: list[Reader] = [WebSocketReader(topic) for _ in range(100 if flavour == "ours" else 10)]
    asyncio.run(share_with_a_stalled_one(server, topic, follow, readers))


@pytest.mark.parametrize("flavour", ["ours", "stock"])
def test_event_streams_miss_nothing_while_one_never_reads(request: pytest.FixtureRequest, flavour: str) -> None:
    server = request.getfixturevalue(flavour)
    topic = f"log/never-reads-events-{flavour}"
    readers: list[Reader] = [EventReader(topic) for _ in range(20 if flavour == "ours" else 5)]
    asyncio.run(share_with_a_stalled_one(server, topic, open_events, readers))


@pytest.mark.parametrize("flavour", ["ours", "stock"])
def test_memory_stays_flat_under_readers_that_never_read(request: pytest.FixtureRequest, flavour: str) -> None:
    """Unbounded queues would hold 32 MiB for each of 12 readers."""
    server = request.getfixturevalue(flavour)
    topic = f"log/memory-{flavour}"
    server.expected_errors = ["ASGI callable returned without completing response."] if server.is_stock else []

    async def flood(healthy: Reader) -> None:
        with leaving([healthy]):
            await connect(server, [healthy])
            for first in range(0, 320, 2):
                await asyncio.to_thread(server.publish, topic, first, 2, MIB // 20)
                await all_have([healthy], first + 2)
            for first in range(320, 640, 4):
                await asyncio.to_thread(server.publish, topic, first, 4, MIB // 20)
                await all_have([healthy], first + 4)
            assert healthy.numbers == list(range(640))

    before = server.stats()["rss"]
    stalled = [kind(server.port, topic, receive_buffer=TINY) for kind in (follow, open_events) for _ in range(6)]
    try:
        asyncio.run(flood(WebSocketReader(topic)))
        server.until_stats("nobody is left", subscriptions=0, connections=0)
        assert server.stats()["rss"] - before < 48 * MIB
    finally:
        for peer in stalled:
            peer.socket.close()


def test_an_evicted_reader_is_told_the_gap_when_it_returns(ours: Server) -> None:
    topic = "log/returns"

    async def be_evicted() -> None:
        reader: Reader = WebSocketReader(topic)
        with leaving([reader]):
            await connect(ours, [reader])
            await flood_until_evicted(ours, topic, [reader])

    with follow(ours.port, topic, receive_buffer=TINY) as stalled:
        asyncio.run(be_evicted())
        ours.until_stats("it is dropped, not having read its close frame", sockets=0)
        assert stalled.read_to_end() == "reset"
        seen = [json.loads(frame.payload) for frame in split(stalled.received)[0]]
    numbers = [said["data"]["n"] for said in seen[1:]]
    assert numbers == list(range(len(numbers)))
    with follow(ours.port, topic, query=f"since={seen[-1]['position']}") as back:
        back.receive(lambda data: len(split(data)[0]) >= 2)
        header, gap = [json.loads(frame.payload) for frame in split(back.received)[0]][:2]
    assert header["recovered"] is False
    assert gap["gap"]["from"] == seen[-1]["position"]


@pytest.mark.parametrize("flavour", ["ours", "stock"])
def test_many_messages_of_one_moment_are_few_chunks_of_an_event_stream(
    request: pytest.FixtureRequest, flavour: str
) -> None:
    server = request.getfixturevalue(flavour)
    topic = f"log/joined-{flavour}"
    with open_events(server.port, topic) as peer:
        peer.received = peer.received.partition(b"\r\n\r\n")[2]
        server.publish(topic, n=200)
        peer.receive(lambda data: data.count(b"\ndata: {") >= 200)
        chunks = [chunk for chunk in chunks_of(peer.received) if b'{"n"' in chunk]
    assert len(chunks) <= 2
    until(lambda: server.stats()["subscriptions"] == 0, "the reader is gone")
