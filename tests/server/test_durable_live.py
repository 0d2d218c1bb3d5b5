"""Following streams over HTTP as Durable Streams clients do: long-poll, data and control events. No ports."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from fastapi import FastAPI

from tests.server.driver import HttpCall, Scenario, request
from tests.server.durable import declare_stream, play_streams
from tidewire import Deny, Latest, Limits, Live, Log, Operation, Signal
from tidewire.protocol.durable import CURSOR_BEGIN_MS
from tidewire.testing import ManualClock

TEXT = {"content-type": "text/plain"}
CLOSE = {"stream-closed": "true"}
# the clock of these tests stands in the middle of interval 1000
NOW_MS = CURSOR_BEGIN_MS + 1000 * 20_000 + 10_000


def play(scenario: Scenario, **options: Any) -> None:
    play_streams(declare, scenario, **options)


def declare(live: Live) -> None:
    declare_stream(live, "s/{name}", policy=Log(keep=6))

    @live.topic("log", policy=Log(keep=6), publish=True)
    async def log() -> None: ...

    @live.topic("text", payload="text")
    async def text() -> None: ...

    @live.topic("chain", policy=Latest(key="id"))
    async def chain() -> None: ...

    @live.topic("signal", policy=Signal())
    async def signal() -> None: ...


async def put(app: FastAPI, body: bytes = b"", content_type: str = "text/plain") -> str:
    """The offset after what it begins with."""
    answer = await request(app, "PUT", "/live/s/1", headers={"content-type": content_type}, body=body)
    assert answer.status == 201
    return answer.headers["stream-next-offset"]


async def post(app: FastAPI, body: bytes, **headers: str) -> HttpCall:
    answer = await request(app, "POST", "/live/s/1", headers={**TEXT, **headers}, body=body)
    assert answer.status == 204
    return answer


def poll(app: FastAPI, offset: str, path: str = "s/1", more: str = "", **headers: str) -> HttpCall:
    return HttpCall(app, "GET", f"/live/{path}?offset={offset}&live=long-poll{more}", headers=headers).begin()


def follow(app: FastAPI, offset: str, path: str = "s/1", more: str = "", **headers: str) -> HttpCall:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpCall(app, "GET", f"/live/{path}?offset={offset}&live=sse{more}", headers=named).begin()


async def waiting(live: Live, count: int = 1) -> None:
    """Until so many readers are live."""
    async with asyncio.timeout(5):
        while live.stats()["subscriptions"] < count:
            await asyncio.sleep(0)


def told(call: HttpCall) -> list[tuple[str, Any]]:
    """Name and content of each event; control events without the cursor, which has a test of its own."""
    said = list[tuple[str, Any]]()
    for event in call.events:
        if event["event"] == "control":
            fields = json.loads(event["data"])
            fields.pop("streamCursor", None)
            said.append(("control", fields))
        else:
            said.append((event["event"], event["data"]))
    return said


# Both


@pytest.mark.parametrize("live_mode", ["long-poll", "sse"])
@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("s/1", "", 400, "needs an offset"),
        ("s/1", "&offset=", 400, "one offset"),
        ("s/1", "&offset=-1&offset=-1", 400, "one offset"),
        ("s/1", "&offset=x", 400, "not a position"),
        ("s/1", "&offset=-1", 404, "no such stream"),
        ("nowhere", "&offset=-1", 404, "no such topic"),
        ("chain", "&offset=-1", 400, "keeps no log"),
        ("signal", "&offset=-1", 400, "keeps no log"),
    ],
)
def test_what_cannot_be_followed_is_told(live_mode: str, path: str, query: str, status: int, words: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "GET", f"/live/{path}?live={live_mode}{query}")
        assert answer.status == status
        assert words in answer.json["detail"]
        assert answer.headers["x-content-type-options"] == "nosniff"

    play(scenario)


def test_there_are_two_ways_to_read_live() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "GET", "/live/log?live=websocket&offset=-1")
        assert answer.status == 400
        assert "live=long-poll and live=sse" in answer.json["detail"]

    play(scenario)


@pytest.mark.parametrize("live_mode", ["long-poll", "sse"])
def test_who_follows_is_asked_as_a_subscriber(live_mode: str) -> None:
    asked = list[tuple[str, str | None]]()

    async def scenario(app: FastAPI, live: Live) -> None:
        def decide(op: Operation) -> None:
            asked.append((op.name, op.since))
            raise Deny("not you")

        @live.topic("judged")
        async def judged(op: Operation) -> None:
            decide(op)

        offset = "0" * 16 + ":" + "0" * 19 + "1"
        answer = await request(app, "GET", f"/live/judged?live={live_mode}&offset={offset}")
        assert (answer.status, answer.json) == (403, {"detail": "not you"})
        assert asked == [("subscribe", offset)]
        assert live.stats()["subscriptions"] == live.stats()["topics"] == 0

    play(scenario)


@pytest.mark.parametrize("live_mode", ["long-poll", "sse"])
def test_an_offset_that_is_not_kept_is_gone(live_mode: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        begin = await put(app)
        for n in range(8):
            await post(app, b"%d" % n)
        answer = await request(app, "GET", f"/live/s/1?offset={begin}&live={live_mode}")
        assert answer.status == 410
        assert answer.headers["stream-next-offset"] > begin

    play(scenario)


def test_followers_count_among_the_connections_of_an_address() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        first, second = poll(app, "now"), follow(app, "now")
        await waiting(live, 2)
        for call in (poll(app, "now"), follow(app, "now")):
            await call.finished()
            assert call.status == 429
        assert live.stats()["connections"] == 2
        await first.disconnect()
        await second.disconnect()
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario, limits=Limits(connections_per_address_max=2))


@pytest.mark.parametrize(
    ("asked", "expected"), [("", 1000), ("999", 1000), ("1000", 1001), ("5000", 5001), ("x", 1000)]
)
@pytest.mark.parametrize("live_mode", ["long-poll", "sse"])
def test_cursors_never_go_back(live_mode: str, asked: str, expected: int) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"x")
        call = HttpCall(app, "GET", f"/live/s/1?offset=-1&live={live_mode}&cursor={asked}").begin()
        if live_mode == "sse":
            await call.until(lambda c: len(c.events) == 2)
            cursor = json.loads(call.events[1]["data"])["streamCursor"]
            await call.disconnect()
        else:
            await call.finished()
            cursor = call.headers["stream-cursor"]
        if expected in {1001, 5001}:
            assert expected <= int(cursor) < expected + 180
        else:
            assert cursor == str(expected)

    play(scenario, clock=ManualClock(wall_ms=NOW_MS), flush_window_s=0.0)


# Long-poll


def test_what_is_there_is_the_answer_at_once() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"one ")
        await post(app, b"two")
        call = poll(app, "-1")
        await call.finished()
        assert (call.status, call.body_so_far) == (200, b"one two")
        assert call.headers["stream-up-to-date"] == "true"
        assert call.headers["content-type"] == "text/plain"
        assert call.headers["cache-control"] == "no-store"

    play(scenario)


@pytest.mark.parametrize("offset", ["now", "tail"])
def test_what_comes_ends_the_waiting(offset: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        tail = await put(app, b"past")
        calls = [poll(app, tail if offset == "tail" else "now") for _ in range(3)]
        await waiting(live, 3)
        assert not any(call.over for call in calls)
        last = await post(app, b"news")
        for call in calls:
            await call.finished()
            assert (call.status, call.body_so_far) == (200, b"news")
            assert call.headers["stream-next-offset"] == last.headers["stream-next-offset"]
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario)


def test_a_topic_that_nobody_has_used_is_waited_for_too() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for offset in ("-1", "now"):
            call = poll(app, offset, "text")
            await waiting(live)
            await live.publish("text", "hello")
            await call.finished()
            assert (call.status, call.body_so_far) == (200, b"hello")

    play(scenario)


def test_when_nothing_comes_the_answer_is_nothing() -> None:
    clock = ManualClock(wall_ms=NOW_MS)

    async def scenario(app: FastAPI, live: Live) -> None:
        tail = await put(app, b"past")
        call = poll(app, tail)
        await waiting(live)
        clock.advance(19.9)
        await asyncio.sleep(0)
        assert not call.over
        clock.advance(0.1)
        await call.finished()
        assert (call.status, call.body_so_far) == (204, b"")
        assert call.headers["stream-next-offset"] == tail
        assert call.headers["stream-up-to-date"] == "true"
        assert call.headers["stream-cursor"] == "1001"
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario, clock=clock, flush_window_s=0.0)


def test_the_end_of_a_stream_ends_the_waiting() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        tail = await put(app, b"past")
        empty, last = poll(app, tail), poll(app, tail)
        await waiting(live, 2)
        await post(app, b"", **CLOSE)
        for call in (empty, last, poll(app, tail), poll(app, "now")):
            await call.finished()
            assert (call.status, call.headers["stream-closed"]) == (204, "true")
            assert "stream-cursor" not in call.headers

    play(scenario)


def test_the_append_that_closes_is_in_the_answer() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = poll(app, await put(app))
        await waiting(live)
        await post(app, b"the end", **CLOSE)
        await call.finished()
        assert (call.status, call.body_so_far, call.headers["stream-closed"]) == (200, b"the end", "true")

    play(scenario)


def test_a_stream_that_is_deleted_is_no_longer_waited_for() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = poll(app, await put(app))
        await waiting(live)
        await request(app, "DELETE", "/live/s/1")
        await call.finished()
        assert call.status == 404

    play(scenario)


def test_who_leaves_is_no_longer_waited_for() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = poll(app, await put(app))
        await waiting(live)
        await call.disconnect()
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario)


def test_a_server_that_stops_answers_who_waits() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = poll(app, await put(app))
        await waiting(live)
        await live.drain()
        await call.finished()
        assert call.status == 204
        late = poll(app, "now")
        await late.finished()
        assert (late.status, late.headers["retry-after"]) == (503, "1")

    play(scenario)


# Events


def test_the_past_comes_in_one_piece_and_then_what_happens() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"one ")
        second = (await post(app, b"two")).headers["stream-next-offset"]
        call = follow(app, "-1")
        await call.until(lambda c: len(c.events) == 2)
        assert call.headers["content-type"] == "text/event-stream"
        assert call.headers["cache-control"] == "no-cache, no-store"
        assert "content-length" not in call.headers
        assert "stream-sse-data-encoding" not in call.headers
        await waiting(live)
        third = (await post(app, b"three\nlines")).headers["stream-next-offset"]
        await call.until(lambda c: len(c.events) == 4)
        assert told(call) == [
            ("data", "one two"),
            ("control", {"streamNextOffset": second, "upToDate": True}),
            ("data", "three\nlines"),
            ("control", {"streamNextOffset": third, "upToDate": True}),
        ]
        await call.disconnect()
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario)


@pytest.mark.parametrize("offset", ["-1", "now", "tail"])
def test_a_reader_that_has_everything_is_told_so_at_once(offset: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        tail = await put(app, b"" if offset == "-1" else b"past")
        call = follow(app, tail if offset == "tail" else offset)
        await call.until(lambda c: c.events)
        await waiting(live)
        assert told(call) == [("control", {"streamNextOffset": tail, "upToDate": True})]
        await call.disconnect()

    play(scenario)


def test_a_long_past_is_up_to_date_only_at_its_end() -> None:
    """Clients stop at the first word that they are up to date: it must not stand between two pages."""

    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        last = ""
        for n in range(6):
            last = (await post(app, b"%d" % n)).headers["stream-next-offset"]
        call = follow(app, "-1")
        await call.until(lambda c: "upToDate" in c.events[-1]["data"] if c.events else False)
        said = told(call)
        assert "".join(data for name, data in said if name == "data") == "012345"
        assert [fields for name, fields in said if name == "control" and "upToDate" in fields] == [
            {"streamNextOffset": last, "upToDate": True}
        ]
        assert said[-1][1]["streamNextOffset"] == last
        names = [name for name, _ in said]
        assert all(names[at + 1] == "control" for at, name in enumerate(names) if name == "data")
        await call.disconnect()

    play(scenario, limits=Limits(page_messages_max=2))


def test_json_comes_as_arrays_and_bytes_as_base64() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b'[{"a":"x\\ny"}, 2]', "application/json")
        call = follow(app, "-1")
        await call.until(lambda c: c.events)
        assert told(call)[0] == ("data", '[{"a":"x\\ny"},2]')
        await call.disconnect()
        await request(app, "DELETE", "/live/s/1")
        await put(app, b"\x00\n\r\xff", "image/png")
        call = follow(app, "-1")
        await call.until(lambda c: c.events)
        assert call.headers["stream-sse-data-encoding"] == "base64"
        assert base64.b64decode(told(call)[0][1]) == b"\x00\n\r\xff"
        await call.disconnect()

    play(scenario)


def test_topics_of_the_application_are_what_they_promise_or_else_json() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("text", "plain")
        for value in ({"a": 1}, "word", b"\x00"):
            await live.publish("log", value)
        promised, mixed = follow(app, "-1", "text"), follow(app, "-1", "log")
        for call, expected in ((promised, "plain"), (mixed, '[{"a":1},"word","AA=="]')):
            await call.until(lambda c: c.events)
            assert told(call)[0] == ("data", expected)
            await call.disconnect()

    play(scenario)


def test_the_end_is_told_and_ends_the_events() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, await put(app))
        await waiting(live)
        last = (await post(app, b"the end", **CLOSE)).headers["stream-next-offset"]
        await call.finished()
        assert call.complete
        end = {"streamNextOffset": last, "upToDate": True, "streamClosed": True}
        assert told(call)[-3] == ("data", "the end")
        assert told(call)[-1] == ("control", end)
        late = follow(app, last)
        await late.finished()
        assert late.complete
        assert told(late)[-1] == ("control", end)
        assert "streamCursor" not in late.events[-1]["data"]

    play(scenario)


def test_a_stream_that_is_deleted_ends_without_being_closed() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, await put(app))
        await waiting(live)
        await request(app, "DELETE", "/live/s/1")
        await call.finished()
        assert call.complete
        assert b"streamClosed" not in call.body_so_far
        assert (await request(app, "GET", "/live/s/1?offset=-1&live=sse")).status == 404

    play(scenario)


def test_events_end_after_a_while_and_the_reader_asks_again() -> None:
    clock = ManualClock(wall_ms=NOW_MS)

    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, await put(app))
        await waiting(live)
        clock.advance(59)
        await asyncio.sleep(0)
        assert not call.over
        clock.advance(1)
        await call.finished()
        assert call.complete
        assert live.stats()["connections"] == live.stats()["subscriptions"] == 0

    play(scenario, clock=clock, flush_window_s=0.0)


def test_a_browsers_event_source_resumes_and_stops_at_the_end() -> None:
    """It asks the same URL again, with the id of the last event; 204 tells it to stay away (HTML 9.2.3)."""

    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"one ")
        first = follow(app, "-1")
        await first.until(lambda c: len(c.events) == 2)
        last_id = first.events[-1]["id"]
        await first.disconnect()
        await post(app, b"two")
        back = follow(app, "-1", accept="text/event-stream", last_event_id=last_id)
        await back.until(lambda c: c.events)
        assert told(back)[0] == ("data", "two")
        await post(app, b"", **CLOSE)
        await back.finished()
        over = follow(app, "-1", accept="text/event-stream", last_event_id=back.events[-1]["id"])
        await over.finished()
        assert (over.status, over.body_so_far) == (204, b"")

    play(scenario)


def test_a_reader_that_loses_something_is_cut_off_and_told_by_the_next_answer() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        offset = await put(app, b"x")
        call = follow(app, offset)
        await call.until(lambda c: c.events)
        await waiting(live)
        call.reading.clear()
        for n in range(12):
            await post(app, b"%d" % n)
        assert live.stats()["evicted"] == 1
        call.reading.set()
        await call.finished()
        told_offset = json.loads(call.events[-1]["data"])["streamNextOffset"]
        assert (await request(app, "GET", f"/live/s/1?offset={told_offset}&live=sse")).status == 410

    play(scenario, limits=Limits(outbox_messages_max=3, evict_drain_s=0.02), flush_window_s=0.0)


def test_readers_of_one_kind_share_what_is_written() -> None:
    """Counted: one encoding for all of them, also for those that bring a cursor from the same interval."""
    from tidewire.protocol import durable

    calls = list[int]()
    data_event = durable.data_event

    def counted(messages: Any, kind: Any) -> bytes:
        calls.append(len(messages))
        return data_event(messages, kind)

    async def scenario(app: FastAPI, live: Live) -> None:
        tail = await put(app)
        readers = [follow(app, tail) for _ in range(20)]
        await waiting(live, 20)
        for call in readers:
            await call.until(lambda c: c.events)
        await post(app, b"x")
        for call in readers:
            await call.until(lambda c: len(c.events) == 3)
        calls.clear()
        await post(app, b"y")
        for call in readers:
            await call.until(lambda c: len(c.events) == 5)
        assert calls == [1]
        for call in readers:
            await call.disconnect()

    durable.data_event = counted  # type: ignore[assignment]
    try:
        play(scenario)
    finally:
        durable.data_event = data_event  # type: ignore[assignment]


def test_draining_ends_the_events() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = follow(app, await put(app))
        await waiting(live)
        await post(app, b"before the end")
        await live.drain()
        await call.finished()
        assert call.complete
        assert "before the end" in call.body_so_far.decode()

    play(scenario)
