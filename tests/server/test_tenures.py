"""Readers of the plain dialect go when who they are has ended or was made void; those who come back are asked."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import connect

from tests.server.driver import HttpCall, SocketCall, play_with, request
from tests.server.mint import NOW, SECRET, mint
from tests.server.test_hand_over import eventually, serving
from tidewire import Deny, Identity, Live, Log, Operation, Tokens
from tidewire.protocol.codes import FORCED as TO_GO
from tidewire.server.connection import Verdict
from tidewire.server.tenures import Tenures
from tidewire.testing import ManualClock

LEEWAY_S = 5.0
TOKENS = Tokens(secret=SECRET, leeway_s=LEEWAY_S)
PATHS = ["/live/t", "/live/-/stream?topic=t&topic=other"]
EVENTS = {"accept": "text/event-stream"}

Scenario = Callable[[FastAPI, Live, ManualClock], Awaitable[None]]


def bearer(**claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {mint({'sub': 'ann', 'iat': NOW, **claims})}"}


def play(scenario: Scenario, **options: Any) -> None:
    """With topics whose functions ask who it is, and ``open``, whose does not."""
    clock = ManualClock()

    def declare(live: Live) -> None:
        for name in ("t", "other"):

            @live.topic(name, policy=Log(keep=10))
            async def topic(who: Annotated[Identity, Depends(live.identity)]) -> None:
                if not who.user:
                    raise Deny("not without a name")

        @live.topic("open")
        async def for_all() -> None: ...

    play_with(declare, lambda app, live: scenario(app, live, clock), **{"clock": clock, "tokens": TOKENS, **options})


class Line:
    """A connection that notes its end."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None

    def end(self, verdict: Verdict) -> None:
        self.verdict = self.verdict or verdict

    def drop(self) -> None: ...


def test_the_table() -> None:
    clock = ManualClock()
    tenures = Tenures(clock)
    lines: list[Any] = [Line() for _ in range(4)]
    ends = (NOW + 10, NOW + 20, None, NOW + 30)
    for line, end in zip(lines, ends, strict=True):
        tenures.begin(line, Identity(user="ann", expires_at=end), leeway_s=LEEWAY_S)
    tenures.end(lines[3])
    tenures.end(lines[3])
    clock.advance(10 + LEEWAY_S - 0.1)
    assert [line.verdict for line in lines] == [None] * 4
    clock.advance(0.1)
    assert [line.verdict is None for line in lines] == [False, True, True, True]
    assert lines[0].verdict.code == 3005
    assert tenures.end_revoked(lambda identity: identity.expires_at is None) == 1
    assert tenures.disconnect("bob", TO_GO) == 0
    assert tenures.disconnect("ann", TO_GO) == 1, "who is on the way out is not counted again"
    assert [line.verdict and line.verdict.code for line in lines] == [3005, TO_GO.code, 3005, None]
    for line in lines:
        tenures.end(line)
    assert len(tenures) == 0
    clock.advance(100)
    assert lines[3].verdict is None


@pytest.mark.parametrize("path", PATHS)
def test_a_socket_ends_with_the_token_it_came_with(path: str) -> None:
    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        socket = await SocketCall(app, path, headers=bearer(exp=NOW + 60)).open()
        lasting = await SocketCall(app, path, headers=bearer()).open()
        await live.publish("t", 1)
        await socket.until(lambda s: s.frames)
        clock.advance(60 + LEEWAY_S - 0.1)
        assert not socket.over
        clock.advance(0.2)
        await socket.closed()
        assert (socket.close_code, socket.close_reason.partition(":")[0]) == (3005, "who you are has expired")
        assert (await SocketCall(app, path, headers=bearer(exp=NOW + 60)).open()).status == 401
        assert not lasting.over
        await lasting.leave()
        assert len(live._site.tenures) == 0

    play(scenario)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("claims", [{"exp": NOW + 60}, {"jti": "7"}])
def test_an_event_stream_ends_with_the_token_it_came_with(path: str, claims: dict[str, Any]) -> None:
    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        events = HttpCall(app, "GET", path, headers={**EVENTS, **bearer(**claims)}).begin()
        await events.until(lambda e: live.stats()["subscriptions"])
        if "exp" in claims:
            clock.advance(60 + LEEWAY_S + 0.1)
        else:
            assert await live.revoke(token_id="7") == 1
        await events.finished()
        assert events.complete
        again = await request(app, "GET", path, headers={**EVENTS, **bearer(**claims)})
        assert again.status == 401
        assert len(live._site.tenures) == live.stats()["connections"] == 0

    play(scenario)


@pytest.mark.parametrize("what", ["revoke", "expire"])
def test_who_waits_for_news_does_not_hear_of_them(what: str) -> None:
    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        await live.publish("t", 1)
        headers = bearer(exp=NOW + 5)
        poll = HttpCall(app, "GET", "/live/t?live=long-poll&offset=now", headers=headers).begin()
        await eventually(lambda: live.stats()["subscriptions"], "the wait")
        if what == "revoke":
            assert await live.revoke(user="ann") == 1
        else:
            clock.advance(5 + LEEWAY_S)
        await live.publish("t", "secret")
        await poll.finished()
        assert poll.status == 401
        assert "secret" not in poll.body_so_far.decode()

    play(scenario)


@pytest.mark.parametrize("way", ["revoke", "disconnect"])
def test_readers_of_one_user_are_ended(way: str) -> None:
    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        ann, bob = [await SocketCall(app, "/live/t", headers=bearer(sub=user)).open() for user in ("ann", "bob")]
        stranger = await SocketCall(app, "/live/open", headers=bearer()).open()
        await asyncio.sleep(0)
        assert await (live.revoke(user="ann") if way == "revoke" else live.disconnect("ann")) == 1
        await ann.closed()
        assert ann.close_code == {"revoke": 3005, "disconnect": 3503}[way]
        await live.publish("t", 1)
        await bob.until(lambda s: s.frames)
        # nobody has asked who this one is
        assert not stranger.over
        for socket in (bob, stranger):
            await socket.leave()

    play(scenario)


def test_what_is_revoked_while_the_function_runs_is_revoked() -> None:
    go = asyncio.Event()

    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        @live.topic("slow")
        async def slow(who: Annotated[Identity, Depends(live.identity)], op: Operation) -> None:
            await go.wait()

        opening = asyncio.create_task(SocketCall(app, "/live/slow", headers=bearer()).open())
        events = HttpCall(app, "GET", "/live/slow", headers={**EVENTS, **bearer()}).begin()
        await asyncio.sleep(0.05)
        assert await live.revoke(user="ann") == 0
        go.set()
        socket = await opening
        await socket.closed()
        assert socket.close_code == 3005
        await events.finished()
        assert not events.events

    play(scenario)


def test_the_word_of_the_applications_own_function_counts_too() -> None:
    async def who(x_user: str = "ann") -> str:
        return x_user

    async def scenario(app: FastAPI, live: Live, clock: ManualClock) -> None:
        socket = await SocketCall(app, "/live/t?x_user=bob").open()
        assert await live.revoke(user="ann") == 0
        clock.advance(1)
        assert await live.revoke(user="bob") == 1
        await socket.closed()
        assert socket.close_code == 3005

    play(scenario, tokens=None, identity=who)


@pytest.mark.parametrize("path", PATHS)
def test_on_our_own_wire(path: str) -> None:
    """Handed over: the route and its scope have ended long ago."""

    async def scenario() -> None:

        live = Live(tokens=TOKENS, isolated=True, clock=ManualClock())
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        for name in ("t", "other"):

            @live.topic(name)
            async def topic(who: Annotated[Identity, Depends(live.identity)]) -> None: ...

        async with asyncio.timeout(30), serving("ours", app) as (port, _):
            url = f"ws://127.0.0.1:{port}{path}"
            async with (
                connect(url, additional_headers=bearer(jti="1")) as gone,
                connect(url, additional_headers=bearer(jti="2")) as there,
            ):
                await eventually(lambda: len(live._site.tenures) == 2, "both are in")
                assert await live.revoke(token_id="1") == 1
                await gone.wait_closed()
                assert gone.close_code == 3005
                assert there.close_code is None
            await eventually(lambda: len(live._site.tenures) == 0, "nobody is left")

    asyncio.run(scenario())
