"""Streams over HTTP: catching up, metadata, caching, expiry. No ports."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from tests.server.driver import HttpCall, Scenario, SocketCall, request
from tests.server.durable import declare_stream, play_streams
from tidewire import Latest, Limits, Live, Log
from tidewire.testing import ManualClock

TEXT = {"content-type": "text/plain"}


def play(scenario: Scenario, **options: Any) -> None:
    play_streams(declare, scenario, **options)


def declare(live: Live) -> None:
    declare_stream(live, "s/{name}", policy=Log(keep=6))

    @live.topic("log", policy=Log(keep=6), publish=True)
    async def log() -> None: ...

    @live.topic("chain", policy=Latest(key="id"))
    async def chain() -> None: ...


async def put(app: FastAPI, body: bytes = b"", **headers: str) -> HttpCall:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(app, "PUT", "/live/s/1", headers={**TEXT, **named}, body=body)


async def post(app: FastAPI, body: bytes, **headers: str) -> HttpCall:
    return await request(app, "POST", "/live/s/1", headers={**TEXT, **headers}, body=body)


async def read(app: FastAPI, query: str = "", **headers: str) -> HttpCall:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(app, "GET", f"/live/s/1{query}", headers=named)


# What is read


def test_reading_goes_on_where_it_was() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"one ")
        first = await read(app)
        await post(app, b"two")
        rest = await read(app, f"?offset={first.headers['stream-next-offset']}")
        assert (first.body_so_far, rest.body_so_far) == (b"one ", b"two")
        nothing = await read(app, f"?offset={rest.headers['stream-next-offset']}")
        assert nothing.body_so_far == b""
        assert nothing.headers["stream-next-offset"] == rest.headers["stream-next-offset"]
        for answer in (first, rest, nothing):
            assert answer.headers["content-type"] == "text/plain"
            assert answer.headers["stream-up-to-date"] == "true"
        everything = await read(app, "?offset=-1")
        assert everything.body_so_far == b"one two"

    play(scenario)


def test_now_is_the_end_of_what_is_there() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"past")
        now = await read(app, "?offset=now")
        assert (now.body_so_far, now.headers["stream-up-to-date"]) == (b"", "true")
        assert now.headers["cache-control"] == "no-store"
        assert "etag" not in now.headers
        await post(app, b"future", **{"stream-closed": "true"})
        rest = await read(app, f"?offset={now.headers['stream-next-offset']}")
        assert rest.body_so_far == b"future"
        closed = await read(app, "?offset=now")
        assert (closed.body_so_far, closed.headers["stream-closed"]) == (b"", "true")

    play(scenario)


@pytest.mark.parametrize("topic", ["s/1", "log"])
@pytest.mark.parametrize("query", ["offset=", "offset=-1&offset=-1", "offset=0,1", "offset=0%201", "offset=../x"])
def test_an_offset_is_one_that_was_given_out(topic: str, query: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish(topic, "x")
        answer = await request(app, "GET", f"/live/{topic}?{query}")
        assert answer.status == 400
        assert "offset" in answer.json["detail"] or "position" in answer.json["detail"]

    play(scenario)


def test_a_large_stream_is_read_in_pieces_and_the_end_is_only_in_the_last() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        for n in range(5):
            await post(app, b"%d" % n * 40)
        await post(app, b"", **{"stream-closed": "true"})
        pieces, offset = list[bytes](), "-1"
        while True:
            answer = await read(app, f"?offset={offset}")
            assert len(answer.body_so_far) <= 120, "more than the limit by one message at most"
            offset = answer.headers["stream-next-offset"]
            pieces.append(answer.body_so_far)
            is_last = "stream-closed" in answer.headers
            assert ("stream-up-to-date" in answer.headers) is is_last
            if is_last:
                break
        assert b"".join(pieces) == b"".join(b"%d" % n * 40 for n in range(5))
        assert len(pieces) == 3

    play(scenario, limits=Limits(read_bytes_max=80, page_messages_max=3))


def test_a_page_of_large_messages_is_cut_too() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        for _ in range(6):
            await post(app, b"x" * 100)
        assert len((await read(app)).body_so_far) == 200

    play(scenario, limits=Limits(read_bytes_max=150, page_messages_max=256))


def test_what_is_trimmed_is_gone_and_says_where_to_go_on() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        created = await put(app)
        for n in range(8):
            await post(app, b"%d" % n)
        gone = await read(app, f"?offset={created.headers['stream-next-offset']}")
        assert gone.status == 410
        assert "not kept" in gone.json["detail"]
        rest = await read(app, f"?offset={gone.headers['stream-next-offset']}")
        assert rest.body_so_far == b"234567"
        assert (await read(app, "?offset=-1")).body_so_far == b"234567"

    play(scenario)


# What is known


def test_head_tells_what_a_stream_is() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        created = await put(app, b"x", stream_ttl="60", content_type="text/csv; header=present")
        head = await request(app, "HEAD", "/live/s/1")
        assert (head.status, head.body_so_far) == (200, b"")
        assert head.headers["content-type"] == "text/csv; header=present"
        assert head.headers["stream-ttl"] == "60"
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["stream-next-offset"] == created.headers["stream-next-offset"]
        assert "stream-closed" not in head.headers
        await request(app, "POST", "/live/s/1", headers={"stream-closed": "true"})
        assert (await request(app, "HEAD", "/live/s/1")).headers["stream-closed"] == "true"

    play(scenario)


def test_head_of_other_topics_is_their_get_without_a_body() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        last = await live.publish("log", {"n": 1})
        for accept in ("*/*", "text/event-stream", "text/html"):
            head = await request(app, "HEAD", "/live/log", headers={"accept": accept})
            assert (head.status, head.headers["stream-next-offset"]) == (200, last)
            assert head.headers["content-type"] == "application/json"

    play(scenario)


# Caches and browsers


def test_only_what_cannot_change_is_kept_without_asking() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        created = await put(app)
        begin = created.headers["stream-next-offset"]
        for _ in range(3):
            await post(app, b"x" * 50)
        piece = await read(app, f"?offset={begin}")
        assert "stream-up-to-date" not in piece.headers
        assert piece.headers["cache-control"] == "private, max-age=60, stale-while-revalidate=300"
        tail = await read(app, f"?offset={piece.headers['stream-next-offset']}")
        assert tail.headers["cache-control"] == "private, no-cache"
        assert {"Authorization", "Cookie", "Accept"} <= set(tail.headers["vary"].split(", "))
        # the oldest that is kept moves on
        assert (await read(app, "?offset=-1")).headers["cache-control"] == "private, no-cache"
        await post(app, b"", **{"stream-closed": "true"})
        closed = await read(app, f"?offset={piece.headers['stream-next-offset']}")
        assert "max-age=60" in closed.headers["cache-control"]
        for query in ("?offset=x", "?offset=" + "0" * 16 + ":" + "0" * 20):
            assert (await read(app, query)).headers["cache-control"] == "no-store"

    play(scenario, limits=Limits(read_bytes_max=80))


def test_a_latest_topic_is_asked_again_always() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("chain", {"id": 1})
        await live.publish("chain", {"id": 2})
        answer = await request(app, "GET", f"/live/chain?offset={first}")
        assert answer.headers["cache-control"] == "private, no-cache"

    play(scenario)


def test_an_etag_is_of_these_bytes_and_of_the_end() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"x")
        etag = (await read(app)).headers["etag"]
        for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            same = await read(app, if_none_match=header)
            assert (same.status, same.body_so_far, same.headers["etag"]) == (304, b"", etag)
        await post(app, b"", **{"stream-closed": "true"})
        closed = await read(app, if_none_match=etag)
        assert (closed.status, closed.headers["stream-closed"]) == (200, "true")
        assert closed.headers["etag"] != etag
        await request(app, "DELETE", "/live/s/1")
        await put(app, b"y")
        assert (await read(app, if_none_match=etag)).status == 200

    play(scenario)


def test_an_etag_is_of_one_form_of_a_topic() -> None:
    """Text is one message per line for people, and the bytes as they are for programs that give an offset."""

    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("log", "x")
        lines = await request(app, "GET", "/live/log")
        exact = await request(app, "GET", "/live/log?offset=-1")
        assert (lines.body_so_far, exact.body_so_far) == (b"x\n", b"x")
        assert lines.headers["etag"] != exact.headers["etag"]
        assert lines.headers["cache-control"] == "no-store"

    play(scenario)


def test_a_browser_runs_nothing_of_what_clients_have_written() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"<script>alert(1)</script>", content_type="text/html")
        page = await read(app, "?offset=-1", accept="text/html")
        assert page.headers["content-type"] == "text/html"
        assert page.headers["content-security-policy"] == "default-src 'none'; sandbox"
        missing = await request(app, "GET", "/live/s/2")
        for answer in (page, missing, await post(app, b"x", **{"content-type": "text/html"})):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"

    play(scenario)


# Expiry


@pytest.mark.parametrize("use", ["read", "append", "poll", "tail"])
def test_a_time_to_live_counts_from_the_last_use(use: str) -> None:
    clock = ManualClock()

    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"x", stream_ttl="10")
        for _ in range(4):
            clock.advance(8)
            assert (await request(app, "HEAD", "/live/s/1")).status == 200
            if use == "append":
                assert (await post(app, b"y")).status == 204
            else:
                query = {"read": "", "poll": "?offset=-1&live=long-poll", "tail": "?offset=now"}[use]
                assert (await read(app, query)).status == 200
        clock.advance(8)
        # to ask is no use
        assert (await request(app, "HEAD", "/live/s/1")).status == 200
        clock.advance(2)
        assert (await request(app, "HEAD", "/live/s/1")).status == 404
        assert (await read(app)).status == 404
        assert (await post(app, b"y")).status == 404
        assert (await put(app, stream_ttl="20")).status == 201

    play(scenario, clock=clock)


def test_a_moment_of_expiry_does_not_move() -> None:
    clock = ManualClock(wall_ms=1_800_000_000_000)

    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, b"x", stream_expires_at="2027-01-15T08:00:10Z")
        clock.advance(9)
        assert (await read(app)).body_so_far == b"x"
        assert (await post(app, b"y")).status == 204
        clock.advance(1)
        assert (await read(app)).status == 404

    play(scenario, clock=clock)


# Other ways to read the same


def test_sockets_and_event_sources_need_the_stream_too() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        events = {"accept": "text/event-stream"}
        assert (await request(app, "GET", "/live/s/1", headers=events)).status == 404
        refused = await SocketCall(app, "/live/s/1").open()
        assert (refused.accepted, refused.status) == (False, 404)
        await put(app, b"one")
        socket = await SocketCall(app, "/live/s/1?since=-1").open()
        source = HttpCall(app, "GET", "/live/s/1?since=-1", headers=events).begin()
        await socket.until(lambda s: s.frames)
        await source.until(lambda c: len(c.events) == 2)
        assert socket.frames == ["one"]
        assert source.events[1]["data"] == "one"
        await request(app, "DELETE", "/live/s/1")
        await socket.closed()
        await source.finished()
        assert socket.close_code == 1000
        assert "deleted" in socket.close_reason
        assert source.events[-1]["event"] == "end"
        assert "deleted" in source.events[-1]["data"]

    play(scenario)
