"""What is published arrives, in order and complete, whoever serves the application."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.client.servers import run
from tests.interop.paths.readers import KINDS, Reader, read_close
from tests.interop.paths.servers import Server
from tests.wire.frames import BINARY, TEXT, Frame, follow, frame, open_websocket, split
from tests.wire.readers import all_have, connect, leaving
from tests.wire.servers import Peer, open_events
from tidewire import Received, TopicFailed, publish, subscribe

pytestmark = pytest.mark.interop

MANY = 20
THINGS: list[Any] = [{"a": [1]}, [1, 2], [], "grüße\n[1]", b"\x00\xff", None, 7, 1.5]

Subscribers = list[Any]


async def on_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


async def with_subscribers(url: str, work: Callable[[Subscribers], Coroutine[Any, Any, None]], **options: Any) -> None:
    """``work`` with many live subscriptions to one topic."""
    subscribers = [subscribe(url, **options) for _ in range(MANY)]
    try:
        await asyncio.gather(*(one.__aenter__() for one in subscribers))
        await work(subscribers)
    finally:
        await asyncio.gather(*(one.aclose() for one in subscribers))


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_reaches_twenty_readers_in_order_and_complete(server: Server, kind: type[Reader]) -> None:
    topic = f"log/many-{kind.__name__}"
    readers: list[Reader] = [kind(topic) for _ in range(MANY)]

    async def main() -> None:
        with leaving(readers):
            await connect(server, readers)
            await on_thread(lambda: server.until_stats("all are there", subscriptions=MANY))
            total = 0
            # in one go, one by one, and more at once than a page of history has
            for n in (100, 1, 1, 1, 400):
                await on_thread(server.publish, topic, total, n)
                total += n
                await all_have(readers, total)
            assert [reader.numbers for reader in readers] == [list(range(total))] * MANY

    run(main())


def test_latest_reaches_twenty_readers_with_the_newest_of_each_key(server: Server) -> None:
    async def read(messages: Any) -> list[Any]:
        """Until the newest value of every key is there."""
        seen: list[Any] = []
        newest: dict[str, int] = {}
        while sorted(newest.values()) != [495, 496, 497, 498, 499]:
            message = await messages.next(10)
            seen.append(message.data["n"])
            newest[message.key] = message.data["n"]
        return seen

    async def work(subscribers: Subscribers) -> None:
        reading = [asyncio.create_task(read(one)) for one in subscribers]
        for first in range(0, 500, 100):
            await on_thread(server.publish, "latest/many", first, 100)
        for seen in await asyncio.gather(*reading):
            for key in range(5):
                of_key = [number for number in seen if number % 5 == key]
                assert of_key == sorted(set(of_key)), "values of a key come in order, none twice"
        # who comes late is given the newest of each key, and nothing else
        async with subscribe(f"{server.live}/latest/many", since="-1") as late:
            assert {(await late.next(10)).data["n"] for _ in range(5)} == {495, 496, 497, 498, 499}

    run(with_subscribers(f"{server.live}/latest/many", work))


def test_signals_reach_twenty_readers_in_order(server: Server) -> None:
    async def work(subscribers: Subscribers) -> None:
        await on_thread(server.publish, "signal/many", 0, 100)
        for messages in subscribers:
            got = [await messages.next(10) for _ in range(100)]
            assert [message.data["n"] for message in got] == list(range(100))
            assert {message.position for message in got} == {None}

    run(with_subscribers(f"{server.live}/signal/many", work))


def test_every_kind_arrives_as_it_was_published(server: Server) -> None:
    async def main() -> None:
        url = f"{server.live}/log/kinds"
        async with subscribe(url) as messages:
            positions = [await publish(url, thing) for thing in THINGS]
            got = [await messages.next(10) for _ in THINGS]
        assert [message.data for message in got] == THINGS
        assert [message.position for message in got] == positions
        # and to who comes late
        async with subscribe(url, since="-1") as late:
            again: list[Received] = [await late.next(10) for _ in THINGS]
        assert [(message.data, message.kind, message.position) for message in again] == [
            (message.data, message.kind, message.position) for message in got
        ]

    run(main())


def test_the_bytes_on_each_wire(server: Server) -> None:
    topic = "log/bytes"
    text, data = "grüße\nzwei", b"\x00\xff\x80"
    with (
        open_websocket(server.port, f"/live/{topic}") as bare,
        follow(server.port, topic) as positions,
        open_events(server.port, topic) as events,
    ):
        server.until_stats("all are there", subscriptions=3)
        positions.received = b""
        server.ask_json(f"/control/publish-each?topic={topic}", "POST")
        bare.receive(lambda received: len(split(received)[0]) >= 3)
        assert split(bare.received)[0] == [
            Frame(TEXT, '{"a":[1,"ü"]}'.encode()),
            Frame(TEXT, text.encode()),
            Frame(BINARY, data),
        ]
        positions.receive(lambda received: len(split(received)[0]) >= 3)
        frames = split(positions.received)[0]
        assert {frame.opcode for frame in frames} == {TEXT}
        said = [json.loads(frame.payload) for frame in frames]
        assert [each.pop("position").partition(":")[2] for each in said] == [f"{n:020}" for n in (1, 2, 3)]
        assert said == [{"data": {"a": [1, "ü"]}}, {"text": text}, {"base64": base64.b64encode(data).decode()}]
        events.receive(lambda received: b"event: binary" in received and received.endswith(b"\n\n\r\n"))
        body = events.received
        assert 'data: {"a":[1,"ü"]}\n\n'.encode() in body
        assert "data: grüße\ndata: zwei\n\n".encode() in body
        assert b"data: " + base64.b64encode(data) + b"\n\n" in body
        head = body.partition(b"\r\n\r\n")[0].lower()
        assert b"text/event-stream" in head
        assert b"x-accel-buffering: no" in head


def test_a_socket_publishes_what_it_sends(server: Server) -> None:
    """Text and binary frames, also in fragments, to readers on both wires and to itself."""
    topic = "log/from-socket"
    with open_websocket(server.port, f"/live/{topic}") as bare, open_events(server.port, topic) as events:
        server.until_stats("both are there", subscriptions=2)
        bare.send(frame(TEXT, b'{"n": 1}') + frame(TEXT, "hällo".encode()) + frame(BINARY, b"\x01\x02"))
        bare.send(frame(TEXT, b"in ", fin=False) + frame(0, b"two", fin=True))
        bare.receive(lambda received: len(split(received)[0]) >= 4)
        assert split(bare.received)[0] == [
            (TEXT, b'{"n":1}'),
            (TEXT, "hällo".encode()),
            (BINARY, b"\x01\x02"),
            (TEXT, b"in two"),
        ]
        events.receive(lambda received: b"data: in two\n\n" in received)


@pytest.mark.parametrize(
    ("media_type", "body", "published"),
    [
        ("application/json", b'[{"a": 1}, 2]', [{"a": 1}, 2]),
        ("text/plain", "grüße".encode(), ["grüße"]),
        ("application/x-www-form-urlencoded", b"hello=1", ["hello=1"]),
        ("application/octet-stream", b"\x00\xff", [b"\x00\xff"]),
    ],
)
def test_a_post_publishes_its_body(server: Server, media_type: str, body: bytes, published: list[Any]) -> None:
    async def main() -> None:
        async with subscribe(f"{server.live}/log/posted") as messages:
            status, answer = await on_thread(
                lambda: server.ask("/live/log/posted", "POST", body, **{"content-type": media_type})
            )
            assert (status, answer) == (204, b"")
            assert [(await messages.next(10)).data for _ in published] == published

    run(main())


def test_a_body_in_chunks_is_a_message(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.request("/live/log/chunked", "POST", content_type="text/plain", transfer_encoding="chunked")
        for part in (b"one ", b"two ", b"three"):
            peer.send(b"%x\r\n%s\r\n" % (len(part), part))
        peer.send(b"0\r\n\r\n")
        peer.receive(lambda received: b"\r\n\r\n" in received)
        assert peer.received.startswith(b"HTTP/1.1 204")
    assert server.ask("/live/log/chunked") == (200, b"one two three\n")


def test_an_id_published_twice_is_one_message(server: Server) -> None:
    async def main() -> None:
        url = f"{server.live}/log/once"
        assert await publish(url, 1, id="a") == await publish(url, 1, id="a")
        assert await on_thread(server.ask, "/live/log/once") == (200, b"[1]")

    run(main())


def test_who_comes_late_is_given_what_is_kept(server: Server) -> None:
    topic = "log/late"
    server.publish(topic, n=60)

    async def main() -> None:
        async with subscribe(f"{server.live}/{topic}", since="-1") as messages:
            first = await messages.next(10)
            rest = [(await messages.next(10)).data["n"] for _ in range(49)]
            assert [first.data["n"], *rest] == list(range(10, 60))
            await on_thread(server.publish, topic, 60, 1)
            assert (await messages.next(10)).data["n"] == 60

    run(main())
    status, body = server.ask(f"/live/{topic}")
    assert (status, [each["n"] for each in json.loads(body)]) == (200, list(range(11, 61)))


def test_the_end_of_a_topic_is_told_on_each_wire(server: Server) -> None:
    topic = "log/ends"
    with (
        open_websocket(server.port, f"/live/{topic}") as bare,
        follow(server.port, topic) as positions,
        open_events(server.port, topic) as events,
    ):
        server.until_stats("all are there", subscriptions=3)
        positions.received = b""
        server.publish(topic, n=1)
        server.finish(topic)
        for peer in (bare, positions):
            assert read_close(server, peer) == (1000, "")
        assert [json.loads(frame.payload)["n"] for frame in split(bare.received)[0][:-1]] == [0]
        said = [json.loads(frame.payload) for frame in split(positions.received)[0][:-1]]
        assert [list(each) for each in said] == [["position", "data"], ["end"]]
        assert said[1]["end"]["error"] is None
        # the last chunk: nobody takes a cut line for an end
        events.receive(lambda received: received.endswith(b"\r\n0\r\n\r\n"))
        assert b"event: end\n" in events.received


def test_subscriptions_end_with_their_topic(server: Server) -> None:
    async def main() -> None:
        url = f"{server.live}/log/ends-well"
        async with subscribe(url) as messages:
            await on_thread(server.publish, "log/ends-well", 0, 3)
            await on_thread(server.finish, "log/ends-well")
            assert [message.data["n"] async for message in messages] == [0, 1, 2]
        async with subscribe(f"{server.live}/log/ends-badly") as messages:
            await on_thread(server.finish, "log/ends-badly", "broken")
            with pytest.raises(TopicFailed, match="broken"):
                await messages.next(10)

    run(main())
