"""A topic as a WebSocket: bare and with positions, publishing frames, evictions, ends. No ports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI

from tests.server.driver import Scenario, SocketCall, play_with
from tidewire import Latest, Limits, Live, Log, Signal
from tidewire.protocol.message import Draft, Kind


def play(scenario: Scenario, **options: Any) -> None:
    play_with(declare, scenario, **options)


def declare(live: Live) -> None:
    @live.topic("log", policy=Log(keep=20), publish=True)
    async def log() -> None: ...

    @live.topic("json", payload="json", publish=True)
    async def only_json() -> None: ...

    @live.topic("bytes", payload="bytes", publish=True)
    async def only_bytes() -> None: ...

    @live.topic("read")
    async def read() -> None: ...

    @live.topic("latest", policy=Latest(key="id", max_per_s=100))
    async def latest() -> None: ...

    @live.topic("signal", policy=Signal(), publish=True)
    async def signal() -> None: ...


def test_bare_frames_are_payloads_of_their_kind() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log").open()
        for value in ({"a": [1]}, "text", b"\x00\x01", 5):
            await live.publish("log", value)
        await socket.until(lambda s: len(s.frames) == 4)
        assert socket.frames == ['{"a":[1]}', "text", b"\x00\x01", "5"]
        await socket.leave()

    play(scenario)


def test_positions_begin_resume_and_count() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("log", 1)
        second = await live.publish("log", {"n": 2})
        fresh = await SocketCall(app, "/live/log?positions=1").open()
        back = await SocketCall(app, f"/live/log?positions=1&since={first}").open()
        await fresh.until(lambda s: s.frames)
        await back.until(lambda s: s.frames)
        third = await live.publish("log", "three")
        for socket, count in ((fresh, 2), (back, 3)):
            await socket.until(lambda s, count=count: len(s.frames) == count)
        assert fresh.envelopes == [
            {"position": second, "recovered": None, "replayed": 0},
            {"position": third, "text": "three"},
        ]
        assert back.envelopes == [
            {"position": first, "recovered": True, "replayed": 1},
            {"position": second, "data": {"n": 2}},
            {"position": third, "text": "three"},
        ]
        await fresh.leave()
        await back.leave()

    play(scenario)


def test_a_gap_is_told_in_band_with_positions_and_by_the_close_without() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("log", 0)
        for n in range(1, 30):
            await live.publish("log", n)
        told = await SocketCall(app, f"/live/log?positions=1&since={first}").open()
        await told.until(lambda s: len(s.frames) == 22)
        header, gap, oldest, *_ = told.envelopes
        assert header["recovered"] is False
        assert gap == {"gap": {"from": first, "to": header["position"]}}
        assert oldest["data"] == 10
        await told.leave()
        bare = await SocketCall(app, f"/live/log?since={first}").open()
        await bare.closed()
        assert bare.close_code == 4001
        assert bare.close_reason == f"gap {header['position']}"
        again = await SocketCall(app, f"/live/log?since={bare.close_reason.removeprefix('gap ')}").open()
        await again.until(lambda s: len(s.frames) == 20)
        assert again.frames[0] == "10"
        await again.leave()

    play(scenario)


@pytest.mark.parametrize(("query", "code"), [("", 4001), ("?positions=1", 3008)])
def test_a_reader_that_stalls_is_closed_and_told_on_return(query: str, code: int) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, f"/live/log{query}").open()
        await live.publish("log", 0)
        await socket.until(lambda s: len(s.frames) == (2 if query else 1))
        socket.reading.clear()
        for n in range(1, 15):
            await live.publish("log", n)
            await asyncio.sleep(0)
        assert live.stats()["evicted"] == 1
        assert live.stats()["subscriptions"] == 0
        await socket.closed()
        assert live.stats()["connections"] == 0
        assert socket.close_code is None, "nothing is said to a peer that does not read"

    play(scenario, limits=Limits(outbox_messages_max=5, evict_drain_s=0.02), flush_window_s=0.0)


def test_what_others_publish_in_one_go_overflows_no_reader_whose_socket_takes_it() -> None:
    """Messages of other processes do not wait for the readers of this one; the socket takes them at once."""

    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log").open()
        await live.publish("log", 0)
        await socket.until(lambda s: s.frames)
        for n in range(1, 30):
            await live._broker.publish("log", Draft(b"%d" % n, Kind.JSON), Log(keep=20).retention)
        await socket.until(lambda s: len(s.frames) == 30)
        assert socket.close_code is None
        await socket.leave()

    play(scenario, limits=Limits(outbox_messages_max=5, gather_messages_max=4))


def test_frames_publish_where_that_is_allowed() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log?positions=1").open()
        for frame in ('{"a": 1}', "[1]", "plain", "{not json", "42", b"\x00"):
            socket.send(frame)
        await socket.until(lambda s: len(s.frames) == 7)
        said = [{k: v for k, v in e.items() if k != "position"} for e in socket.envelopes[1:]]
        assert said == [
            {"data": {"a": 1}}, {"data": [1]}, {"text": "plain"}, {"text": "{not json"}, {"text": "42"},
            {"base64": "AA=="},
        ]  # fmt: skip
        await socket.leave()

    play(scenario)


@pytest.mark.parametrize(
    ("topic", "frame", "code", "words"),
    [
        ("read", "x", 1008, "takes no messages"),
        ("json", "not json", 1007, "not JSON"),
        ("json", b"{}", 1003, "takes json, and this is bytes"),
        ("bytes", "text", 1003, "takes bytes"),
        ("log", "x" * 101, 1009, "101 bytes exceeds the limit of 100"),
    ],
)
def test_frames_that_cannot_be_published_close_with_a_reason(
    topic: str, frame: str | bytes, code: int, words: str
) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, f"/live/{topic}").open()
        socket.send(frame)
        await socket.closed()
        assert socket.close_code == code
        assert words in socket.close_reason

    play(scenario, limits=Limits(message_bytes_max=100))


def test_the_end_of_a_topic() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        bare = await SocketCall(app, "/live/log").open()
        told = await SocketCall(app, "/live/log?positions=1").open()
        last = await live.publish("log", "last")
        await live.finish("log", error="it broke")
        await bare.closed()
        await told.closed()
        assert (bare.frames, bare.close_code) == (["last"], 1000)
        assert told.envelopes[-1] == {"end": {"position": last, "error": "it broke"}}
        assert told.close_code == 1000
        late = await SocketCall(app, "/live/log?positions=1&since=-1").open()
        await late.closed()
        assert [set(envelope) for envelope in late.envelopes] == [
            {"position", "recovered", "replayed"}, {"position", "text"}, {"end"},
        ]  # fmt: skip
        late.send("too late")

    play(scenario)


def test_values_of_a_latest_topic_all_arrive_before_its_end() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for n in range(50):
            await live.publish("latest", {"id": n})
        socket = await SocketCall(app, "/live/latest").open()
        await live.finish("latest")
        await socket.closed()
        assert len(socket.frames) == 50
        assert socket.close_code == 1000

    play(scenario)


@pytest.mark.parametrize("query", ["max_per_s=0", "max_per_s=x", "max_per_s=-1", "since=nonsense", "max_per_s=nan"])
def test_malformed_questions_are_refused_before_the_upgrade(query: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, f"/live/latest?{query}").open()
        assert (socket.accepted, socket.status) == (False, 400)

    play(scenario)


def test_a_shutdown_sends_what_is_queued_and_1012() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log").open()
        stalled = await SocketCall(app, "/live/log").open()
        stalled.reading.clear()
        await live.publish("log", "before")
        await live.drain()
        assert (socket.frames, socket.close_code) == (["before"], 1012)
        await stalled.closed()
        refused = await SocketCall(app, "/live/log").open()
        assert refused.status == 503

    play(scenario, limits=Limits(shutdown_s=0.1))


@pytest.mark.parametrize(
    "origin", ["https://evil.com", "null", "http://test.evil.com", "http://test:81", "HTTP://x@test"]
)
def test_foreign_pages_are_refused_before_the_upgrade(origin: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log", headers={"origin": origin}).open()
        assert (socket.accepted, socket.status) == (False, 403)
        friend = await SocketCall(app, "/live/log", headers={"origin": "http://test"}).open()
        assert friend.accepted
        await friend.leave()

    play(scenario)


def test_a_peer_is_heard_while_it_catches_up() -> None:
    """Otherwise its frames wait, reading stops, its pongs go unread and a slow reader dies of that."""

    async def scenario(app: FastAPI, live: Live) -> None:
        for n in range(20):
            await live.publish("log", n)
        other = await SocketCall(app, "/live/log").open()
        slow = SocketCall(app, "/live/log?since=-1")
        await slow.open()
        slow.reading.clear()
        slow.send("from the slow one")
        await other.until(lambda s: s.frames)
        assert other.frames == ["from the slow one"]
        assert len(slow.frames) < 20
        await slow.leave()
        await other.leave()
        assert live.stats()["subscriptions"] == 0

    play(scenario, limits=Limits(page_messages_max=1))


def test_publish_soon_from_a_thread_and_in_order() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, "/live/log").open()

        def work() -> None:
            for n in range(200):
                live.publish_soon("log", n)

        await asyncio.to_thread(work)
        live.publish_soon("log", "from the loop")
        await socket.until(lambda s: len(s.frames) == 201)
        assert socket.frames == [*map(str, range(200)), "from the loop"]
        await socket.leave()

    play(scenario)


def test_publish_soon_is_bounded_and_loud() -> None:
    from tidewire import BadPayload, NotRunning, PublishQueueFull, UnknownTopic

    async def scenario(app: FastAPI, live: Live) -> None:
        for n in range(3):
            live.publish_soon("log", n)
        with pytest.raises(PublishQueueFull, match="3 messages wait"):
            live.publish_soon("log", 3)
        with pytest.raises(UnknownTopic):
            live.publish_soon("nowhere", 1)
        with pytest.raises(BadPayload):
            live.publish_soon("log", object())

    play(scenario, limits=Limits(publish_queue_max=3))
    live = Live()
    declare(live)
    with pytest.raises(NotRunning, match="after startup"):
        live.publish_soon("log", 1)
