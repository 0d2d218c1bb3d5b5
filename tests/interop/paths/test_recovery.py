"""Who was away gets what it missed, or is told that it cannot; whoever serves the application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.fakes import States, quick
from tests.client.servers import run
from tests.interop.paths.app import KEEP
from tests.interop.paths.readers import read_close
from tests.interop.paths.servers import NOBODY, Server
from tests.wire.frames import TEXT, follow, frame, open_websocket, split
from tests.wire.servers import Peer, open_events, until
from tidewire import Gap, publish, subscribe
from tidewire.client.topic import Subscription

pytestmark = pytest.mark.interop


def cut(messages: Subscription) -> None:
    """The line breaks: the kernel resets it, there is no close frame, no word."""
    assert messages._link is not None
    messages._link.abort()


def positions_of(peer: Peer) -> list[Any]:
    """What a reader with positions was told, without closing words."""
    return [json.loads(each.payload) for each in split(peer.received)[0] if each.opcode == TEXT]


def numbers_of(said: list[Any]) -> list[int]:
    return [each["data"]["n"] for each in said if "data" in each]


def test_a_reader_that_is_cut_again_and_again_misses_nothing(server: Server) -> None:
    states = States()

    async def main() -> None:
        async with subscribe(f"{server.live}/log/cut", on_state=states.append, backoff=quick()) as messages:
            for first in range(0, 120, 40):
                await asyncio.to_thread(server.publish, "log/cut", first, 10)
                got = [(await messages.next(10)).data["n"] for _ in range(10)]
                cut(messages)
                await asyncio.to_thread(server.publish, "log/cut", first + 10, 30)
                got += [(await messages.next(10)).data["n"] for _ in range(30)]
                assert got == list(range(first, first + 40))
        lives = [(state.recovered, state.lost) for state in states if state.name == "live"]
        assert lives == [(None, None), (30, None), (30, None), (30, None)]

    run(main())


def test_cuts_at_any_moment_lose_nothing_and_repeat_nothing(server: Server) -> None:
    """The line breaks while messages are on their way."""

    async def main() -> None:
        url = f"{server.live}/log/any-moment"
        async with subscribe(url, backoff=quick()) as messages:

            async def produce() -> None:
                for number in range(200):
                    await publish(url, number)
                    if number % 20 == 7:
                        cut(messages)

            producing = asyncio.create_task(produce())
            got = [(await messages.next(10)).data for _ in range(200)]
            await producing
            assert got == list(range(200))

    run(main())


def test_since_resumes_on_each_wire(server: Server) -> None:
    topic = "log/since"
    server.publish(topic, n=20)
    with follow(server.port, topic, query="since=-1") as peer:
        peer.receive(lambda data: len(split(data)[0]) >= 21)
        position = positions_of(peer)[5]["position"]
    with follow(server.port, topic, query=f"since={position}") as peer:
        peer.receive(lambda data: len(split(data)[0]) >= 16)
        header, *rest = positions_of(peer)
        assert header == {"position": position, "recovered": True, "replayed": 15}
        assert numbers_of(rest) == list(range(5, 20))
    with open_websocket(server.port, f"/live/{topic}?since={position}") as peer:
        peer.receive(lambda data: len(split(data)[0]) >= 15)
        assert [json.loads(each.payload)["n"] for each in split(peer.received)[0]] == list(range(5, 20))
    with Peer(server.port).request(f"/live/{topic}", accept="text/event-stream", last_event_id=position) as peer:
        peer.receive(lambda data: data.count(b'data: {"n"') >= 15)
        assert b'"recovered":true,"replayed":15' in peer.received
        assert b'data: {"n":5,' in peer.received
        assert b'data: {"n":4,' not in peer.received


def test_away_for_too_long_is_told_on_each_wire(server: Server) -> None:
    topic = "log/too-long"
    with follow(server.port, topic) as peer:
        server.publish(topic, n=1)
        peer.receive(lambda data: len(split(data)[0]) >= 2)
        since = positions_of(peer)[1]["position"]
    server.publish(topic, first=1, n=KEEP + 7)
    with follow(server.port, topic, query=f"since={since}") as peer:
        peer.receive(lambda data: len(split(data)[0]) >= KEEP + 2)
        header, gap, *rest = positions_of(peer)
        assert header["recovered"] is False
        assert gap["gap"]["from"] == since
        assert numbers_of(rest) == list(range(8, KEEP + 8))
    with Peer(server.port).request(f"/live/{topic}", accept="text/event-stream", last_event_id=since) as peer:
        peer.receive(lambda data: b"event: gap" in data and data.count(b'data: {"n"') >= KEEP)
        assert b'"recovered":false' in peer.received
    with open_websocket(server.port, f"/live/{topic}?since={since}") as peer:
        code, reason = read_close(server, peer)
    assert code == 4001
    word, position = reason.split()
    assert (word, position) == ("gap", gap["gap"]["to"])
    # where the reason names, nothing more is lost
    with open_websocket(server.port, f"/live/{topic}?since={position}") as peer:
        peer.receive(lambda data: len(split(data)[0]) >= KEEP)
        assert [json.loads(each.payload)["n"] for each in split(peer.received)[0]] == list(range(8, KEEP + 8))


def test_a_loop_is_told_the_gap_and_goes_on(server: Server) -> None:
    async def main() -> None:
        async with subscribe(f"{server.live}/log/loop-gap", backoff=quick()) as messages:
            await asyncio.to_thread(server.publish, "log/loop-gap", 0, 1)
            first = await messages.next(10)
            cut(messages)
            await asyncio.to_thread(server.publish, "log/loop-gap", 1, KEEP + 7)
            message = await messages.next(10)
            assert isinstance(message.gap, Gap)
            assert (message.gap.from_position, message.gap.missing) == (first.position, 7)
            assert message.data["n"] == 8

    run(main())


@pytest.mark.parametrize("kind", [follow, open_events], ids=["websocket", "events"])
@pytest.mark.parametrize("how", ["reset", "closed without a word"])
def test_a_client_that_vanishes_leaves_nothing_behind(server: Server, kind: Callable[..., Peer], how: str) -> None:
    peers = [kind(server.port, "log/vanishes") for _ in range(3)]
    server.until_stats("they are there", subscriptions=3, outboxes=3)
    for peer in peers:
        if how == "reset":
            peer.vanish()
        else:
            peer.socket.close()
    server.until_stats("who has vanished is gone", **NOBODY)


def test_a_client_that_vanishes_while_it_is_written_to_leaves_nothing_behind(server: Server) -> None:
    peers = [kind(server.port, "log/vanishes-busy") for kind in (follow, open_events) for _ in range(3)]
    server.until_stats("they are there", subscriptions=6)
    for first, peer in enumerate(peers):
        server.publish("log/vanishes-busy", first * 10, 10)
        peer.vanish()
        server.publish("log/vanishes-busy", first * 10, 10)
    server.until_stats("who has vanished is gone", **NOBODY)


@pytest.mark.parametrize("sent", [3, 100], ids=["in the head", "in the payload"])
def test_a_client_killed_in_mid_message_publishes_nothing(server: Server, sent: int) -> None:
    peer = open_websocket(server.port, "/live/log/half")
    peer.send(frame(TEXT, b"x" * 300)[:sent])
    server.until_stats("it is there", subscriptions=1)
    peer.vanish()
    server.until_stats("it is gone", **NOBODY)
    assert server.ask("/live/log/half") == (200, b"[]")


def test_a_client_killed_in_mid_body_publishes_nothing(server: Server) -> None:
    peer = Peer(server.port).request("/live/log/half-body", "POST", content_type="text/plain", content_length="100")
    peer.send(b"x" * 50)
    peer.vanish()
    # a whole one afterwards, and the half one is not before it
    until(lambda: server.ask("/live/log/half-body", "POST", b"x", **{"content-type": "text/plain"})[0] == 204, "posted")
    assert server.ask("/live/log/half-body") == (200, b"x\n")
