"""Admissions that are remembered for a moment: for whom, for what, and when everybody is asked about again."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from tests.server.driver import SocketCall, play_with, request
from tests.server.fakes import opens
from tests.server.mint import NOW, SECRET, mint
from tidewire import Deny, Identity, Limits, Live, Log, Operation, Tokens
from tidewire.protocol.topics import Template
from tidewire.server.gate import Admissions, Declaration, Gate
from tidewire.server.identities import Identities
from tidewire.server.inner import Admission, Inner, Refusal
from tidewire.server.revocations import Revocations
from tidewire.server.tickets import Tickets
from tidewire.testing import ManualClock

TTL_S = 10.0
ANN = Identity(user="ann")


class Door:
    """A gate that remembers, and what its functions are asked."""

    def __init__(
        self, admissions: Admissions | None = None, *, is_off: bool = False, provider: Callable[..., Any] | None = None
    ) -> None:
        self.clock = ManualClock()
        self.admissions = admissions or Admissions(TTL_S)
        inner = Inner(deadline_s=10)
        self.gate = Gate(inner, admissions=None if is_off else self.admissions, clock=self.clock)
        self.tickets = Tickets(self.clock, lifetime_s=30, most=100)
        self.revocations = Revocations(self.clock, most=100)
        self.identities = Identities(
            inner, Tokens(secret=SECRET, leeway_s=0), provider, tickets=self.tickets, revocations=self.revocations
        )
        self.gate.presented = self.identities.presented
        self.asked: list[Operation] = []
        # while it is cleared, functions do not answer
        self.may = asyncio.Event()
        self.may.set()
        # what they answer
        self.answer: Any = None
        who = Annotated[Identity, Depends(self.identities.dependency)]

        async def anybody(op: Operation, name: str | None = None) -> Any:
            self.asked.append(op)
            await self.may.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        async def known(op: Operation, me: who, name: str | None = None) -> Any:
            return await anybody(op)

        for template, function in (("open/{name}", anybody), ("mine/{name}", known), ("more/{name}", anybody)):
            self.gate.declare(Declaration(Template(template), Log(), function, None, True, patterns=True, streams=True))

    async def ask(
        self,
        topic: str = "open/a",
        name: str = "subscribe",
        *,
        since: str | None = None,
        data: Any = None,
        identity: Identity | None = None,
        connection: HTTPConnection | None = None,
        **handshake: Any,
    ) -> Admission | Refusal:
        """Somebody who has just come wants this; ``handshake``: as for ``arriving``."""
        connection = connection or arriving(**handshake)
        operation = Operation(name, topic, since, data)
        if "*" in topic:
            declaration, values = self.gate.find_pattern(topic)
            return await self.gate.ask_pattern(declaration, values, operation, connection, identity)
        return await self.gate.ask(self.gate.find(topic), operation, connection, identity)

    async def asks(self, *given: Any, **more: Any) -> int:
        """How often the function is asked for this."""
        before = len(self.asked)
        answer = await self.ask(*given, **more)
        assert isinstance(answer, Admission), answer
        return len(self.asked) - before


def arriving(
    query: str = "", headers: dict[str, str] | None = None, client: Any = ("10.0.0.1", 4321), **scope: Any
) -> HTTPConnection:
    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return HTTPConnection(
        {
            "type": "websocket",
            "scheme": "ws",
            "path": "/live/open/a",
            "query_string": query.encode(),
            "headers": [(b"host", b"test"), *given],
            "client": client,
            "server": ("test", 80),
            **scope,
        }
    )


def refused(answer: Admission | Refusal, status: int) -> None:
    assert isinstance(answer, Refusal), answer
    assert answer.status == status


# The table


def test_an_admission_is_good_until_its_time_is_up() -> None:
    admissions = Admissions(TTL_S)
    admissions.keep("a", 100.0, 0)
    assert [admissions.has("a", now) for now in (100.0, 109.9, 110.0, 111.0)] == [True, True, False, False]
    assert not admissions.has("b", 100.0)
    admissions.keep("a", 105.0, 0)
    assert (admissions.has("a", 114.0), len(admissions)) == (True, 1)


def test_what_is_over_goes_and_of_too_many_the_oldest() -> None:
    admissions = Admissions(TTL_S, most=3)
    for now, name in enumerate("abac"):
        admissions.keep(name, float(now), 0)
    admissions.keep("d", 4.0, 0)
    # "a" was admitted again after "b" was
    assert [name for name in "abcd" if admissions.has(name, 4.0)] == ["a", "c", "d"]
    admissions.keep("e", 13.5, 0)
    assert len(admissions) == 2
    for n in range(1000):
        admissions.keep(n, 14.0, 0)
        assert len(admissions) <= 3
    assert [n for n in range(1000) if admissions.has(n, 14.0)] == [997, 998, 999]


def test_who_was_asked_about_before_everything_was_forgotten_is_not_remembered_after_it() -> None:
    admissions = Admissions(TTL_S)
    admissions.keep("a", 0.0, 0)
    before = admissions.clearings
    admissions.clear()
    admissions.keep("b", 0.0, before)
    assert (len(admissions), admissions.has("a", 0.0), admissions.has("b", 0.0)) == (0, False, False)
    admissions.keep("b", 0.0, admissions.clearings)
    assert admissions.has("b", 0.0)


# What is remembered


@opens
async def test_it_is_off_unless_it_is_asked_for() -> None:
    assert Limits().authorise_ttl_s is None
    door = Door(is_off=True)
    for _ in range(3):
        assert await door.asks(identity=ANN) == 1
    door.gate.forget_admissions()


@pytest.mark.parametrize("topic", ["open/a", "mine/a", "open/*", "mine/**"])
@pytest.mark.parametrize("name", ["subscribe", "read", "presence"])
@pytest.mark.parametrize("identity", [None, ANN])
@opens
async def test_the_same_caller_is_asked_about_once_in_a_while(topic: str, name: str, identity: Identity | None) -> None:
    door = Door()
    assert await door.asks(topic, name, identity=identity) == 1
    door.clock.advance(TTL_S - 0.1)
    assert await door.asks(topic, name, identity=identity) == 0
    # what is remembered is as old as the answer, however often it was used
    door.clock.advance(0.1)
    assert await door.asks(topic, name, identity=identity) == 1


@pytest.mark.parametrize("name", ["publish", "create", "close", "delete"])
@opens
async def test_a_write_is_asked_for_each_time(name: str) -> None:
    door = Door()
    assert await door.asks(identity=ANN) == 1
    for _ in range(3):
        assert await door.asks("open/a", name, identity=ANN) == 1
    assert len(door.admissions) == 1


@pytest.mark.parametrize(
    ("answer", "status"), [(Deny("no"), 403), (RuntimeError("a bug"), 500), (Deny("later", status=429), 429)]
)
@pytest.mark.parametrize("topic", ["open/a", "open/*"])
@opens
async def test_a_refusal_is_never_remembered(topic: str, answer: Exception, status: int) -> None:
    door = Door()
    door.answer = answer
    for n in (1, 2):
        refused(await door.ask(topic, identity=ANN), status)
        assert len(door.asked) == n
    door.answer = None
    assert await door.asks(topic, identity=ANN) == 1
    assert await door.asks(topic, identity=ANN) == 0


@pytest.mark.parametrize("value", [0, "", [], {"id": 1}, False])
@opens
async def test_a_value_is_the_state_of_a_topic_and_asked_for_each_time(value: Any) -> None:
    door = Door()
    door.answer = value
    for _ in range(2):
        answer = await door.ask(identity=ANN)
        assert isinstance(answer, Admission)
        assert answer.value == value
    assert (len(door.asked), len(door.admissions)) == (2, 0)


# Of whom, and to what


ONE: dict[str, Any] = {
    "topic": "open/a",
    "identity": Identity(user="ann", token_id="1", claims={"sub": "ann", "jti": "1"}),
    "data": {"n": 1},
    "query": "room=1",
    "headers": {"cookie": "session=1", "authorization": "Basic YQ==", "user-agent": "x"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "another topic": {"topic": "open/b"},
    "another declaration": {"topic": "more/a"},
    "the pattern": {"topic": "open/*"},
    "to read": {"name": "read"},
    "who is there": {"name": "presence"},
    "another user": {"identity": replace(ONE["identity"], user="bob")},
    "nobody": {"identity": Identity()},
    "it has to be found out": {"identity": None},
    "another token": {"identity": replace(ONE["identity"], token_id="2")},
    "other claims": {"identity": replace(ONE["identity"], claims={"sub": "ann", "jti": "1", "admin": True})},
    "another name": {"identity": replace(ONE["identity"], info={"name": "Ann"})},
    "other data": {"data": {"n": 2}},
    "no data": {"data": None},
    "bytes": {"data": b'{"n":1}'},
    "another cookie": {"headers": {**ONE["headers"], "cookie": "session=2"}},
    "another password": {"headers": {**ONE["headers"], "authorization": "Basic Yg=="}},
    "one header more": {"headers": {**ONE["headers"], "x-role": "admin"}},
    "a header's value in the next": {"headers": {**ONE["headers"], "user-agent": "", "x": ""}},
    "another query": {"query": "room=2"},
    "one parameter more": {"query": "room=1&as=admin"},
    "another address": {"client": ("10.0.0.2", 4321)},
    "no address": {"client": None},
    "another host": {"server": ("inside", 8001)},
    "another scheme": {"scheme": "wss"},
    "another path": {"path": "/other/open/a"},
    "another kind": {"type": "http"},
}


@pytest.mark.parametrize("other", OTHERS)
@opens
async def test_whoever_differs_in_anything_is_asked_about(other: str) -> None:
    door = Door()
    assert await door.asks(**ONE) == 1
    assert await door.asks(**{**ONE, **OTHERS[other]}) == 1
    assert await door.asks(**ONE) == 0


SAME: dict[str, dict[str, Any]] = {
    "another handshake": {"headers": {**ONE["headers"], "sec-websocket-key": "AAAA"}},
    "traced": {"headers": {**ONE["headers"], "traceparent": "00-1-2-01", "x-request-id": "3"}},
    "where it was": {"headers": {**ONE["headers"], "last-event-id": "e-7"}},
    "since": {"query": "room=1&since=e-7", "since": "e-7"},
    "offset": {"query": "offset=now&room=1"},
    "cursor": {"query": "room=1&cursor=12&offset=3"},
    "another port": {"client": ("10.0.0.1", 9999)},
    "claims in another order": {"identity": replace(ONE["identity"], claims={"jti": "1", "sub": "ann"})},
    "when it was asked about": {"identity": replace(ONE["identity"], issued_at=NOW + 1.5)},
}


@pytest.mark.parametrize("same", SAME)
@opens
async def test_who_comes_back_is_the_same(same: str) -> None:
    door = Door()
    assert await door.asks(**ONE) == 1
    assert await door.asks(**{**ONE, **SAME[same]}) == 0


@opens
async def test_a_parameter_that_is_called_nearly_so_tells_callers_apart() -> None:
    door = Door()
    assert await door.asks(query="since=1&since_when=1") == 1
    assert await door.asks(query="since=2&since_when=2") == 1
    assert await door.asks(query="a=1%26since=1") == 1
    assert await door.asks(query="a=1&since=1") == 1
    # no UTF-8: not the same as one another
    assert await door.asks(query="since=1&room=%ff") == 1
    assert await door.asks(query="since=1&room=%fe") == 1


@opens
async def test_patterns_are_told_apart_by_what_they_ask_for() -> None:
    door = Door()
    assert [await door.asks(topic, identity=ANN) for topic in ("open/*", "open/**", "mine/*", "open/*")] == [1, 1, 1, 0]
    assert await door.asks("open/*", identity=Identity(user="bob")) == 1


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "odd", [object(), {1: 2}, {"\ud800": 1}, circle(), 1 + 2j], ids=["object", "number", "half", "circle", "complex"]
)
@pytest.mark.parametrize("part", ["info", "claims"])
@opens
async def test_what_cannot_be_compared_is_asked_about(part: str, odd: Any) -> None:
    door = Door()
    more: dict[str, Any] = {part: {"odd": odd}}
    for _ in range(2):
        assert await door.asks(identity=replace(ANN, **more)) == 1
    assert len(door.admissions) == 0


@opens
async def test_data_that_is_as_deep_as_can_be_is_answered() -> None:
    """What can be read may be a little too deep to be written."""
    door = Door()
    data: Any = []
    for _ in range(sys.getrecursionlimit() + 100):
        data = [data]
        await door.asks(identity=ANN, data=data)


# Credentials that end


@pytest.mark.parametrize("way", ["query", "header"])
@opens
async def test_a_token_that_has_expired_is_refused_although_it_was_admitted(way: str) -> None:
    door = Door()
    token = mint({"sub": "ann", "exp": NOW + 5})
    given: dict[str, Any] = (
        {"query": f"token={token}"} if way == "query" else {"headers": {"authorization": f"Bearer {token}"}}
    )
    stays = arriving(**given)
    assert await door.asks("mine/a", connection=stays) == 1
    assert await door.asks("mine/a", **given) == 0
    door.clock.advance(5)
    for connection in (stays, arriving(**given)):
        refused(await door.ask("mine/a", connection=connection), 401)
    assert len(door.asked) == 1


@pytest.mark.parametrize("what", [{"user": "ann"}, {"token_id": "1"}])
@opens
async def test_a_token_that_was_revoked_is_refused_although_it_was_admitted(what: dict[str, str]) -> None:
    """Also where nobody has forgotten anything."""
    door = Door()
    given: dict[str, Any] = {"query": f"token={mint({'sub': 'ann', 'jti': '1', 'iat': NOW})}"}
    stays = arriving(**given)
    assert await door.asks("mine/a", connection=stays) == 1
    door.revocations.revoke(user=what.get("user"), token_id=what.get("token_id"), for_s=60)
    for connection in (stays, arriving(**given)):
        refused(await door.ask("mine/a", connection=connection), 401)


@opens
async def test_a_ticket_is_good_once_although_its_bearer_was_admitted() -> None:
    door = Door()
    given: dict[str, Any] = {"query": f"ticket={door.tickets.issue(ANN)}"}
    stays = arriving(**given)
    assert await door.asks("mine/a", connection=stays) == 1
    assert await door.asks("mine/a", connection=stays) == 0
    refused(await door.ask("mine/a", **given), 401)


@opens
async def test_a_bad_token_has_never_been_admitted() -> None:
    door = Door()
    for _ in range(2):
        refused(await door.ask("mine/a", query="token=nonsense"), 401)
    assert (door.asked, len(door.admissions)) == ([], 0)
    # who does not want to know who it is does not hear of it either
    assert await door.asks("open/a", query="token=nonsense") == 1
    assert await door.asks("open/a", query="token=nonsense") == 1


@opens
async def test_the_applications_own_word_is_asked_for_with_the_function() -> None:
    said: list[str] = []

    def provider(connection: HTTPConnection) -> str:
        said.append(connection.headers["x-user"])
        return said[-1]

    door = Door(provider=provider)
    for user, n in (("ann", 1), ("ann", 0), ("bob", 1), ("ann", 0)):
        assert await door.asks("mine/a", headers={"x-user": user}) == n
    assert said == ["ann", "bob"]
    door.gate.forget_admissions()
    assert await door.asks("mine/a", headers={"x-user": "ann"}) == 1


# Everybody is asked about again


@pytest.mark.parametrize("topic", ["open/a", "open/*"])
@opens
async def test_an_answer_that_was_on_its_way_when_all_was_forgotten_is_not_remembered(topic: str) -> None:
    door = Door()
    door.may.clear()
    slow = asyncio.create_task(door.ask(topic, identity=ANN))
    while not door.asked:
        await asyncio.sleep(0)
    door.gate.forget_admissions()
    door.may.set()
    assert isinstance(await slow, Admission)
    assert await door.asks(topic, identity=ANN) == 1
    assert await door.asks(topic, identity=ANN) == 0


Forget = Callable[[Live], Awaitable[Any]]


@pytest.mark.parametrize(
    "forget",
    [
        lambda live: live.revoke(user="somebody"),
        lambda live: live.revoke(token_id="7"),
        lambda live: live.disconnect("somebody"),
        lambda live: live.unsubscribe("somebody", "room/1"),
    ],
    ids=["revoke user", "revoke token", "disconnect", "unsubscribe"],
)
def test_who_may_do_less_than_before_is_asked_about(forget: Forget) -> None:
    """By every way in, and whoever it is: rights of one may hang on those of another."""
    clock = ManualClock()

    async def scenario(app: FastAPI, live: Live) -> None:
        asked: list[tuple[str, str]] = []

        @live.topic("room/{number}", patterns=True)
        async def room(op: Operation, number: str | None = None) -> None:
            asked.append((op.name, op.topic))

        async def come() -> int:
            """How often the function is asked by somebody who comes by every way."""
            asked.clear()
            assert (await request(app, "GET", "/live/room/1")).status == 200
            socket = await SocketCall(app, "/live/room/1").open()
            assert socket.accepted
            await socket.leave()
            session = await SocketCall(app, "/live/-/session").open()
            session.send(
                '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room/1"}}\n'
                '{"id":3,"subscribe":{"channel":"room/*"}}'
            )
            await session.until(lambda s: '"id":3' in str(s.frames))
            assert "error" not in str(session.frames)
            await session.leave()
            return len(asked)

        assert await come() == 4
        assert await come() == 0
        await forget(live)
        assert await come() == 4
        assert await come() == 0
        clock.advance(TTL_S)
        assert await come() == 4

    play_with(lambda live: None, scenario, limits=Limits(authorise_ttl_s=TTL_S), clock=clock)
    play_with(lambda live: live.use_clock(clock), scenario, limits=Limits(authorise_ttl_s=TTL_S))


@pytest.mark.parametrize(("ttl_s", "times"), [(None, 4), (TTL_S, 2)])
def test_a_token_that_has_expired_is_refused_by_every_way_in(ttl_s: float | None, times: int) -> None:
    clock = ManualClock()
    headers = {"authorization": f"Bearer {mint({'sub': 'ann', 'exp': NOW + 5})}"}

    async def scenario(app: FastAPI, live: Live) -> None:
        asked: list[str] = []

        @live.topic("t")
        async def topic(op: Operation, who: Annotated[Identity, Depends(live.identity)]) -> None:
            asked.append(op.name)

        for _ in range(2):
            assert (await request(app, "GET", "/live/t", headers=headers)).status == 200
            await (await SocketCall(app, "/live/t", headers=headers).open()).leave()
        clock.advance(5)
        assert (await request(app, "GET", "/live/t", headers=headers)).status == 401
        assert (await SocketCall(app, "/live/t", headers=headers).open()).status == 401
        assert len(asked) == times

    tokens = Tokens(secret=SECRET, leeway_s=0)
    play_with(lambda live: None, scenario, limits=Limits(authorise_ttl_s=ttl_s), clock=clock, tokens=tokens)
