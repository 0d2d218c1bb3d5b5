"""Many topics in one stream: as events, as a WebSocket; who may, resuming, gaps, ends. No ports."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.server.driver import HttpCall, Scenario, SocketCall, request
from tests.server.durable import declare_stream, play_streams
from tests.server.test_hand_over import EVERY_WAY, serving
from tidewire import Deny, Latest, Limits, Live, Log, Operation, Signal

EVENTS = {"accept": "text/event-stream"}


def play(scenario: Scenario, **options: Any) -> None:
    play_streams(declare, scenario, **options)


def declare(live: Live) -> None:
    @live.topic("log/{name}", policy=Log(keep=8))
    async def log(name: str) -> None: ...

    @live.topic("chain", policy=Latest(key="id"))
    async def chain() -> None: ...

    @live.topic("typing", policy=Signal())
    async def typing() -> None: ...

    @live.topic("secret/{name}")
    async def secret(name: str) -> None:
        raise Deny(f"{name} is not for you")

    @live.topic("strict")
    async def strict(n: int) -> None: ...

    declare_stream(live, "s/{name}")


def url(*topics: str, **more: str) -> str:
    query = "&".join([*(f"topic={topic}" for topic in topics), *(f"{name}={value}" for name, value in more.items())])
    return f"/live/-/stream?{query}"


def follow(app: FastAPI, *topics: str, last: str | None = None, **more: str) -> HttpCall:
    headers = EVENTS if last is None else {**EVENTS, "last-event-id": last}
    return HttpCall(app, "GET", url(*topics, **more), headers=headers).begin()


def told(call: HttpCall) -> list[tuple[str, Any]]:
    return [(event["event"], json.loads(event["data"])) for event in call.events]


def messages(call: HttpCall | SocketCall) -> list[tuple[str, Any]]:
    """Topic and content of each message."""
    frames = (
        call.envelopes if isinstance(call, SocketCall) else [data for name, data in told(call) if name == "message"]
    )
    return [(frame["topic"], frame["data"]) for frame in frames if "data" in frame]


async def opened(call: HttpCall, count: int) -> None:
    await call.until(lambda c: sum(event["event"] == "position" for event in c.events) == count)


# What is asked for


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (url(), 400, "name the topics"),
        (url("log/1", "log/1"), 400, "log/1: name each topic once"),
        (url(*(f"log/{n}" for n in range(6))), 400, "6 topics in one stream, and 5 are allowed"),
        (url("log/1", "nowhere"), 404, "nowhere: no such topic"),
        (url("log/1", "a//b"), 404, "a//b: "),
        (url("log/1", "s/1"), 404, "s/1: there is no such stream"),
        (url("log/1", "secret/1", "secret/2"), 403, "secret/1: 1 is not for you"),
        (url("chain", max_per_s="0"), 400, "chain: max_per_s"),
        (url("log/1", since="x"), 400, "not a position"),
        (url("log/1", since="abcdefgh.e"), 400, "not a position"),
        (url("log/1", "log/2", "log/3") + "&since=-1&since=-1", 400, "one for each topic"),
    ],
)
@pytest.mark.parametrize("way", ["events", "socket"])
def test_what_cannot_be_followed_is_told_with_its_name(way: str, path: str, status: int, words: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        if way == "events":
            answer = await request(app, "GET", path, headers=EVENTS)
            assert (answer.status, words in answer.json["detail"]) == (status, True), answer.body_so_far
        else:
            socket = await SocketCall(app, path).open()
            assert (socket.accepted, socket.status) == (False, status)
            assert words in json.loads(socket.denial)["detail"]
        assert live.stats()["subscriptions"] == live.stats()["topics"] == 0

    play(scenario, limits=Limits(stream_topics_max=5))


def test_an_answer_of_the_function_that_is_no_sentence_names_the_topic_too() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "GET", url("strict", n="x"), headers=EVENTS)
        assert answer.status == 422
        assert answer.json["detail"]["topic"] == "strict"
        assert answer.json["detail"]["reason"][0]["loc"] == ["query", "n"]

    play(scenario)


def test_each_topic_is_asked_for_by_its_own_function() -> None:
    asked = list[tuple[str, str, str | None]]()

    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("noted/{name}")
        async def noted(name: str, op: Operation) -> None:
            asked.append((op.name, op.topic, op.since))

        first = await live.publish("noted/1", 1)
        call = HttpCall(app, "GET", url("noted/1", "noted/2") + f"&since={first}&since=now", headers=EVENTS).begin()
        await opened(call, 2)
        await call.disconnect()
        assert sorted(asked) == [("subscribe", "noted/1", first), ("subscribe", "noted/2", None)]

    play(scenario)


def test_foreign_pages_are_refused() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        headers = {"origin": "https://evil.example"}
        assert (await request(app, "GET", url("log/1"), headers={**EVENTS, **headers})).status == 403
        assert (await SocketCall(app, url("log/1"), headers=headers).open()).status == 403

    play(scenario)


def test_a_stream_is_one_connection_of_its_address() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, "log/1", "log/2", "chain")
        await opened(call, 3)
        assert live.stats()["connections"] == 1
        assert live.stats()["subscriptions"] == 3
        assert (await request(app, "GET", url("log/1"), headers=EVENTS)).status == 429
        await call.disconnect()
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario, limits=Limits(connections_per_address_max=1))


# Following


def test_all_topics_come_on_one_line_each_with_its_name() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("chain", {"id": 1})
        call = follow(app, "log/1", "log/2", "chain", "typing")
        socket = await SocketCall(app, url("log/1", "log/2", "chain", "typing")).open()
        await opened(call, 4)
        await socket.until(lambda s: len(s.frames) == 5)
        await call.until(lambda c: len(messages(c)) == 1)
        position = await live.publish("log/1", {"n": 1})
        await live.publish("log/2", "two")
        await live.publish("log/2", b"\x00")
        await live.publish("typing", "ann")
        await live.forget("chain", 1)
        await call.until(lambda c: len(c.events) == 10)
        await socket.until(lambda s: len(s.frames) == 10)
        frames = [data for name, data in told(call)]
        assert sorted(frames, key=str) == sorted(socket.envelopes, key=str)
        assert {"topic": "log/1", "position": position, "data": {"n": 1}} in frames
        said = [{k: v for k, v in frame.items() if k != "position"} for frame in frames]
        for expected in (
            {"topic": "chain", "key": "1", "data": {"id": 1}},
            {"topic": "log/2", "text": "two"},
            {"topic": "log/2", "base64": "AA=="},
            {"topic": "typing", "text": "ann"},
            {"topic": "chain", "key": "1", "removed": True},
            {"topic": "typing", "recovered": None, "replayed": 0},
        ):
            assert expected in said
        await call.disconnect()
        await socket.leave()

    play(scenario)


def test_the_answer_is_a_stream_of_events() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = HttpCall(app, "GET", url("log/1")).begin()
        await opened(call, 1)
        assert call.headers["content-type"].startswith("text/event-stream")
        assert call.headers["cache-control"] == "no-store"
        assert call.body_so_far.startswith(b"retry: 1")
        await call.until(lambda c: b": alive\n\n" in c.body_so_far)
        await call.disconnect()

    play(scenario, limits=Limits(heartbeat_s=0.01))


def test_readers_share_what_is_encoded() -> None:
    from tidewire.protocol import many

    calls = list[str]()
    message_data = many.message_data

    def counted(message: Any, topic: str) -> bytes:
        calls.append(topic)
        return message_data(message, topic)

    async def scenario(app: FastAPI, live: Live) -> None:
        readers = [follow(app, "log/1", *((f"log/{n}",) if n > 1 else ())) for n in range(10)]
        for n, call in enumerate(readers):
            await opened(call, 2 if n > 1 else 1)
        for n in range(2):
            await live.publish("log/1", n)
            for call in readers:
                await call.until(lambda c, n=n: len(messages(c)) == n + 1)
            if n == 0:
                calls.clear()
        assert calls == ["log/1"]
        for call in readers:
            await call.disconnect()

    many.message_data = counted
    try:
        play(scenario)
    finally:
        many.message_data = message_data


# Resuming


def test_the_last_id_resumes_all_of_them() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, "log/1", "log/2")
        await opened(call, 2)
        for n in range(3):
            await live.publish("log/1", n)
            await live.publish("log/2", 10 * n)
        await call.until(lambda c: len(messages(c)) == 6)
        last = call.events[-1]["id"]
        await call.disconnect()
        await live.publish("log/1", "a")
        await live.publish("log/2", "b")
        # one of them is not wanted any more, and another is
        await live.publish("log/3", "before")
        back = follow(app, "log/3", "log/2", last=last)
        await opened(back, 2)
        await back.until(lambda c: len(c.events) == 3)
        await live.publish("log/3", "after")
        await back.until(lambda c: len(c.events) == 4)
        texts = [(data["topic"], data["text"]) for name, data in told(back) if name == "message"]
        assert sorted(texts) == [("log/2", "b"), ("log/3", "after")]
        told_by_name = {data["topic"]: data for name, data in told(back) if name == "position"}
        assert told_by_name["log/2"]["recovered"] is True
        assert told_by_name["log/3"]["recovered"] is None
        await back.disconnect()

    play(scenario)


@pytest.mark.parametrize("cut", range(1, 12))
def test_wherever_the_line_is_cut_nothing_is_lost_and_nothing_comes_twice(cut: int) -> None:
    """Each event of the first stream in turn is the last that its reader saw: the second brings exactly the rest."""

    async def scenario(app: FastAPI, live: Live) -> None:
        rng = random.Random(cut)
        await live.publish("log/old", "x")
        await live.publish("chain", {"id": "a", "v": 0})
        start = follow(app, "log/old", "log/new", "chain")
        # noted before anything is said; both logs are published to while the stream begins
        published = list[tuple[str, Any]]()

        async def publish(n: int) -> None:
            topic = rng.choice(["log/old", "log/new"])
            await live.publish(topic, n)
            published.append((topic, n))

        await opened(start, 3)
        for n in range(8):
            await publish(n)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        await start.until(lambda c: len(messages(c)) == 9)
        await start.disconnect()
        seen = start.events[:cut]
        first = [
            (data["topic"], data["data"]) for event in seen for data in [json.loads(event["data"])] if "data" in data
        ]
        await publish(8)
        back = follow(app, "log/old", "log/new", "chain", last=seen[-1]["id"])
        await opened(back, 3)
        logs = ("log/old", "log/new")
        await back.until(lambda c: sum(topic in logs for topic, _ in [*first, *messages(c)]) == 9)
        got = [*first, *messages(back)]
        for topic in logs:
            assert [n for name, n in got if name == topic] == [n for name, n in published if name == topic]
        assert {"id": "a", "v": 0} in [data for topic, data in got if topic == "chain"]
        await back.disconnect()

    play(scenario)


def test_a_stream_from_the_start_that_is_cut_at_once_begins_there_again() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for topic in ("log/1", "log/2"):
            await live.publish(topic, topic)
        call = follow(app, "log/1", "log/2", since="-1")
        await opened(call, 2)
        first = call.events[0]
        await call.disconnect()
        assert ".-1" in first["id"], "one of them has not begun yet"
        back = follow(app, "log/1", "log/2", since="-1", last=first["id"])
        await back.until(lambda c: sum(event["event"] == "message" for event in c.events) == 2)
        assert sorted(data["text"] for name, data in told(back) if name == "message") == ["log/1", "log/2"]
        await back.disconnect()

    play(scenario)


def test_each_topic_may_have_a_since_of_its_own() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("log/1", 1)
        await live.publish("log/1", 2)
        await live.publish("log/2", 3)
        socket = await SocketCall(app, url("log/1", "log/2", "log/3") + f"&since={first}&since=-1&since=now").open()
        await socket.until(lambda s: len(s.frames) == 5)
        assert sorted(messages(socket)) == [("log/1", 2), ("log/2", 3)]
        recovered = {frame["topic"]: frame["recovered"] for frame in socket.envelopes if "recovered" in frame}
        assert recovered == {"log/1": True, "log/2": None, "log/3": None}
        await socket.leave()
        everything = await SocketCall(app, url("log/1", "log/2", since="-1")).open()
        await everything.until(lambda s: len(messages(s)) == 3)
        await everything.leave()

    play(scenario)


def test_a_gap_is_told_for_the_topic_that_has_it() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        old = await live.publish("log/1", 0)
        fine = await live.publish("log/2", "fine")
        for n in range(1, 12):
            await live.publish("log/1", n)
        path = url("log/1", "log/2") + f"&since={old}&since={fine}"
        call = HttpCall(app, "GET", path, headers=EVENTS).begin()
        socket = await SocketCall(app, path).open()
        await call.until(lambda c: len(messages(c)) == 8)
        await socket.until(lambda s: len(messages(s)) == 8)
        for frames in ([data for _, data in told(call)], socket.envelopes):
            (gap,) = [frame for frame in frames if "gap" in frame]
            assert (gap["topic"], gap["gap"]["from"]) == ("log/1", old)
            recovered = {frame["topic"]: frame["recovered"] for frame in frames if "recovered" in frame}
            assert recovered == {"log/1": False, "log/2": True}
        await call.disconnect()
        await socket.leave()

    play(scenario)


# Ending


def test_a_topic_ends_and_the_others_go_on() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, "log/1", "log/2")
        socket = await SocketCall(app, url("log/1", "log/2")).open()
        await opened(call, 2)
        await socket.until(lambda s: len(s.frames) == 2)
        last = await live.publish("log/1", "last")
        await live.finish("log/1", error="it broke")
        await call.until(lambda c: any(event["event"] == "end" for event in c.events))
        await live.publish("log/2", {"goes": "on"})
        await call.until(lambda c: messages(c))
        await socket.until(lambda s: messages(s))
        assert ("end", {"topic": "log/1", "end": {"position": last, "error": "it broke"}}) in told(call)
        assert {"topic": "log/1", "end": {"position": last, "error": "it broke"}} in socket.envelopes
        assert not call.over
        await live.finish("log/2")
        await call.finished()
        await socket.closed()
        assert call.complete
        assert socket.close_code == 1000
        again = follow(app, "log/1", "log/2", last=call.events[-1]["id"])
        await again.finished()
        assert again.status == 204

    play(scenario)


def test_a_stream_of_the_many_that_is_deleted_has_ended() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("s/1", "x")
        call = follow(app, "s/1", "log/1")
        await opened(call, 2)
        await request(app, "DELETE", "/live/s/1")
        await call.until(lambda c: any(event["event"] == "end" for event in c.events))
        assert "deleted" in told(call)[-1][1]["end"]["error"]
        await live.publish("log/1", 1)
        await call.until(lambda c: messages(c))
        await call.disconnect()

    play(scenario)


def test_a_reader_that_stalls_is_given_up_in_all_topics() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, url("log/1", "log/2")).open()
        await socket.until(lambda s: len(s.frames) == 2)
        socket.reading.clear()
        for n in range(12):
            await live.publish("log/1", n)
            await asyncio.sleep(0)
        await socket.closed()
        assert live.stats()["evicted"] >= 1
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario, limits=Limits(outbox_messages_max=4, evict_drain_s=0.02), flush_window_s=0.0)


def test_a_socket_takes_no_messages() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        socket = await SocketCall(app, url("log/1", "log/2")).open()
        socket.send("hello")
        await socket.closed()
        assert socket.close_code == 1008
        assert live.stats()["subscriptions"] == 0

    play(scenario)


def test_a_shutdown_ends_the_streams() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, "log/1", "log/2")
        socket = await SocketCall(app, url("log/1", "log/2")).open()
        await opened(call, 2)
        await socket.until(lambda s: len(s.frames) == 2)
        await live.publish("log/2", "before")
        await live.drain()
        await call.finished()
        await socket.closed()
        assert told(call)[-1][1]["text"] == socket.envelopes[-1]["text"] == "before"
        assert call.body_so_far.endswith(b"retry: 500\n\n")
        assert socket.close_code == 1012
        assert (await request(app, "GET", url("log/1"), headers=EVENTS)).status == 503

    play(scenario)


def test_a_hundred_topics_with_a_past_each_come_whole() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        topics = [f"log/{n}" for n in range(100)]
        for topic in topics:
            for n in range(8):
                await live.publish(topic, n)
        call = follow(app, *topics, since="-1")
        await call.until(lambda c: len(messages(c)) == 800)
        got = messages(call)
        for topic in topics:
            assert [n for name, n in got if name == topic] == list(range(8))
        last = call.events[-1]["id"]
        await call.disconnect()
        await live.publish("log/50", 8)
        back = follow(app, *topics, last=last)
        await opened(back, 100)
        await back.until(lambda c: messages(c))
        assert messages(back) == [("log/50", 8)]
        await back.disconnect()

    play(scenario, limits=Limits(page_messages_max=3))


# On real servers: our wire and a taken-over socket, which go on without a task, and plain ASGI


@EVERY_WAY
def test_a_socket_follows_many_topics_on_every_server(way: str) -> None:
    async def scenario() -> None:
        live = Live(takeover=way == "takeover", isolated=True)
        declare(live)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        async with serving(way, app) as (port, _), connect(f"ws://127.0.0.1:{port}{url('log/1', 'log/2')}") as peer:
            begun = [json.loads(await peer.recv()) for _ in range(2)]
            assert sorted(frame["topic"] for frame in begun) == ["log/1", "log/2"]
            for n in range(20):
                await live.publish(f"log/{1 + n % 2}", n)
            got = [json.loads(await peer.recv()) for _ in range(20)]
            assert [frame["data"] for frame in got if frame["topic"] == "log/1"] == list(range(0, 20, 2))
            assert [frame["data"] for frame in got if frame["topic"] == "log/2"] == list(range(1, 20, 2))
            assert live.stats()["connections"] == 1
            await live.finish("log/1")
            assert "end" in json.loads(await peer.recv())
            async with connect(f"ws://127.0.0.1:{port}{url('log/2')}") as talker:
                await talker.recv()
                await talker.send("hello")
                with pytest.raises(ConnectionClosed) as told:
                    await talker.recv()
                assert told.value.rcvd is not None
                assert told.value.rcvd.code == 1008
            await peer.close()
            async with asyncio.timeout(20):
                while live.stats()["subscriptions"] or live.stats()["connections"]:
                    await asyncio.sleep(0.005)

    asyncio.run(scenario())


@EVERY_WAY
def test_a_socket_ends_with_the_last_of_its_topics_on_every_server(way: str) -> None:
    async def scenario() -> None:
        live = Live(takeover=way == "takeover", isolated=True)
        declare(live)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        async with serving(way, app) as (port, _), connect(f"ws://127.0.0.1:{port}{url('log/1', 'log/2')}") as peer:
            for _ in range(2):
                await peer.recv()
            await live.finish("log/1")
            await live.publish("log/2", "last")
            await live.finish("log/2")
            frames = [json.loads(frame) async for frame in peer]
            assert [next(iter(set(frame) - {"topic", "position"})) for frame in frames] == ["end", "text", "end"]
            assert peer.close_code == 1000

    asyncio.run(scenario())
