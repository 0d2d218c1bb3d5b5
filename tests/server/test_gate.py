"""Who may: topic functions with ordinary FastAPI dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, HTTPException, Request, Security, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from tests.server.driver import HttpCall, Scenario, SocketCall, play_with, request
from tidewire import DeclarationError, Deny, Latest, Limits, Live, Log, Operation
from tidewire.testing.lifespan import Lifespan

JSON = {"content-type": "application/json"}
EVENTS = {"accept": "text/event-stream"}
bearer = HTTPBearer()


def play(scenario: Scenario, **options: Any) -> None:
    play_with(lambda live: None, scenario, **options)


async def ways(app: FastAPI, topic: str, headers: dict[str, str] | None = None) -> list[int]:
    """The status of each way in: read, events, publish, WebSocket (101 when accepted)."""
    headers = headers or {}
    path = f"/live/{topic}"
    read = await request(app, "GET", path, headers=headers)
    events = HttpCall(app, "GET", path, headers={**headers, **EVENTS}).begin()
    await events.until(lambda c: c.status)
    if events.status == 200:
        await events.disconnect()
    else:
        await events.finished()
    post = await request(app, "POST", path, headers={**headers, **JSON}, body=b"1")
    socket = await SocketCall(app, path, headers=headers).open()
    if socket.accepted:
        await socket.leave()
    return [read.status, events.status, post.status, 101 if socket.accepted else socket.status]


def test_every_way_in_is_decided_by_the_function() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("room/{number}", publish=True)
        async def room(number: int) -> None:
            if number == 13:
                raise Deny("not this one")
            if number == 14:
                raise HTTPException(401, "who are you", headers={"WWW-Authenticate": "Bearer"})

        assert await ways(app, "room/1") == [200, 200, 204, 101]
        assert await ways(app, "room/13") == [403, 403, 403, 403]
        assert await ways(app, "room/14") == [401, 401, 401, 401]
        assert await ways(app, "room/x") == [422, 422, 422, 422]
        assert await ways(app, "elsewhere") == [404, 404, 404, 404]
        refused = await request(app, "GET", "/live/room/14")
        assert (refused.json, refused.headers["www-authenticate"]) == ({"detail": "who are you"}, "Bearer")

    play(scenario)


def test_dependencies_of_all_kinds_mean_what_they_mean() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        seen: list[Any] = []

        @live.topic("t")
        async def topic(
            request: Request,
            connection: HTTPConnection,
            token: Annotated[HTTPAuthorizationCredentials, Security(bearer)],
            user_agent: Annotated[str, Header()],
            session: Annotated[str, Cookie()],
            op: Operation,
            page: int = 1,
        ) -> None:
            seen.append((token.credentials, user_agent, session, page, op.name, op.topic, request.app.state.db))

        app.state.db = "the application's"
        headers = {"authorization": "Bearer abc", "user-agent": "test", "cookie": "session=s1"}
        socket = await SocketCall(app, "/live/t?page=7", headers=headers).open()
        assert socket.accepted
        await socket.leave()
        assert seen == [("abc", "test", "s1", 7, "subscribe", "t", "the application's")]
        refused = await SocketCall(app, "/live/t", headers={"user-agent": "test"}).open()
        assert (refused.accepted, refused.status) == (False, 401)

    play(scenario)


def test_resources_are_released_before_anything_streams() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        open_now: list[str] = []

        async def database() -> AsyncIterator[str]:
            open_now.append("db")
            yield "db"
            open_now.remove("db")

        def old_database() -> Iterator[str]:
            open_now.append("old")
            yield "old"
            open_now.remove("old")

        @live.topic("t")
        async def topic(db: str = Depends(database), old: str = Depends(old_database)) -> None:
            assert sorted(open_now) == ["db", "old"]

        socket = await SocketCall(app, "/live/t").open()
        assert socket.accepted
        assert open_now == []
        await socket.leave()

    play(scenario)


def test_dependency_overrides_of_the_application_hold() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        def current_user() -> str:
            raise HTTPException(401)

        @live.topic("t")
        def topic(user: str = Depends(current_user)) -> None:
            assert user == "a test"

        assert (await request(app, "GET", "/live/t")).status == 401
        app.dependency_overrides[current_user] = lambda: "a test"
        assert (await request(app, "GET", "/live/t")).status == 200

    play(scenario)


def test_publishing_may_need_more_than_reading() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        def writer(x_role: Annotated[str, Header()] = "") -> None:
            if x_role != "writer":
                raise Deny("readers read")

        @live.topic("t", publish=writer)
        async def topic() -> None: ...

        assert await ways(app, "t") == [200, 200, 403, 101]
        assert await ways(app, "t", {"x-role": "writer"}) == [200, 200, 204, 101]
        socket = await SocketCall(app, "/live/t").open()
        socket.send("hi")
        await socket.closed()
        assert (socket.close_code, socket.close_reason) == (1008, "readers read")

    play(scenario)


def test_the_operation_says_what_is_asked() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        seen: list[Operation] = []

        @live.topic("t", publish=True)
        async def topic(op: Operation) -> None:
            seen.append(op)

        position = await live.publish("t", 0)
        await request(app, "GET", f"/live/t?offset={position}")
        await request(app, "POST", "/live/t", headers=JSON, body=b'{"a":1}')
        socket = await SocketCall(app, f"/live/t?since={position}").open()
        socket.send("text")
        await socket.until(lambda s: len(s.frames) == 2)
        await socket.leave()
        assert seen == [
            Operation("read", "t", since=position),
            Operation("publish", "t", data={"a": 1}),
            Operation("subscribe", "t", since=position),
            Operation("publish", "t", data="text"),
        ]

    play(scenario)


def test_a_function_that_raises_or_hangs_refuses_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("broken")
        async def broken() -> None:
            raise RuntimeError("a bug")

        @live.topic("hanging")
        async def hanging() -> None:
            await asyncio.Event().wait()

        @live.topic("good")
        async def good() -> None: ...

        assert await ways(app, "broken") == [500, 500, 405, 500]
        assert await ways(app, "hanging") == [503, 503, 405, 503]
        assert await ways(app, "good") == [200, 200, 405, 101]

    play(scenario, limits=Limits(authorise_timeout_s=0.02))
    assert "a bug" in caplog.text
    assert "took longer than" in caplog.text


def test_a_refused_caller_holds_nothing() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("t/{name}")
        async def topic(name: str) -> None:
            raise Deny

        for n in range(50):
            await SocketCall(app, f"/live/t/{n}").open()
        stats = live.stats()
        assert (stats["topics"], stats["subscriptions"], stats["connections"]) == (0, 0, 0)
        assert await live._broker.position("t/1") is None

    play(scenario)


def test_the_first_declaration_that_matches_wins() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("room/secret")
        async def secret() -> None:
            raise Deny

        @live.topic("room/{name}")
        async def room(name: str) -> None: ...

        assert (await request(app, "GET", "/live/room/secret")).status == 403
        assert (await request(app, "GET", "/live/room/other")).status == 200

    play(scenario)


def test_parameters_take_one_segment_or_the_rest() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        seen = []

        @live.topic("files/{path:path}")
        async def files(path: str) -> None:
            seen.append(path)

        @live.topic("one/{name}")
        async def one(name: str) -> None:
            seen.append(name)

        await request(app, "GET", "/live/files/a/b.txt")
        await request(app, "GET", "/live/one/a@b,c=d~e#f$g")
        assert (await request(app, "GET", "/live/one/a/b")).status == 404
        assert seen == ["a/b.txt", "a@b,c=d~e#f$g"]

    play(scenario)


def test_a_snapshot_is_what_the_function_returns() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("chain", policy=Latest(key="id"))
        async def chain() -> list[dict[str, int]]:
            return [{"id": 1, "bid": 10}, {"id": 2, "bid": 20}]

        @live.topic("price", policy=Latest())
        def price() -> float:
            return 1.5

        socket = await SocketCall(app, "/live/chain?positions=1").open()
        await socket.until(lambda s: len(s.frames) == 3)
        await live.publish("chain", {"id": 2, "bid": 21})
        await socket.until(lambda s: len(s.frames) == 4)
        header, *rows = socket.envelopes
        assert header["replayed"] == 2
        assert [(row["key"], row["data"]["bid"], row.get("snapshot", False)) for row in rows] == [
            ("1", 10, True),
            ("2", 20, True),
            ("2", 21, False),
        ]
        await socket.leave()
        bare = await SocketCall(app, "/live/price").open()
        await bare.until(lambda s: s.frames)
        assert bare.frames == ["1.5"]
        await bare.leave()

    play(scenario)


@pytest.mark.parametrize("way", ["GET", "POST", "HEAD", "OPTIONS", "events", "websocket"])
@pytest.mark.parametrize("path", ["t", "-/health", "-/client/topic.js", "-/session", "nowhere"])
def test_a_dependency_on_include_router_guards_every_url(way: str, path: str) -> None:
    """Plain Starlette routes would silently ignore it (CONTRACTS 2)."""

    async def run() -> None:
        def refuse() -> None:
            raise HTTPException(418, "the application says no")

        live = Live()
        app = FastAPI()
        app.include_router(live.router, prefix="/live", dependencies=[Depends(refuse)])

        @live.topic("t", publish=True)
        async def topic() -> None: ...

        async with Lifespan(app):
            if way == "websocket":
                socket = await SocketCall(app, f"/live/{path}").open()
                await socket.closed()
                assert not socket.accepted
            elif way == "events":
                assert (await request(app, "GET", f"/live/{path}", headers=EVENTS)).status == 418
            else:
                answer = await request(app, way, f"/live/{path}", headers={"origin": "http://test"})
                assert answer.status in {418, 405}
                assert answer.status == 418 or path in {"-/health", "-/client/topic.js"}

    asyncio.run(run())


def test_topics_may_be_declared_after_the_router_is_included() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        assert (await request(app, "GET", "/live/late")).status == 404

        @live.topic("late")
        async def late() -> None: ...

        assert (await request(app, "GET", "/live/late")).status == 200

    play(scenario)


def declare_websocket(live: Live) -> None:
    @live.topic("t")
    async def topic(websocket: WebSocket) -> None: ...


def declare_websocket_in_a_dependency(live: Live) -> None:
    def inner(websocket: WebSocket) -> None: ...

    @live.topic("t")
    async def topic(value: None = Depends(inner)) -> None: ...


def declare_body(live: Live) -> None:
    @live.topic("t")
    async def topic(body: dict[str, int]) -> None: ...


def declare_generator(live: Live) -> None:
    @live.topic("t")
    async def topic() -> AsyncIterator[int]:
        yield 1


def declare_nonsense_payload(live: Live) -> None:
    live.topic("t", payload="xml")


def declare_bad_policy(live: Live) -> None:
    live.topic("t", policy=Log(keep=0))


@pytest.mark.parametrize(
    "declare",
    [
        declare_websocket,
        declare_websocket_in_a_dependency,
        declare_body,
        declare_generator,
        declare_nonsense_payload,
        declare_bad_policy,
    ],
)
def test_declarations_that_cannot_work_are_refused_at_once(declare: Callable[[Live], None]) -> None:
    with pytest.raises(DeclarationError):
        declare(Live())
