"""A topic by HTTP: reading what is kept, publishing, events, CORS. No ports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pydantic
import pytest
from fastapi import FastAPI

from tests.server.driver import HttpCall, Scenario, play_with, request
from tidewire import Latest, Limits, Live, Log, Operation, Signal


def play(scenario: Scenario, **options: Any) -> None:
    play_with(declare, scenario, **options)


def declare(live: Live) -> None:
    @live.topic("chat/{room}", policy=Log(keep=5), publish=True)
    async def chat(room: str) -> None: ...

    @live.topic("json/{name}", payload="json", publish=True)
    async def only_json(name: str) -> None: ...

    @live.topic("text/{name}", payload="text", publish=True)
    async def only_text(name: str) -> None: ...

    @live.topic("news")
    async def news() -> None: ...

    @live.topic("chain", policy=Latest(key="id"), publish=True)
    async def chain() -> None: ...

    @live.topic("typing", policy=Signal(), publish=True)
    async def typing() -> None: ...


JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
EVENTS = {"accept": "text/event-stream"}


def test_publish_and_read_json() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        posted = await request(app, "POST", "/live/chat/1", headers=JSON, body=b'{"a": 1}')
        assert posted.status == 204
        read = await request(app, "GET", "/live/chat/1")
        assert read.json == [{"a": 1}]
        assert read.headers["content-type"] == "application/json"
        assert read.headers["stream-next-offset"] == posted.headers["stream-next-offset"]
        assert read.headers["stream-up-to-date"] == "true"
        assert "stream-closed" not in read.headers

    play(scenario)


def test_an_array_is_a_batch_and_a_nested_one_is_a_message() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await request(app, "POST", "/live/chat/1", headers=JSON, body=b"[1, 2, [3, 4]]")
        assert (await request(app, "GET", "/live/chat/1")).json == [1, 2, [3, 4]]
        empty = await request(app, "POST", "/live/chat/1", headers=JSON, body=b"[]")
        assert empty.status == 400
        await live.publish("chat/1", [5, 6])
        assert (await request(app, "GET", "/live/chat/1")).json == [1, 2, [3, 4], [5, 6]]

    play(scenario)


@pytest.mark.parametrize("media_type", ["text/plain", "text/csv", "application/x-www-form-urlencoded"])
def test_text_is_text(media_type: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for text in (b"one", b"two"):
            await request(app, "POST", "/live/chat/1", headers={"content-type": media_type}, body=text)
        read = await request(app, "GET", "/live/chat/1")
        assert read.headers["content-type"] == "text/plain; charset=utf-8"
        assert read.body_so_far == b"one\ntwo\n"
        exact = await request(app, "GET", "/live/chat/1?offset=-1")
        assert exact.body_so_far == b"onetwo"

    play(scenario)


def test_anything_else_is_bytes() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await request(app, "POST", "/live/chat/1", headers={"content-type": "image/png"}, body=b"\x89PNG")
        read = await request(app, "GET", "/live/chat/1")
        assert read.headers["content-type"] == "application/octet-stream"
        assert read.body_so_far == b"\x89PNG"

    play(scenario)


def test_reading_from_an_offset_goes_on_where_it_was() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("chat/1", {"n": 1})
        await live.publish("chat/1", {"n": 2})
        read = await request(app, "GET", f"/live/chat/1?offset={first}")
        assert read.json == [{"n": 2}]
        again = await request(app, "GET", f"/live/chat/1?offset={read.headers['stream-next-offset']}")
        assert again.json == []
        assert again.headers["stream-next-offset"] == read.headers["stream-next-offset"]
        now = await request(app, "GET", "/live/chat/1?offset=now")
        assert now.json == []
        assert now.headers["stream-next-offset"] == read.headers["stream-next-offset"]

    play(scenario)


def test_an_empty_topic_gives_an_offset_that_misses_nothing() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        empty = await request(app, "GET", "/live/chat/1")
        assert empty.json == []
        await live.publish("chat/1", 1)
        read = await request(app, "GET", f"/live/chat/1?offset={empty.headers['stream-next-offset']}")
        assert read.json == [1]

    play(scenario)


def test_what_is_trimmed_is_gone_and_says_where_to_go_on() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("chat/1", 0)
        for n in range(1, 10):
            await live.publish("chat/1", n)
        gone = await request(app, "GET", f"/live/chat/1?offset={first}")
        assert gone.status == 410
        assert "not kept" in gone.json["detail"]
        read = await request(app, "GET", f"/live/chat/1?offset={gone.headers['stream-next-offset']}")
        assert read.json == [5, 6, 7, 8, 9]

    play(scenario)


@pytest.mark.parametrize("offset", ["x", "1:2:3", "e:-1", "e:1%0a", "%ff"])
def test_malformed_offsets_are_told(offset: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "GET", f"/live/chat/1?offset={offset}")
        assert answer.status == 400
        assert "is not a position" in answer.json["detail"]

    play(scenario)


def test_a_large_read_is_cut_and_goes_on() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for n in range(5):
            await live.publish("chat/1", {"n": n, "pad": "x" * 60})
        read = await request(app, "GET", "/live/chat/1")
        assert [m["n"] for m in read.json] == [0, 1]
        assert "stream-up-to-date" not in read.headers
        rest = await request(app, "GET", f"/live/chat/1?offset={read.headers['stream-next-offset']}")
        assert [m["n"] for m in rest.json] == [2, 3]

    play(scenario, limits=Limits(page_messages_max=1, read_bytes_max=100))


def test_an_etag_saves_the_body() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("chat/1", 1)
        read = await request(app, "GET", "/live/chat/1")
        same = await request(app, "GET", "/live/chat/1", headers={"if-none-match": read.headers["etag"]})
        assert (same.status, same.body_so_far) == (304, b"")
        await live.publish("chat/1", 2)
        other = await request(app, "GET", "/live/chat/1", headers={"if-none-match": read.headers["etag"]})
        assert other.status == 200

    play(scenario)


def test_a_finished_topic_says_so_and_takes_nothing() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        last = await live.publish("chat/1", 1)
        await live.finish("chat/1")
        read = await request(app, "GET", "/live/chat/1")
        assert read.headers["stream-closed"] == "true"
        late = await request(app, "POST", "/live/chat/1", headers=JSON, body=b"2")
        assert late.status == 409
        assert (late.headers["stream-closed"], late.headers["stream-next-offset"]) == ("true", last)
        nothing = await request(app, "GET", "/live/chat/1", headers={**EVENTS, "last-event-id": str(last)})
        assert nothing.status == 204

    play(scenario)


def test_an_idempotency_key_publishes_once_per_caller() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        mine = {**JSON, "idempotency-key": "k1", "authorization": "Bearer me"}
        first = await request(app, "POST", "/live/chat/1", headers=mine, body=b"1")
        again = await request(app, "POST", "/live/chat/1", headers=mine, body=b"1")
        other = await request(app, "POST", "/live/chat/1", headers={**mine, "authorization": "Bearer you"}, body=b"2")
        assert first.headers["stream-next-offset"] == again.headers["stream-next-offset"]
        assert other.headers["stream-next-offset"] != first.headers["stream-next-offset"]
        assert (await request(app, "GET", "/live/chat/1")).json == [1, 2]
        assert await live.publish("chat/1", 3, id="k1") != first.headers["stream-next-offset"]
        too_long = await request(app, "POST", "/live/chat/1", headers={**JSON, "idempotency-key": "k" * 256}, body=b"1")
        assert too_long.status == 400

    play(scenario)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "words"),
    [
        ("news", JSON, b"1", 405, "live.publish"),
        ("nowhere", JSON, b"1", 404, "no such topic"),
        ("a//b", JSON, b"1", 404, "empty"),
        ("chat/" + "x" * 300, JSON, b"1", 404, "255"),
        ("chat/*", JSON, b"1", 404, "wildcard"),
        ("chat/..", JSON, b"1", 404, ".."),
        ("chat/1", JSON, b"", 400, "empty"),
        ("chat/1", JSON, b"{", 400, "not JSON"),
        ("chat/1", JSON, b'"\xff"', 400, "UTF-8"),
        ("chat/1", TEXT, b"\xff", 400, "UTF-8"),
        ("chat/1", JSON, b'"' + b"x" * 2000 + b'"', 413, "1000 bytes"),
        ("chat/1", JSON, b"[" + b"1," * 30 + b"1]", 413, "batch"),
        ("chat/1", TEXT, b"x" * 1001, 413, "1001 bytes exceeds the limit of 1000"),
        ("json/x", TEXT, b"hi", 400, "takes json, and this is text"),
        ("text/x", JSON, b"1", 400, "takes text, and this is json"),
        ("chain", JSON, b'{"x": 1}', 400, "'id'"),
        ("chain", TEXT, b"x", 400, "keyed"),
    ],
)
def test_what_cannot_be_published_is_told(
    path: str, headers: dict[str, str], body: bytes, status: int, words: str
) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "POST", f"/live/{path}", headers=headers, body=body)
        assert answer.status == status
        assert words in answer.json["detail"]

    play(scenario, limits=Limits(message_bytes_max=1000, batch_messages_max=30))


def test_a_batch_is_all_or_nothing_when_one_is_refused() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("moderated", publish=True)
        async def moderated(op: Operation) -> None:
            if op.name == "publish" and op.data == "bad":
                from tidewire import Deny

                raise Deny("mind your words", status=422)

        refused = await request(app, "POST", "/live/moderated", headers=JSON, body=b'["good", "bad"]')
        assert (refused.status, refused.json) == (422, {"detail": "mind your words"})
        assert (await request(app, "GET", "/live/moderated")).json == []

    play(scenario)


def test_a_slow_body_has_a_deadline() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = HttpCall(app, "POST", "/live/chat/1", headers={**JSON, "content-length": "100"})
        call._to_app = asyncio.Queue()
        call._to_app.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        await call.run()
        assert call.status == 408

    play(scenario, limits=Limits(body_timeout_s=0.01))


def test_events_begin_with_a_position_and_go_on_live() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("chat/1", {"n": 0})
        call = HttpCall(app, "GET", "/live/chat/1", headers=EVENTS).begin()
        await call.until(lambda c: c.events)
        assert call.headers["content-type"].startswith("text/event-stream")
        assert call.headers["cache-control"] == "no-store"
        position = await live.publish("chat/1", {"n": 1})
        await live.publish("chat/1", "two\nlines")
        await live.publish("chat/1", b"\x00")
        await call.until(lambda c: len(c.events) == 4)
        first, *rest = call.events
        assert first["event"] == "position"
        assert json.loads(first["data"])["recovered"] is None
        assert rest[0] == {"event": "message", "data": '{"n":1}', "id": position}
        assert rest[1]["data"] == "two\nlines"
        assert (rest[2]["event"], rest[2]["data"]) == ("binary", "AA==")
        await call.disconnect()
        assert live.stats()["connections"] == 0

    play(scenario)


def test_events_resume_by_last_event_id() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("chat/1", 1)
        await live.publish("chat/1", 2)
        call = HttpCall(app, "GET", "/live/chat/1", headers={**EVENTS, "last-event-id": str(first)}).begin()
        await call.until(lambda c: len(c.events) == 2)
        assert json.loads(call.events[0]["data"]) == {"position": first, "recovered": True, "replayed": 1}
        assert call.events[1]["data"] == "2"
        await call.disconnect()

    play(scenario)


def test_what_the_browser_has_seen_counts_more_than_where_its_url_began() -> None:
    """EventSource asks the same URL again after a cut, with the last id: ``?since=`` there was for the first time."""

    async def scenario(app: FastAPI, live: Live) -> None:
        positions = [await live.publish("chat/1", n) for n in range(3)]
        seen = {**EVENTS, "last-event-id": str(positions[1])}
        call = HttpCall(app, "GET", "/live/chat/1?since=-1", headers=seen).begin()
        await call.until(lambda c: len(c.events) == 2)
        assert [event["data"] for event in call.events[1:]] == ["2"]
        await call.disconnect()
        await live.finish("chat/1")
        done = {**EVENTS, "last-event-id": str(positions[2])}
        assert (await request(app, "GET", "/live/chat/1?since=-1", headers=done)).status == 204

    play(scenario)


def test_events_tell_a_gap() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        foreign = f"{'0' * 16}:{7:020d}"
        await live.publish("chat/1", 1)
        call = HttpCall(app, "GET", "/live/chat/1", headers={**EVENTS, "last-event-id": foreign}).begin()
        await call.until(lambda c: len(c.events) == 3)
        opened, gap, message = call.events
        assert json.loads(opened["data"])["recovered"] is False
        assert gap["event"] == "gap"
        assert json.loads(gap["data"])["from"] == foreign
        assert message["data"] == "1"
        await call.disconnect()

    play(scenario)


def test_events_end_with_the_topic() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = HttpCall(app, "GET", "/live/chat/1", headers=EVENTS).begin()
        await call.until(lambda c: c.events)
        await live.publish("chat/1", "last")
        await live.finish("chat/1", error="it broke")
        await call.finished()
        assert call.complete
        assert [event["event"] for event in call.events] == ["position", "message", "end"]
        assert json.loads(call.events[-1]["data"]) == {"error": "it broke"}
        again = await request(app, "GET", "/live/chat/1", headers={**EVENTS, "last-event-id": call.events[-1]["id"]})
        assert again.status == 204

    play(scenario)


def test_events_of_removed_keys() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("chain", {"id": 1, "bid": 2})
        call = HttpCall(app, "GET", "/live/chain", headers=EVENTS).begin()
        await call.until(lambda c: len(c.events) == 2)
        await live.forget("chain", 1)
        await call.until(lambda c: len(c.events) == 3)
        assert (call.events[2]["event"], call.events[2]["data"]) == ("removed", '{"key":"1"}')
        await call.disconnect()
        assert (await request(app, "GET", "/live/chain")).json == []

    play(scenario)


def test_an_idle_event_stream_shows_that_it_lives() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = HttpCall(app, "GET", "/live/chat/1", headers=EVENTS).begin()
        await call.until(lambda c: c.body_so_far.count(b": alive\n\n") >= 3)
        await call.disconnect()

    play(scenario, limits=Limits(heartbeat_s=0.01))


def test_a_page_for_browsers() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        page = await request(app, "GET", "/live/chat/1", headers={"accept": "text/html,*/*"})
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert b"../-/client/topic.js" in page.body_so_far
        assert b"<script>" not in page.body_so_far
        for name in ("topic.js", "topic.css"):
            assert (await request(app, "GET", f"/live/-/client/{name}")).status == 200
        assert (await request(app, "GET", "/live/-/client/..%2fsite.py")).status == 404
        assert (await request(app, "GET", "/live/nowhere", headers={"accept": "text/html"})).status == 404

    play(scenario)


def test_head_is_get_without_a_body() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        last = await live.publish("chat/1", 1)
        head = await request(app, "HEAD", "/live/chat/1")
        assert (head.status, head.headers["stream-next-offset"]) == (200, last)

    play(scenario)


def test_foreign_pages_may_not_post_unless_they_are_listed() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for origin, status in (
            ("https://app.example.com", 204),
            ("https://evil.example.com", 403),
            ("null", 403),
            ("http://test", 204),
        ):
            answer = await request(app, "POST", "/live/chat/1", headers={**JSON, "origin": origin}, body=b"1")
            assert answer.status == status, origin
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if origin == "https://app.example.com" else None)
        options = await request(app, "OPTIONS", "/live/chat/1", headers={"origin": "https://app.example.com"})
        assert options.status == 204
        assert "POST" in options.headers["access-control-allow-methods"]
        refused = await request(app, "OPTIONS", "/live/chat/1", headers={"origin": "https://evil.example.com"})
        assert refused.status == 403

    play(scenario, origins=["https://app.example.com"])


def test_a_forwarded_host_counts_only_from_configured_peers() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        headers = {**JSON, "origin": "https://app.example.com", "x-forwarded-host": "app.example.com"}
        trusted = await request(app, "POST", "/live/chat/1", headers=headers, body=b"1", client="10.0.0.9")
        stranger = await request(app, "POST", "/live/chat/1", headers=headers, body=b"1", client="10.0.0.8")
        assert (trusted.status, stranger.status) == (204, 403)

    play(scenario, trusted_proxies=["10.0.0.9"])


def test_an_address_has_so_many_connections() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        calls = [HttpCall(app, "GET", "/live/chat/1", headers=EVENTS).begin() for _ in range(2)]
        for call in calls:
            await call.until(lambda c: c.events)
        refused = await request(app, "GET", "/live/chat/1", headers=EVENTS)
        assert refused.status == 429
        assert "open from this address" in refused.json["detail"]
        local = HttpCall(app, "GET", "/live/chat/1", headers=EVENTS, client="127.0.0.1").begin()
        await local.until(lambda c: c.events)
        for call in [*calls, local]:
            await call.disconnect()

    play(scenario, limits=Limits(connections_per_address_max=2))


def test_draining_ends_the_streams_and_lets_nobody_in() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        call = HttpCall(app, "GET", "/live/chat/1", headers=EVENTS).begin()
        await call.until(lambda c: c.events)
        await live.publish("chat/1", "before the end")
        await live.drain()
        await call.finished()
        assert call.complete
        assert call.events[-1]["data"] == "before the end"
        assert (await request(app, "GET", "/live/chat/1", headers=EVENTS)).status == 503
        assert (await request(app, "GET", "/live/-/health")).status == 503

    play(scenario)


class Quote(pydantic.BaseModel):
    bid: float


def test_a_declared_topic_publishes_by_parameters() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("quotes/{symbol}", policy=Latest())
        async def quotes(symbol: str) -> None: ...

        await quotes.publish(Quote(bid=1.5), symbol="AAPL")
        assert (await request(app, "GET", "/live/quotes/AAPL")).json == [{"bid": 1.5}]

    play(scenario)
