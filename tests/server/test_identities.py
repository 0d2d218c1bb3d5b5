"""Who asks: by token, by ticket or by the application's word, the same in every function and route."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import Body, Cookie, Depends, FastAPI, HTTPException, WebSocket
from starlette.requests import HTTPConnection

from tests.server.desk import Desk, let_time_pass, until
from tests.server.desk import play as play_moved
from tests.server.driver import SocketCall, request
from tests.server.mint import NOW, OTHER_SECRET, SECRET, mint, private_key, public_pem
from tidewire import BadToken, DeclarationError, Deny, Identity, Live, Tokens
from tidewire.errors import KeysUnavailable, TokenExpired, TokenRevoked
from tidewire.server.gate import Declaration, Gate, Operation
from tidewire.server.identities import Identities
from tidewire.server.identity import ANONYMOUS
from tidewire.server.inner import Admission, Call, Inner, Refusal, make_endpoint
from tidewire.server.revocations import Revocations
from tidewire.server.tickets import Tickets
from tidewire.testing import ManualClock
from tidewire.testing.lifespan import Lifespan

TOKENS = Tokens(secret=SECRET, leeway_s=0)


class Porch:
    """Identities, and those who come to it."""

    def __init__(self, provider: Callable[..., Any] | None = None, *, tokens: Tokens | None = TOKENS) -> None:
        self.clock = ManualClock()
        self.inner = Inner(deadline_s=10)
        self.tickets = Tickets(self.clock, lifetime_s=30, most=100)
        self.revocations = Revocations(self.clock, most=100)
        self.identities = Identities(self.inner, tokens, provider, tickets=self.tickets, revocations=self.revocations)

    def of(self, query: str = "", *authorization: str, **headers: str) -> Identity | Refusal:
        """Who somebody new is."""
        return asyncio.run(self.identities.of(arriving(query, *authorization, **headers)))


def arriving(query: str = "", *authorization: str, kind: str = "websocket", **headers: str) -> HTTPConnection:
    connection = Desk().connection(query=query, headers=headers)
    connection.scope["type"] = kind
    connection.scope["headers"] += [(b"authorization", value.encode()) for value in authorization]
    return connection


def refused(found: Identity | Refusal, saying: str, status: int = 401) -> None:
    assert isinstance(found, Refusal), found
    assert found.status == status
    assert saying in found.sentence
    assert status != 401 or "Bearer" in found.headers["www-authenticate"]


def user_of(found: Identity | Refusal) -> str:
    assert isinstance(found, Identity), found
    return found.user


def header_user(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


# In which order


def test_the_ways_to_say_who_you_are() -> None:
    porch = Porch(header_user)
    ticket = porch.tickets.issue(Identity(user="ticket"))
    bearer, query = f"Bearer {mint({'sub': 'bearer'})}", f"token={mint({'sub': 'query'})}"
    every = f"{query}&ticket={ticket}"
    assert user_of(porch.of(every, bearer, **{"x-user": "app"})) == "bearer"
    assert user_of(porch.of(every, **{"x-user": "app"})) == "query"
    assert user_of(porch.of(f"ticket={ticket}", **{"x-user": "app"})) == "ticket"
    assert user_of(porch.of("", **{"x-user": "app"})) == "app"
    assert porch.of() is ANONYMOUS
    assert user_of(porch.of("", "bEARER  " + mint() + " ")) == "ann"


def test_a_bad_credential_is_never_nobody() -> None:
    """Nor whom the next way would tell: whoever presents it means it."""
    porch = Porch(header_user)
    ticket = porch.tickets.issue(Identity(user="ticket"))
    good = f"token={mint()}&ticket={ticket}"
    for bearer, saying in (
        (f"Bearer {mint(key=OTHER_SECRET)}", "signature"),
        (f"Bearer {mint({'exp': NOW})}", "expired"),
        ("Bearer garbage", "no token"),
        ("Bearer", "no token"),
        ("Bearer ", "no token"),
    ):
        refused(porch.of(good, bearer, **{"x-user": "app"}), saying)
    refused(porch.of(f"token={mint(key=OTHER_SECRET)}&ticket={ticket}", **{"x-user": "app"}), "signature")
    refused(porch.of("token=", **{"x-user": "app"}), "no token")
    refused(porch.of("ticket=guessed", **{"x-user": "app"}), "ticket is not good")
    refused(porch.of("ticket=", **{"x-user": "app"}), "ticket is not good")
    # nobody has used it up
    assert user_of(porch.of(f"ticket={ticket}")) == "ticket"


def test_two_credentials_of_one_kind() -> None:
    """A proxy may have looked at one, and we at the other."""
    porch = Porch(header_user)
    tickets = [porch.tickets.issue(Identity(user=name)) for name in ("ann", "bob")]
    refused(porch.of("", f"Bearer {mint()}", f"Bearer {mint({'sub': 'bob'})}"), "once")
    refused(porch.of(f"token={mint()}&token={mint({'sub': 'bob'})}"), "once")
    refused(porch.of(f"ticket={tickets[0]}&ticket={tickets[1]}"), "once")
    assert len(porch.tickets) == 2


def test_other_schemes_are_the_applications_business() -> None:
    porch = Porch(header_user)
    assert user_of(porch.of("", "Basic YTpi", **{"x-user": "app"})) == "app"
    assert user_of(porch.of(f"token={mint()}", "Basic YTpi")) == "ann"


def test_without_tokens_bearers_are_the_applications_business() -> None:
    async def own(connection: HTTPConnection) -> str:
        return connection.headers["authorization"] + connection.query_params["token"]

    porch = Porch(own, tokens=None)
    assert user_of(porch.of("token=b", "Bearer a")) == "Bearer ab"
    assert Porch(tokens=None).of("token=b&ticket=c", "Bearer a") is ANONYMOUS

    async def scenario() -> None:
        with pytest.raises(BadToken, match="takes no tokens"):
            await porch.identities.of_token(mint())
        with pytest.raises(BadToken, match="takes no tokens"):
            await porch.identities.of_subscription(mint({"channel": "t"}), ANONYMOUS, "t")

    asyncio.run(scenario())


def test_keys_that_cannot_be_had_are_no_bad_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(url: str) -> bytes:
        raise ConnectionError("down")

    monkeypatch.setattr("tidewire.server.jwks.fetch_document", down)
    porch = Porch(header_user, tokens=Tokens(jwks_url="https://id.example/keys"))
    token = mint(key=private_key("RS256"), algorithm="RS256", kid="a")
    found = porch.of("", f"Bearer {token}", **{"x-user": "app"})
    refused(found, "try again", 503)
    assert isinstance(found, Refusal)
    assert found.headers == {"retry-after": "10"}
    with pytest.raises(KeysUnavailable):
        asyncio.run(porch.identities.of_token(token))


# The application's word


def test_what_the_application_may_answer() -> None:
    answers: list[Any] = ["ann", Identity(user="bob", info={"a": 1}), None, "", ANONYMOUS]

    def next_answer() -> Any:
        return answers.pop(0)

    porch = Porch(next_answer)
    assert porch.of() == Identity(user="ann", issued_at=NOW)
    assert porch.of() == Identity(user="bob", info={"a": 1}, issued_at=NOW)
    assert [porch.of() is ANONYMOUS for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("answer", [7, True, False, {"user": "ann"}, ["ann"], b"ann", object()])
def test_an_answer_that_is_no_user(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise an object's address would be a user's id."""

    def provide() -> Any:
        return answer

    refused(Porch(provide).of(), "its log has the error", 500)
    assert f"returned {type(answer).__name__}: return the user's id as a str" in caplog.text


def test_an_answer_that_is_over() -> None:
    def provide(user: str) -> Identity:
        return Identity(user=user, expires_at=NOW, token_id="7", issued_at=NOW - 1.0)

    refused(Porch(provide).of("user=ann"), "expired")


def test_the_application_refuses() -> None:
    def provide(session: Annotated[str, Cookie()], opened: Annotated[int, Depends(lambda: 1)]) -> str:
        if session == "deny":
            raise Deny("you are banned", headers={"x-why": "1"})
        if session == "who":
            raise HTTPException(401, "log in", headers={"WWW-Authenticate": "Cookie"})
        if session == "broken":
            raise ZeroDivisionError
        return f"{session}{opened}"

    porch = Porch(provide)
    assert user_of(porch.of("", cookie="session=ann")) == "ann1"
    assert porch.of("", cookie="session=deny") == Refusal(403, "you are banned", {"x-why": "1"})
    assert porch.of("", cookie="session=who") == Refusal(401, "log in", {"www-authenticate": "Cookie"})
    refused(porch.of("", cookie="session=broken"), "the application failed in the identity function", 500)
    found = porch.of()
    assert isinstance(found, Refusal)
    assert found.status == 422


def test_an_application_that_never_says_who(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def provide() -> None:
            begun.set()
            await asyncio.Event().wait()

        asking = asyncio.create_task(Porch(provide).identities.of(arriving()))
        await until(begun.is_set)
        let_time_pass(10)
        refused(await asking, "took too long", 503)

    play_moved(scenario)


def test_dependencies_that_cannot_say_who_are_told_at_once() -> None:
    async def of_socket(websocket: WebSocket) -> None: ...

    async def yields() -> Any:
        yield "ann"

    async def of_what(thing: Desk) -> None: ...

    async def of_body(thing: Annotated[str, Body()]) -> None: ...

    async def of_bodies(thing: Annotated[None, Depends(of_body)]) -> None: ...

    for provider, saying in (
        (of_socket, "HTTPConnection"),
        (yields, "yields"),
        (of_what, "identity: "),
        (of_body, r"takes a body \(thing\)"),
        (of_bodies, r"takes a body \(thing\)"),
    ):
        with pytest.raises(DeclarationError, match=saying):
            Porch(provider)


def test_the_application_cannot_ask_us_what_we_ask_it(caplog: pytest.LogCaptureFixture) -> None:
    """It would wait for itself."""
    porch: list[Porch] = []

    async def provide(connection: HTTPConnection) -> str:
        return (await porch[0].identities.dependency(connection)).user

    porch.append(Porch(provide))
    refused(porch[0].of(), "the application failed", 500)
    assert "cannot depend on live.identity" in caplog.text


# Once for a request


class Counted:
    """Who asks, and how often that was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        return "ann"


def test_a_ticket_is_used_once_by_a_handshake_and_all_its_functions() -> None:
    async def scenario() -> None:
        porch = Porch()
        gate = Gate(porch.inner)

        async def function(who: Annotated[Identity, Depends(porch.identities.dependency)]) -> str:
            return who.user

        gate.declare(declaration("t", function))
        query = f"ticket={porch.tickets.issue(Identity(user='ann'))}"
        connection = arriving(query)
        asking = [gate.ask(gate.find("t"), Operation("read", "t"), connection) for _ in range(10)]
        assert await asyncio.gather(*asking) == [Admission("ann")] * 10
        assert user_of(await porch.identities.of(connection)) == "ann"
        assert await gate.ask(gate.find("t"), Operation("publish", "t"), connection) == Admission("ann")
        # another handshake with the same ticket
        found = await gate.ask(gate.find("t"), Operation("read", "t"), arriving(query))
        assert isinstance(found, Refusal)
        assert found.status == 401

    asyncio.run(scenario())


def declaration(pattern: str, function: Callable[..., Any]) -> Declaration:
    from tidewire import Log
    from tidewire.protocol.topics import Template

    return Declaration(Template(pattern), Log(), function, None, True)


def test_a_token_is_verified_once_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        porch, verified = Porch(), 0
        real = porch.identities.of_token

        async def count(token: str) -> Identity:
            nonlocal verified
            verified += 1
            return await real(token)

        monkeypatch.setattr(porch.identities, "of_token", count)
        connection = arriving("", f"Bearer {mint()}")
        for _ in range(5):
            assert user_of(await porch.identities.of(connection)) == "ann"
        assert verified == 1

    asyncio.run(scenario())


def test_the_application_is_asked_once_for_a_request_and_again_for_a_websocket() -> None:
    """Who has logged out meanwhile does not go on."""

    async def scenario() -> None:
        provider = Counted()

        async def provide(user: Annotated[str, Depends(provider)]) -> str:
            return user

        porch = Porch(provide)
        request, socket = arriving(kind="http"), arriving()
        await asyncio.gather(*(porch.identities.of(request) for _ in range(3)))
        assert provider.asked == 1
        for _ in range(3):
            await porch.identities.of(socket)
        assert provider.asked == 4

    asyncio.run(scenario())


def test_two_applications_of_one_request_know_their_own() -> None:
    async def scenario() -> None:
        one, two = Porch(), Porch(tokens=Tokens(secret=OTHER_SECRET))
        connection = arriving(f"token={mint()}")
        assert user_of(await one.identities.of(connection)) == "ann"
        refused(await two.identities.of(connection), "signature")

    asyncio.run(scenario())


def test_a_caller_that_gives_up_leaves_the_question_to_the_others() -> None:
    async def scenario() -> None:
        may_answer = asyncio.Event()

        async def provide() -> str:
            await may_answer.wait()
            return "ann"

        porch, connection = Porch(provide), arriving(kind="http")
        first, second = [asyncio.create_task(porch.identities.of(connection)) for _ in range(2)]
        await asyncio.sleep(0)
        first.cancel()
        may_answer.set()
        assert user_of(await second) == "ann"

    asyncio.run(scenario())


def test_who_was_known_is_not_for_ever() -> None:
    async def scenario() -> None:
        porch = Porch()
        connection = arriving(f"token={mint({'sub': 'ann', 'exp': NOW + 60, 'jti': '7', 'iat': NOW})}")
        for_ever = arriving(f"token={mint({'sub': 'ann', 'exp': NOW + 60, 'expire_at': 0, 'iat': NOW})}")
        by_ticket = arriving(f"ticket={porch.tickets.issue(Identity(user='ann', expires_at=NOW + 60, issued_at=NOW))}")
        for one in (connection, for_ever, by_ticket):
            assert user_of(await porch.identities.of(one)) == "ann"
        porch.clock.advance(60)
        for one in (connection, by_ticket):
            refused(await porch.identities.of(one), "expired")
        assert user_of(await porch.identities.of(for_ever)) == "ann"
        porch.revocations.revoke_user("ann", for_s=60)
        refused(await porch.identities.of(for_ever), "revoked")

    asyncio.run(scenario())


def test_the_leeway_is_that_of_tokens() -> None:
    async def scenario() -> None:
        porch = Porch(tokens=Tokens(secret=SECRET, leeway_s=5))
        connection = arriving(f"token={mint({'sub': 'ann', 'exp': NOW + 60})}")
        porch.clock.advance(64)
        for _ in range(2):
            assert user_of(await porch.identities.of(connection)) == "ann"
        porch.clock.advance(1)
        refused(await porch.identities.of(connection), "expired")

    asyncio.run(scenario())


def test_time_is_that_of_the_house() -> None:
    async def scenario() -> None:
        porch = Porch(header_user)
        clock = ManualClock(wall_ms=1000)
        porch.identities.use_clock(clock)
        assert (await porch.identities.of_token(mint({"exp": 2}))).expires_at == 2
        clock.advance(1)
        with pytest.raises(TokenExpired):
            await porch.identities.of_token(mint({"exp": 2}))
        assert await porch.identities.of(arriving(**{"x-user": "ann"})) == Identity(user="ann", issued_at=2.0)

    asyncio.run(scenario())


# Revoked


def test_a_revoked_token() -> None:
    async def scenario() -> None:
        porch = Porch()
        one, two = (mint({"sub": "ann", "jti": str(number), "iat": NOW}) for number in (1, 2))
        porch.revocations.revoke_token("1", for_s=60)
        with pytest.raises(TokenRevoked, match="revoked"):
            await porch.identities.of_token(one)
        assert (await porch.identities.of_token(two)).user == "ann"
        refused(await porch.identities.of(arriving(f"token={one}")), "revoked")
        porch.revocations.revoke_user("ann", for_s=60)
        for token in (two, mint({"sub": "ann"})):
            with pytest.raises(TokenRevoked):
                await porch.identities.of_token(token)
        porch.clock.advance(1)
        assert (await porch.identities.of_token(mint({"sub": "ann", "iat": NOW + 1}))).user == "ann"
        assert (await porch.identities.of_token(mint({"sub": "bob", "iat": NOW}))).user == "bob"

    asyncio.run(scenario())


def test_a_revoked_token_is_one_to_be_renewed() -> None:
    """Clients that can get a new token do so, and the application decides whether they get one."""
    assert issubclass(TokenRevoked, TokenExpired)


def test_a_revoked_subscription_token() -> None:
    async def scenario() -> None:
        porch = Porch()
        ann = Identity(user="ann")

        def token(jti: str, iat: int = NOW) -> str:
            return mint({"sub": "ann", "channel": "t", "jti": jti, "iat": iat, "exp": NOW + 60})

        porch.revocations.revoke_token("1", for_s=60)
        with pytest.raises(TokenRevoked):
            await porch.identities.of_subscription(token("1"), ann, "t")
        assert (await porch.identities.of_subscription(token("2"), ann, "t")).expires_at == NOW + 60
        with pytest.raises(BadToken, match="another topic"):
            await porch.identities.of_subscription(token("2"), ann, "u")
        with pytest.raises(BadToken, match="another user"):
            await porch.identities.of_subscription(token("2"), ANONYMOUS, "t")
        porch.revocations.revoke_user("ann", for_s=60)
        with pytest.raises(TokenRevoked):
            await porch.identities.of_subscription(token("2"), ann, "t")
        porch.clock.advance(1)
        assert (await porch.identities.of_subscription(token("2", NOW + 1), ann, "t")).token_id == "2"

    asyncio.run(scenario())


def test_a_ticket_from_before_the_revocation() -> None:
    async def scenario() -> None:
        porch = Porch(header_user)

        async def ticket() -> HTTPConnection:
            identity = await porch.identities.of(arriving(**{"x-user": "ann"}))
            assert isinstance(identity, Identity)
            return arriving(f"ticket={porch.tickets.issue(identity)}")

        before = await ticket()
        porch.revocations.revoke_user("ann", for_s=60)
        porch.clock.advance(1)
        after = await ticket()
        refused(await porch.identities.of(before), "revoked")
        assert user_of(await porch.identities.of(after)) == "ann"
        porch.revocations.revoke_token("7", for_s=60)
        by_token = porch.tickets.issue(Identity(user="bob", token_id="7", issued_at=NOW))
        refused(await porch.identities.of(arriving(f"ticket={by_token}")), "revoked")

    asyncio.run(scenario())


def test_who_logs_in_again_is_welcome_where_the_application_says_who() -> None:
    async def scenario() -> None:
        porch = Porch(header_user)
        porch.revocations.revoke_user("ann", for_s=3600)
        porch.clock.advance(0.001)
        identity = await porch.identities.of(arriving(**{"x-user": "ann"}))
        assert user_of(identity) == "ann"
        porch.clock.advance(1)
        # what is revoked of somebody else does not end this session
        porch.revocations.revoke_user("bob", for_s=3600)
        assert isinstance(identity, Identity)
        assert not porch.revocations.is_revoked(identity)

    asyncio.run(scenario())


# Depends(live.identity)


App = Callable[[FastAPI, Live], Awaitable[None]]


def play(scenario: App, **options: Any) -> None:
    """A FastAPI application with one of everything that can ask who it is."""

    async def run() -> None:
        live = Live(**options)
        who = Annotated[Identity, Depends(live.identity)]
        app = FastAPI()

        @app.get("/me")
        async def me(identity: who, again: who) -> list[str]:
            assert identity is again
            return [identity.user]

        @app.websocket("/ws")
        async def ws(websocket: WebSocket, identity: who) -> None:
            await websocket.accept()
            await websocket.send_json(identity.user)
            await websocket.close()

        @live.topic("room/{name}", publish=True)
        async def room(name: str, identity: who) -> None:
            if identity.user != name:
                raise Deny(f"this is the room of {name}, not of {identity.user}")

        app.include_router(live.router, prefix="/live")
        async with Lifespan(app):
            await scenario(app, live)

    asyncio.run(run())


async def statuses(app: FastAPI, query: str, headers: dict[str, str] | None = None) -> list[int]:
    """Of a route, a topic that is read, one that is published to, and two WebSockets."""
    headers = headers or {}
    found = [(await request(app, "GET", f"/me?{query}", headers=headers)).status]
    found.append((await request(app, "GET", f"/live/room/ann?{query}", headers=headers)).status)
    posting = {**headers, "content-type": "application/json"}
    found.append((await request(app, "POST", f"/live/room/ann?{query}", headers=posting, body=b"1")).status)
    for path in ("/ws", "/live/room/ann"):
        socket = await SocketCall(app, f"{path}?{query}", headers=headers).open()
        found.append(101 if socket.accepted else socket.status)
        if socket.accepted:
            await socket.leave()
    return found


def test_routes_topics_and_websockets_know_the_same_caller() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        bearer = {"authorization": f"Bearer {mint({'sub': 'ann'})}"}
        assert await statuses(app, "", bearer) == [200, 200, 204, 101, 101]
        assert await statuses(app, f"token={mint({'sub': 'ann'})}") == [200, 200, 204, 101, 101]
        assert await statuses(app, "", {"x-user": "ann"}) == [200, 200, 204, 101, 101]
        assert await statuses(app, "", {"x-user": "bob"}) == [200, 403, 403, 101, 403]
        assert await statuses(app, "") == [200, 403, 403, 101, 403]
        assert await statuses(app, f"token={mint(key=OTHER_SECRET)}", {"x-user": "ann"}) == [401] * 5
        assert await statuses(app, "ticket=guessed", {"x-user": "ann"}) == [401] * 5

    play(scenario, tokens=Tokens(secret=SECRET), identity=header_user)


def test_a_refusal_says_why_and_how() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for path in ("/me", "/live/room/ann"):
            answer = await request(app, "GET", f"{path}?token={mint({'exp': 1})}")
            assert answer.status == 401
            assert answer.json == {"detail": "the token has expired: get a new one"}
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        socket = await SocketCall(app, f"/live/room/ann?token={mint({'exp': 1})}").open()
        assert json.loads(socket.denial) == {"detail": "the token has expired: get a new one"}

    play(scenario, tokens=Tokens(secret=SECRET))


def test_a_websocket_comes_with_a_ticket_and_publishes_many_times() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        asked = await request(app, "POST", "/live/-/ticket", headers={"x-user": "ann"})
        query = f"ticket={asked.json['ticket']}"
        socket = await SocketCall(app, f"/live/room/ann?{query}").open()
        assert socket.accepted
        for text in ("1", "2", "3"):
            socket.send(text)
        await socket.until(lambda one: len(one.frames) == 3)
        assert socket.frames == ["1", "2", "3"]
        await socket.leave()
        assert await statuses(app, query) == [401] * 5

    play(scenario, identity=header_user)


def test_a_call_says_who_asks() -> None:
    """A session's caller is who its token says, whoever the handshake was from."""

    async def scenario(app: FastAPI, live: Live) -> None:
        @live.call("me")
        async def me(identity: Annotated[Identity, Depends(live.identity)], data: Annotated[Any, Body()] = None) -> str:
            return identity.user

        connection = arriving("", f"Bearer {mint({'sub': 'handshake'})}")
        assert await live._site.calls.invoke("me", b"", connection, Identity(user="session")) == b'"session"'
        assert await live._site.calls.invoke("me", b"", connection, ANONYMOUS) == b'""'
        assert await live._site.calls.invoke("me", b"", connection, None) == b'"handshake"'

    play(scenario, tokens=Tokens(secret=SECRET))


def test_a_request_made_in_a_function_is_not_its_callers() -> None:
    """What runs in a function inherits its context, not its caller's rights."""

    async def scenario(app: FastAPI, live: Live) -> None:
        @live.topic("nested")
        async def nested(identity: Annotated[Identity, Depends(live.identity)]) -> None:
            inside = await request(app, "GET", "/me", headers={"x-user": "service"})
            raise Deny(f"{identity.user} and {inside.json[0]}")

        connection = arriving()
        declared = live._gate.find("nested")
        operation = Operation("read", "nested")
        found = await live._gate.ask(declared, operation, connection, Identity(user="ann"))
        assert found == Refusal(403, "ann and service")

    play(scenario, identity=header_user)


def test_a_parameter_of_a_pattern_does_not_hide_the_token() -> None:
    """What stands for a wildcard is taken out of the query of the function, and the caller is known all the same."""

    async def scenario() -> None:
        porch = Porch()

        async def show(who: Annotated[Identity, Depends(porch.identities.dependency)], token: str | None = None) -> Any:
            return who.user, token

        porch.inner.add("/show", make_endpoint(show, "function"))
        found = await porch.inner.call(
            "/show",
            Call(Operation("subscribe", "t/*")),
            arriving(f"token={mint()}"),
            what="the function",
            hidden=frozenset({"token"}),
        )
        assert found == Admission(("ann", None))

    asyncio.run(scenario())


def test_public_keys_serve_as_well() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        token = mint(key=private_key("EdDSA"), algorithm="EdDSA")
        assert await statuses(app, f"token={token}") == [200, 200, 204, 101, 101]
        assert await statuses(app, f"token={mint()}") == [401] * 5

    play(scenario, tokens=Tokens(public_key=public_pem(private_key("EdDSA"))))


def test_nothing_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for token in (mint(key=OTHER_SECRET), mint({"exp": 1}), mint({"sub": 7}), mint()):
            await statuses(app, f"token={token}")
            await statuses(app, f"ticket={token}")
            assert not any(part in caplog.text for part in token.split("."))

    with caplog.at_level(logging.DEBUG):
        play(scenario, tokens=Tokens(secret=SECRET))
