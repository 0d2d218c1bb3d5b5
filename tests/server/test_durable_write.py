"""Streams of clients over HTTP: create, append, close, delete; producers and orders; who may. No ports."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException

from tests.server.driver import HttpCall, Scenario, play_with, request
from tests.server.durable import declare_stream, play_streams
from tidewire import Deny, Latest, Limits, Live, Log, Operation
from tidewire.errors import AppendConflict, DeclarationError, UnknownStream
from tidewire.protocol.message import Kind
from tidewire.testing import ManualClock

TEXT = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
CLOSE = {"stream-closed": "true"}


def play(scenario: Scenario, **options: Any) -> None:
    play_streams(declare, scenario, **options)


def declare(live: Live) -> None:
    declare_stream(live, "s/{name}")
    declare_stream(live, "json/{name}", payload=Kind.JSON)
    declare_stream(live, "own/{name}", publish=False)

    @live.topic("log", publish=True)
    async def log() -> None: ...

    @live.topic("chain", policy=Latest(key="id"), publish=True)
    async def chain() -> None: ...

    @live.topic("news")
    async def news() -> None: ...


def producer(sequence: int, epoch: int = 0, name: str = "p") -> dict[str, str]:
    return {"producer-id": name, "producer-epoch": str(epoch), "producer-seq": str(sequence)}


async def put(app: FastAPI, path: str = "s/1", body: bytes = b"", **headers: str) -> HttpCall:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(app, "PUT", f"/live/{path}", headers={**TEXT, **named}, body=body)


async def post(app: FastAPI, body: bytes = b"x", headers: dict[str, str] | None = None, path: str = "s/1") -> HttpCall:
    return await request(app, "POST", f"/live/{path}", headers={**TEXT, **(headers or {})}, body=body)


async def read(app: FastAPI, path: str = "s/1") -> HttpCall:
    return await request(app, "GET", f"/live/{path}")


# Creating


def test_a_stream_is_there_once_it_is_created() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for method in ("GET", "HEAD", "DELETE"):
            assert (await request(app, method, "/live/s/1")).status == 404
        assert (await post(app)).status == 404
        created = await put(app)
        assert created.status == 201
        assert created.headers["location"] == "http://test/live/s/1"
        assert created.headers["content-type"] == "text/plain"
        empty = await read(app)
        assert (empty.status, empty.body_so_far) == (200, b"")
        assert empty.headers["stream-next-offset"] == created.headers["stream-next-offset"]
        appended = await post(app, b"hello")
        assert appended.status == 204
        assert appended.headers["stream-next-offset"] > created.headers["stream-next-offset"]
        assert (await read(app)).body_so_far == b"hello"

    play(scenario)


def test_creating_it_again_is_fine_and_creating_another_is_a_conflict() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, body=b"first", stream_ttl="60")
        again = await put(app, body=b"second", content_type="TEXT/Plain; charset=utf-8", stream_ttl="60")
        assert again.status == 200
        assert "location" not in again.headers
        assert (await read(app)).body_so_far == b"first"
        for other in ({}, {"stream_ttl": "61"}, {"stream_ttl": "60", "content_type": "text/csv"},
                      {"stream_ttl": "60", "stream_closed": "true"}):  # fmt: skip
            refused = await put(app, **other)
            assert refused.status == 409
            assert "stream-ttl: 60" in refused.json["detail"]
        await post(app, b"", CLOSE)
        assert (await put(app, stream_ttl="60")).status == 409
        assert (await put(app, stream_ttl="60", stream_closed="true")).status == 200

    play(scenario)


def test_moments_are_the_same_however_they_are_written() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        created = await put(app, stream_expires_at="2030-06-01T12:00:00+02:00")
        assert created.headers["stream-expires-at"] == "2030-06-01T10:00:00.000Z"
        assert (await put(app, stream_expires_at="2030-06-01T10:00:00Z")).status == 200
        assert (await put(app, stream_expires_at="2030-06-01T10:00:01Z")).status == 409

    play(scenario, clock=ManualClock(wall_ms=1_800_000_000_000))


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({"stream_ttl": "01"}, b"", 400, "leading zero"),
        ({"stream_expires_at": "tomorrow"}, b"", 400, "RFC 3339"),
        ({"stream_expires_at": "2001-01-01T00:00:00Z"}, b"", 400, "passed already"),
        ({"stream_ttl": "1", "stream_expires_at": "2030-06-01T12:00:00Z"}, b"", 400, "leave one out"),
        ({"content_type": "nonsense"}, b"", 400, "type/subtype"),
        ({"content_type": "application/json"}, b"{", 400, "not JSON"),
        ({}, b"\xff", 400, "UTF-8"),
        ({}, b"x" * 1001, 413, "limit of 1000"),
        ({"stream_forked_from": "/live/s/2"}, b"", 501, "not forked"),
        ({"stream_fork_sub_offset": "0"}, b"", 501, "not forked"),
    ],
)
def test_what_cannot_be_created_is_told(headers: dict[str, str], body: bytes, status: int, words: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await put(app, body=body, **headers)
        assert answer.status == status
        assert words in answer.json["detail"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await read(app)).status == 404

    play(scenario, limits=Limits(message_bytes_max=1000))


def test_the_first_content_may_be_the_last() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        created = await put(app, "s/all", b"everything", stream_closed="TRUE")
        assert created.headers["stream-closed"] == "true"
        everything = await read(app, "s/all")
        assert (everything.body_so_far, everything.headers["stream-closed"]) == (b"everything", "true")
        assert (await post(app, b"more", path="s/all")).status == 409
        nothing = await put(app, "s/nothing", stream_closed="true")
        assert (nothing.status, nothing.headers["stream-closed"]) == (201, "true")
        # anything else is as if it were not there
        assert "stream-closed" not in (await put(app, "s/open", stream_closed="yes")).headers

    play(scenario)


def test_json_streams_take_batches() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, "s/1", b"[]", content_type="application/json; charset=utf-8")
        assert (await read(app)).json == []
        for body in (b'{"a": 1}', b"[2, [3, 4]]", b"[[5]]"):
            assert (await post(app, body, JSON)).status == 204
        answer = await read(app)
        assert answer.json == [{"a": 1}, 2, [3, 4], [5]]
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert (await post(app, b"[]", JSON)).status == 400
        filled = await put(app, "s/2", b"[1, 2]", content_type="application/json")
        assert filled.headers["stream-next-offset"].endswith("2")

    play(scenario)


def test_bytes_stay_what_they_are() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        kind = {"content-type": "application/vnd.api+json"}
        await put(app, "s/1", b'{"a":  1}', content_type=kind["content-type"])
        await post(app, b"\x00\xff", kind)
        answer = await read(app)
        assert answer.body_so_far == b'{"a":  1}\x00\xff'
        assert answer.headers["content-type"] == kind["content-type"]

    play(scenario)


def test_a_stream_without_a_content_type_is_what_its_topic_promises() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        assert (await request(app, "PUT", "/live/s/1")).headers["content-type"] == "application/octet-stream"
        assert (await request(app, "PUT", "/live/json/1")).headers["content-type"] == "application/json"
        refused = await put(app, "json/2")
        assert refused.status == 400
        assert "takes json" in refused.json["detail"]

    play(scenario)


# Appending


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({}, b"", 400, "empty"),
        ({"stream-seq": ""}, b"x", 400, "Stream-Seq"),
        ({"content-type": "text/csv"}, b"x", 409, "Content-Type is text/plain"),
        ({"content-type": "application/json"}, b"1", 409, "Content-Type is text/plain"),
        ({"producer-id": "p"}, b"x", 400, "together"),
        (producer(3), b"x", 409, "number 0"),
        ({"idempotency-key": ""}, b"x", 400, "Idempotency-Key"),
    ],
)
def test_what_cannot_be_appended_is_told(headers: dict[str, str], body: bytes, status: int, words: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        answer = await post(app, body, headers)
        assert answer.status == status
        assert words in answer.json["detail"]
        assert (await read(app)).body_so_far == b""

    play(scenario)


def test_an_append_says_what_it_is() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await request(app, "PUT", "/live/s/1")
        answer = await request(app, "POST", "/live/s/1", body=b"x")
        assert answer.status == 400
        assert "Content-Type" in answer.json["detail"]

    play(scenario)


def test_orders_ascend_byte_by_byte() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        statuses = [
            (await post(app, order.encode("latin-1"), {"stream-seq": order})).status
            for order in ("09", "10", "10", "2", "a", "B", "\xe9")
        ]
        assert statuses == [204, 204, 409, 204, 204, 409, 400]
        # the last one is no UTF-8, and is refused as text; as an order it would do
        assert (await post(app, b"z", {"stream-seq": "\xe9"})).status == 204
        assert (await post(app, b"z", {"stream-seq": "z"})).status == 409

    play(scenario)


def test_a_producer_is_heard_once() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        first = await post(app, b"a", producer(0))
        assert (first.status, first.headers["producer-epoch"], first.headers["producer-seq"]) == (200, "0", "0")
        second = await post(app, b"b", producer(1))
        again = await post(app, b"other", producer(0))
        assert (again.status, again.headers["producer-seq"]) == (204, "1")
        assert again.headers["stream-next-offset"] == second.headers["stream-next-offset"]
        gap = await post(app, b"d", producer(3))
        assert (gap.status, gap.headers["producer-expected-seq"], gap.headers["producer-received-seq"]) == (
            409,
            "2",
            "3",
        )
        late = await post(app, b"c", producer(1, epoch=1))
        assert late.status == 400
        assert (await post(app, b"c", producer(0, epoch=1))).status == 200
        zombie = await post(app, b"x", producer(2))
        assert (zombie.status, zombie.headers["producer-epoch"]) == (403, "1")
        assert (await read(app)).body_so_far == b"abc"

    play(scenario)


def test_many_appends_of_one_producer_at_once_leave_nothing_out_of_order() -> None:
    """What comes too early is refused with what is expected, and sent again: nothing twice, nothing missing."""

    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        accepted = list[bytes]()

        async def send(number: int) -> None:
            for _ in range(100):
                answer = await post(app, b"%d," % number, producer(number))
                if answer.status != 409:
                    accepted.append(b"%d," % number)
                    return
                assert int(answer.headers["producer-expected-seq"]) < number
                await asyncio.sleep(0)
            raise AssertionError("never accepted")

        await asyncio.gather(*(send(number) for number in reversed(range(10))))
        assert sorted(accepted) == [b"%d," % n for n in range(10)]
        assert (await read(app)).body_so_far == b"".join(b"%d," % n for n in range(10))

    play(scenario)


def test_producers_count_on_any_log() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for sequence in (0, 0, 1):
            await post(app, b"[1, 2]", {**JSON, **producer(sequence)}, "log")
        assert (await read(app, "log")).json == [1, 2, 1, 2]
        refused = await post(app, b'{"id": 1}', {**JSON, **producer(0)}, "chain")
        assert refused.status == 400
        assert "on a Log" in refused.json["detail"]

    play(scenario)


# Closing and deleting


def test_closing_is_for_good() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        assert (await post(app, b"", CLOSE, "s/other")).status == 404
        last = await post(app, b"the end", CLOSE)
        assert (last.status, last.headers["stream-closed"]) == (204, "true")
        # a body of none closes whatever its type, and as often as one likes
        again = await post(app, b"", {**CLOSE, "content-type": "image/png"})
        assert (again.status, again.headers["stream-closed"]) == (204, "true")
        for headers in ({}, CLOSE, {"content-type": "image/png"}, producer(0)):
            late = await post(app, b"late", headers)
            assert (late.status, late.headers["stream-closed"]) == (409, "true")
            assert late.headers["stream-next-offset"] == last.headers["stream-next-offset"]

    play(scenario)


def test_a_producer_that_closes_may_say_so_twice() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        await put(app, "s/2")
        closed = await post(app, b"bye", {**CLOSE, **producer(0)})
        assert (closed.status, closed.headers["stream-closed"]) == (200, "true")
        again = await post(app, b"other words", {**CLOSE, **producer(0)})
        assert (again.status, again.headers["stream-closed"], again.headers["producer-seq"]) == (204, "true", "0")
        assert (await post(app, b"", {**CLOSE, **producer(1)})).status == 409
        await post(app, b"a", producer(0), "s/2")
        for status in (204, 204):
            empty = await post(app, b"", {**CLOSE, **producer(1)}, "s/2")
            assert (empty.status, empty.headers["producer-seq"]) == (status, "1")
        assert (await read(app)).body_so_far == b"bye"

    play(scenario)


def test_deleting_makes_room_for_another() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app, body=b"old")
        before = (await read(app)).headers["stream-next-offset"]
        deleted = await request(app, "DELETE", "/live/s/1")
        assert (deleted.status, deleted.body_so_far) == (204, b"")
        assert (await read(app)).status == 404
        assert (await request(app, "DELETE", "/live/s/1")).status == 404
        assert (await put(app, body=b"new", content_type="text/csv")).status == 201
        assert (await read(app)).body_so_far == b"new"
        gone = await request(app, "GET", f"/live/s/1?offset={before}")
        assert gone.status == 410

    play(scenario)


# Who may


@pytest.mark.parametrize(
    ("method", "path", "headers", "words", "allow"),
    [
        ("PUT", "log", {}, "streams=True", "GET, HEAD, POST"),
        ("DELETE", "log", {}, "streams=True", "GET, HEAD, POST"),
        ("POST", "log", CLOSE, "live.finish", "GET, HEAD, POST"),
        ("PUT", "chain", {}, "streams=True", "GET, HEAD, POST"),
        ("PUT", "news", {}, "streams=True", "GET, HEAD"),
        ("POST", "news", {}, "live.publish", "GET, HEAD"),
        ("POST", "own/1", {}, "live.publish", "GET, HEAD, PUT, DELETE"),
        ("PUT", "own/1", {}, "live.publish", "GET, HEAD, PUT, DELETE"),
        ("POST", "own/1", CLOSE, "live.publish", "GET, HEAD, PUT, DELETE"),
    ],
)
def test_what_was_not_declared_is_not_allowed(
    method: str, path: str, headers: dict[str, str], words: str, allow: str
) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, method, f"/live/{path}", headers={**TEXT, **headers}, body=b"x")
        assert answer.status == 405
        assert words in answer.json["detail"]
        assert answer.headers["allow"] == allow

    play(scenario)


def test_a_stream_may_be_the_clients_and_its_messages_the_applications() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        assert (await put(app, "own/1")).status == 201
        await live.publish("own/1", "from the application")
        assert (await read(app, "own/1")).body_so_far == b"from the application"
        assert (await post(app, b"", CLOSE, "own/1")).status == 204
        assert (await request(app, "DELETE", "/live/own/1")).status == 204

    play(scenario)


def test_the_function_is_asked_for_each_by_its_name() -> None:
    asked = list[tuple[str, object]]()

    async def scenario(app: FastAPI, live: Live) -> None:
        def note(op: Operation) -> None:
            asked.append((op.name, op.data))

        declare_stream(live, "noted", note)
        await put(app, "noted", b"[1, 2]", content_type="application/json")
        await post(app, b"3", JSON, "noted")
        await post(app, b"4", {**JSON, **CLOSE}, "noted")
        await post(app, b"", CLOSE, "noted")
        await read(app, "noted")
        await request(app, "HEAD", "/live/noted")
        await request(app, "DELETE", "/live/noted")

    play(scenario)
    nothing = None
    assert asked == [
        ("create", nothing), ("publish", 1), ("publish", 2), ("publish", 3), ("publish", 4), ("close", nothing),
        ("close", nothing), ("read", nothing), ("read", nothing), ("delete", nothing),
    ]  # fmt: skip


@pytest.mark.parametrize("refused", ["create", "publish", "close", "delete", "read"])
def test_what_the_function_refuses_does_not_happen(refused: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        wanted = {"open": False}

        def decide(op: Operation) -> None:
            if op.name == refused and not wanted["open"]:
                raise Deny(f"no {op.name} for you")

        declare_stream(live, "judged", decide)
        statuses = {
            "create": (await put(app, "judged")).status,
            "publish": (await post(app, b"a", path="judged")).status,
            "close": (await post(app, b"b", CLOSE, "judged")).status,
            "read": (await read(app, "judged")).status,
            "delete": (await request(app, "DELETE", "/live/judged")).status,
        }
        assert statuses[refused] == 403
        wanted["open"] = True
        if refused == "create":
            assert statuses == {"create": 403, "publish": 404, "close": 404, "read": 404, "delete": 404}
        if refused == "close":
            assert statuses["delete"] == 204
        if refused == "delete":
            there = await read(app, "judged")
            assert (there.body_so_far, there.headers["stream-closed"]) == (b"ab", "true")
        if refused == "publish":
            assert statuses == {"create": 201, "publish": 403, "close": 403, "read": 200, "delete": 204}

    play(scenario)


def test_nobody_learns_whether_a_stream_is_there_who_may_not_read_it() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        def nobody(op: Operation) -> None:
            raise Deny("not you")

        declare_stream(live, "secret/{name}", nobody)
        await live.publish("secret/there", "x")
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
            statuses = {
                (await request(app, method, f"/live/secret/{name}", headers=TEXT, body=b"y")).status
                for name in ("there", "not-there")
            }
            assert statuses == {403}, method
        for query in ("?offset=-1&live=sse", "?offset=-1&live=long-poll"):
            for name in ("there", "not-there"):
                assert (await request(app, "GET", f"/live/secret/{name}{query}")).status == 403

    play(scenario)


def test_who_may_not_write_may_not_create_or_delete() -> None:
    """The dependency that is given as publish= stands before everything that changes a stream."""

    def writers(authorization: Annotated[str | None, Header()] = None) -> None:
        if authorization != "Bearer writer":
            raise HTTPException(401, "who are you?")

    async def scenario(app: FastAPI, live: Live) -> None:
        declare_stream(live, "guarded", publish=writers)
        mine = {**TEXT, "authorization": "Bearer writer"}
        for method, headers in (("PUT", TEXT), ("POST", TEXT), ("DELETE", TEXT)):
            assert (await request(app, method, "/live/guarded", headers=headers, body=b"x")).status == 401
        assert (await request(app, "PUT", "/live/guarded", headers=mine)).status == 201
        assert (await request(app, "POST", "/live/guarded", headers={**TEXT, **CLOSE})).status == 401
        assert (await request(app, "DELETE", "/live/guarded", headers=TEXT)).status == 401
        assert (await read(app, "guarded")).status == 200
        assert (await request(app, "DELETE", "/live/guarded", headers=mine)).status == 204

    play(scenario)


def test_only_a_log_is_a_stream() -> None:
    live = Live()
    with pytest.raises(DeclarationError, match="only a Log"):
        declare_stream(live, "s", policy=Latest())


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_foreign_pages_may_not_write_unless_they_are_listed(method: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish("s/1", "x")
        for origin, status in (("https://evil.example", 403), ("null", 403)):
            answer = await request(app, method, "/live/s/1", headers={**TEXT, "origin": origin})
            assert answer.status == status
        assert (await read(app)).body_so_far == b"x"
        friend = {**TEXT, "origin": "https://app.example.com"}
        answer = await request(app, method, "/live/s/2" if method == "PUT" else "/live/s/1", headers=friend)
        assert answer.status in {201, 204}
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"

    play(scenario, origins=["https://app.example.com"])


def test_a_preflight_allows_what_the_protocol_needs() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        answer = await request(app, "OPTIONS", "/live/s/1", headers={"origin": "https://app.example.com"})
        methods = answer.headers["access-control-allow-methods"].split(", ")
        assert methods == ["GET", "HEAD", "POST", "PUT", "DELETE"]
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"stream-seq", "stream-closed", "stream-ttl", "stream-expires-at", "if-none-match"} <= set(allowed)
        assert {"producer-id", "producer-epoch", "producer-seq"} <= set(allowed)
        read_back = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"stream-cursor", "stream-sse-data-encoding", "producer-expected-seq", "stream-ttl"} <= set(read_back)

    play(scenario, origins=["https://app.example.com"])


# The application's own publishing


def test_what_the_application_publishes_creates_the_stream() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for name, value, content_type in (
            ("s/json", {"a": 1}, "application/json"),
            ("s/text", "hello", "text/plain; charset=utf-8"),
            ("s/bytes", b"\x00", "application/octet-stream"),
        ):
            await live.publish(name, value)
            assert (await read(app, name)).headers["content-type"] == content_type
        live.publish_soon("s/soon", "hi")
        async with asyncio.timeout(5):
            while (await read(app, "s/soon")).status == 404:
                await asyncio.sleep(0)
        assert (await read(app, "s/soon")).body_so_far == b"hi"

    play(scenario)


def test_what_the_application_publishes_has_to_fit() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await put(app)
        with pytest.raises(AppendConflict, match="text/plain"):
            await live.publish("s/1", {"a": 1})
        await live.publish("s/1", "fits")
        assert (await read(app)).body_so_far == b"fits"

    play(scenario)


def test_an_id_publishes_once_also_where_it_creates() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        first = await live.publish("s/1", "once", id="x")
        assert await live.publish("s/1", "once", id="x") == first
        assert (await read(app)).body_so_far == b"once"

    play(scenario)


def test_what_a_client_publishes_creates_nothing() -> None:
    """Also where it was let in before the stream was deleted, as on a socket."""

    async def scenario(app: FastAPI, live: Live) -> None:
        publisher, declaration = live._site.publisher, live._gate.find("s/1")
        draft = publisher.draft_bytes(declaration, Kind.TEXT, b"x")
        with pytest.raises(UnknownStream, match="create it first"):
            await publisher.publish_draft("s/1", declaration, draft)
        assert (await read(app)).status == 404
        await put(app)
        await publisher.publish_draft("s/1", declaration, draft)
        assert (await read(app)).body_so_far == b"x"

    play(scenario)


def test_many_first_publishes_at_once_lose_nothing() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await asyncio.gather(*(live.publish("s/1", n) for n in range(20)))
        assert sorted((await read(app)).json) == list(range(20))

    play(scenario)


def test_the_application_ends_a_stream_that_nobody_created() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.finish("s/1")
        empty = await read(app)
        assert (empty.status, empty.headers["stream-closed"]) == (200, "true")
        assert (await put(app)).status == 409

    play(scenario)


def test_a_run_makes_its_stream() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        async def produce() -> Any:
            for word in ("one ", "two"):
                yield word

        await live.publish_from("s/1", produce())
        answer = await read(app)
        assert (answer.body_so_far, answer.headers["stream-closed"]) == (b"one two", "true")

    play(scenario)


def test_topics_of_the_application_are_there_as_before() -> None:
    def only_log(live: Live) -> None:
        @live.topic("log", policy=Log(), publish=True)
        async def log() -> None: ...

    async def scenario(app: FastAPI, live: Live) -> None:
        assert (await read(app, "log")).json == []
        assert (await post(app, b"x", path="log")).status == 204

    play_with(only_log, scenario)
