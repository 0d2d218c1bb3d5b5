"""Tokens on living sessions: what a client is told of each attack, and renewal."""

from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.server.mint import (
    NOW,
    OTHER_SECRET,
    SECRET,
    by_hand,
    encode,
    key_set,
    mint,
    private_key,
    public_jwk,
    public_pem,
)
from tests.server.session.fakes import Caller, SessionHouse, opens, passes
from tests.server.session.token_house import GRACE_S, LEEWAY_S, TokenHouse, assert_silent, present
from tidewire import Identity, Operation, Tokens, Welcome
from tidewire.server.identity import ANONYMOUS
from tidewire.server.tokens import TOKEN_BYTES_MAX

both = pytest.mark.parametrize("codec", ["json", "protobuf"])

RSA, FOREIGN_RSA = private_key("RS256"), private_key("RS256", 1)
HEADER = {"alg": "HS256", "typ": "JWT"}
# of houses that know who they are and who issues their tokens
NAMED = {"aud": "chat", "iss": "https://id.example"}


def moments(*values: bytes) -> list[str]:
    return [by_hand(HEADER, b'{"sub":"ann","exp":%s}' % value) for value in values]


def attacks() -> dict[str, str]:
    """Tokens for a house with a secret; each is refused for good."""
    good = mint()
    header, payload, signature = good.split(".")
    return {
        "alg none": f"{encode({'alg': 'none'})}.{payload}.",
        "alg none with a signature": f"{encode({'alg': 'None'})}.{payload}.{signature}",
        "another secret": mint(key=OTHER_SECRET),
        "other claims": f"{header}.{encode({'sub': 'root'})}.{signature}",
        "no signature": f"{header}.{payload}.",
        "another kind of key": mint(key=RSA, algorithm="RS256"),
        "not valid yet": mint({"sub": "ann", "nbf": NOW + 60}),
        "issued in the future": mint({"sub": "ann", "iat": NOW + 60}),
        "for an audience": mint({"sub": "ann", "aud": "elsewhere"}),
        "for a subscription": mint({"sub": "ann", "channel": "t"}),
        "a number for a user": by_hand(HEADER, {"sub": 7}),
        "an object for a user": by_hand(HEADER, {"sub": {"$ne": 1}}),
        "deep": by_hand(HEADER, b'{"sub":"ann","info":' + b"[" * 2000 + b"]" * 2000 + b"}"),
        "huge": mint({"sub": "ann", "info": "x" * TOKEN_BYTES_MAX}),
        "garbage": "nonsense",
        "nearly one": "a.b.c",
        "characters": "ä.ö.\U0001f600",
        "critical": by_hand({**HEADER, "crit": ["b64"], "b64": True}, {"sub": "ann"}),
        "its own key": mint(key=FOREIGN_RSA, algorithm="RS256", jwk=public_jwk(FOREIGN_RSA)),
        **{
            f"exp {n}": token
            for n, token in enumerate(
                moments(b'"1900000000"', b"true", b"false", b"null", b"-1", b"NaN", b"Infinity", b"1e308", b"1e999")
            )
        },
    }


# Connecting


@both
@opens
async def test_what_a_client_is_told_of_its_token(codec: str) -> None:
    house = await TokenHouse().start()
    caller = Caller(house, codec=codec)
    token = mint({"sub": "ann", "exp": NOW + 60, "info": {"name": "Ann"}})
    welcome = await caller.connect(token=token)
    assert (welcome["expires"], welcome["ttl"]) == (True, 60)
    assert caller.session.identity.user == "ann"
    assert caller.session.info == b'{"name":"Ann"}'
    assert "epoch" in await caller.ask(subscribe={"channel": "mine"})
    assert house.asked == [("subscribe", "ann", None)]


@opens
async def test_tokens_without_an_end() -> None:
    house = await TokenHouse().start()
    for claims in ({"sub": "ann"}, {"sub": "ann", "exp": NOW + 60, "expire_at": 0}, {}):
        caller = Caller(house)
        welcome = await caller.connect(token=mint(claims))
        assert "expires" not in welcome
        assert "ttl" not in welcome
    await house.wait(120)
    assert [caller.goodbye for caller in house.callers] == [None] * 3


@pytest.mark.parametrize("end", [9_999_999_999, 253_402_300_799, 2**53])
@both
@opens
async def test_an_end_that_is_far_away_fits_the_protocol(codec: str, end: int) -> None:
    """32 bits; a client that reads fewer than were meant would renew its token all the time."""
    house = await TokenHouse().start()
    caller = Caller(house, codec=codec)
    assert (await caller.connect(token=mint({"sub": "ann", "exp": end})))["ttl"] == 2**31 - 1
    token = mint({"sub": "ann", "channel": "mine", "exp": end})
    assert (await caller.ask(subscribe={"channel": "mine", "token": token}))["ttl"] == 2**31 - 1
    assert (await caller.ask(sub_refresh={"channel": "mine", "token": token}))["ttl"] == 2**31 - 1
    assert (await caller.ask(refresh={"token": mint({"sub": "ann", "exp": end})}))["ttl"] == 2**31 - 1


@pytest.mark.parametrize("attack", attacks())
@both
@opens
async def test_a_token_that_is_none_ends_the_connection(codec: str, attack: str) -> None:
    """3500: clients do not come back with it."""
    house = await TokenHouse().start()
    reply, goodbye = await present(house, attacks()[attack], codec)
    assert reply is None
    assert goodbye is not None
    assert goodbye[0] == 3500
    assert len(house.site.sessions) == 0


@opens
async def test_a_public_key_is_no_secret() -> None:
    pem = public_pem(RSA)
    house = await TokenHouse(Tokens(public_key=pem)).start()
    assert (await house.enter(mint(key=RSA, algorithm="RS256"))).session.identity.user == "ann"
    for secret in (pem, pem.strip(), pem.replace("\n", "")):
        for header in (HEADER, {"alg": "RS256", "typ": "JWT"}):
            reply, goodbye = await present(house, by_hand(header, {"sub": "ann"}, secret=secret))
            assert reply is None
            assert goodbye is not None
            assert goodbye[0] == 3500


@pytest.mark.parametrize(
    ("claims", "saying"),
    [
        ({**NAMED, "aud": "shop"}, "audience"),
        ({"iss": NAMED["iss"]}, "audience"),
        ({**NAMED, "iss": "https://evil.example"}, "issuer"),
        ({"aud": "chat"}, "issuer"),
    ],
)
@opens
async def test_tokens_for_others_and_of_others(claims: dict[str, Any], saying: str) -> None:
    house = await TokenHouse(Tokens(secret=SECRET, audience=NAMED["aud"], issuer=NAMED["iss"])).start()
    await house.enter(mint({"sub": "ann", **NAMED}))
    _, goodbye = await present(house, mint({"sub": "ann", **claims}))
    assert goodbye is not None
    assert goodbye[0] == 3500
    assert saying in goodbye[1]


@both
@opens
async def test_an_expired_token_is_to_be_renewed(codec: str) -> None:
    """109: clients fetch a new one and come again."""
    house = await TokenHouse().start()
    house.site.revocations.revoke_token("7", for_s=60)
    for claims in (
        {"sub": "ann", "exp": NOW - 6},
        {"sub": "ann", "exp": NOW + 60, "expire_at": NOW - 6},
        {"sub": "ann", "jti": "7", "exp": NOW + 60},
    ):
        reply, goodbye = await present(house, mint(claims), codec)
        assert reply["error"] == 109
        assert goodbye is None
    # within the leeway it is good, and to be renewed at once
    caller = Caller(house, codec=codec)
    assert (await caller.connect(token=mint({"sub": "ann", "exp": NOW - 4})))["ttl"] == 1


@both
@opens
async def test_keys_that_cannot_be_had_are_no_end(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 is temporary: clients come back, and are not told that their token is bad."""
    answers = [key_set(public_jwk(RSA, "a"))]

    async def fetch(url: str) -> bytes:
        if not answers:
            raise ConnectionError("down")
        return answers.pop()

    monkeypatch.setattr("tidewire.server.jwks.fetch_document", fetch)
    house = await TokenHouse(Tokens(jwks_url="https://id.example/keys")).start()
    caller = await house.enter(mint(key=RSA, algorithm="RS256", kid="a"), codec=codec)
    house.clock.advance(11)
    of_unknown = {"key": FOREIGN_RSA, "algorithm": "RS256", "kid": "b"}
    token = mint(**of_unknown)
    reply, goodbye = await present(house, token, codec)
    assert (reply["error"], goodbye) == (100, None)
    assert (await caller.ask(refresh={"token": token}))["error"] == 100
    of_topic = mint({"sub": "ann", "channel": "mine"}, **of_unknown)
    assert (await caller.ask(subscribe={"channel": "mine", "token": of_topic}))["error"] == 100
    assert caller.session.is_connected


@opens
async def test_a_house_that_takes_no_tokens() -> None:
    house = await TokenHouse(is_open=True).start()
    reply, goodbye = await present(house, mint())
    assert (reply["error"], goodbye) == (101, None)
    plain = SessionHouse()
    await plain.start()
    assert (await Caller(plain).connect(token=mint()))["error"] == 101
    caller = Caller(plain)
    await caller.connect()
    assert (await caller.ask(subscribe={"channel": "t", "token": mint()}))["error"] == 103
    assert (await caller.ask(refresh={"token": mint()}))["error"] == 101


@opens
async def test_the_token_goes_before_the_handshake() -> None:
    house = await TokenHouse().start()
    caller = await house.enter(mint({"sub": "bob"}), identity=Identity(user="ann"))
    assert caller.session.identity.user == "bob"
    caller = Caller(house, identity=Identity(user="ann"))
    await caller.connect()
    assert caller.session.identity.user == "ann"


@opens
async def test_topics_of_a_token_that_have_no_such_name() -> None:
    house = await TokenHouse().start()
    caller = Caller(house)
    welcome = await caller.connect(token=mint({"sub": "ann", "channels": ["mine", "each/*", "no//name", "nowhere"]}))
    assert set(welcome["subs"]) == {"mine"}


# Renewing


@both
@opens
async def test_a_connection_is_renewed_and_goes_on(codec: str) -> None:
    house = await TokenHouse().start()
    caller = await house.enter(mint({"sub": "ann", "exp": NOW + 60}), codec=codec)
    await house.wait(50)
    result = await caller.ask(refresh={"token": mint({"sub": "ann", "exp": NOW + 120, "jti": "2"})})
    assert (result["expires"], result["ttl"], result["client"]) == (True, 70, caller.session.client)
    assert caller.session.identity.token_id == "2"
    await house.wait(70 + GRACE_S - 1)
    assert caller.session.is_connected
    await house.wait(2)
    assert caller.goodbye == (3005, "connection expired")
    caller.close(3005)
    await passes()
    house.check_empty()


@both
@opens
async def test_who_is_not_renewed_has_a_grace(codec: str) -> None:
    """In which everything goes on: renewing takes a moment, and the token is what has ended."""
    house = await TokenHouse().start()
    late = await house.enter(mint({"sub": "ann", "exp": NOW + 60}), codec=codec)
    in_time = await house.enter(mint({"sub": "bob", "exp": NOW + 60}), codec=codec)
    for caller in (late, in_time):
        await caller.ask(subscribe={"channel": "t"})
    await house.wait(60 + GRACE_S - 1)
    await house.publish_json("t", 1)
    await passes()
    assert late.told("t") == in_time.told("t") == [1]
    assert (await in_time.ask(refresh={"token": mint({"sub": "bob", "exp": NOW + 600})}))["ttl"] > 500
    await house.wait(2)
    await house.publish_json("t", 2)
    await passes()
    assert late.goodbye == (3005, "connection expired")
    assert (late.told("t"), in_time.told("t")) == ([1], [1, 2])


@opens
async def test_a_token_without_an_end_ends_the_countdown() -> None:
    house = await TokenHouse().start()
    caller = await house.enter(mint({"sub": "ann", "exp": NOW + 60}))
    assert await caller.ask(refresh={"token": mint()}) == {
        "client": caller.session.client,
        "version": caller.packets[0].connect.version,  # type: ignore[union-attr]
    }
    await house.wait(200)
    assert caller.goodbye is None


@both
@opens
async def test_the_token_of_another_user_ends_the_session(codec: str) -> None:
    house = await TokenHouse().start()
    for other in ({"sub": "bob"}, {}, {"sub": "Ann"}):
        caller = await house.enter(codec=codec)
        token = mint(other)
        caller.send({"refresh": {"token": token}})
        await passes(30)
        assert caller.goodbye == (3500, "the new token is another user's")
        assert caller.session.identity.user == "ann"
        assert_silent(caller, token)


@pytest.mark.parametrize("attack", ["another secret", "alg none", "for a subscription", "garbage", "exp 5"])
@opens
async def test_a_renewal_that_is_none_ends_the_session(attack: str) -> None:
    house = await TokenHouse().start()
    caller = await house.enter()
    caller.send({"refresh": {"token": attacks()[attack]}})
    await passes(30)
    assert caller.goodbye is not None
    assert caller.goodbye[0] == 3500
    assert_silent(caller, attacks()[attack])


@opens
async def test_a_renewal_that_comes_to_nothing_changes_nothing() -> None:
    house = await TokenHouse().start()
    house.site.revocations.revoke_token("7", for_s=60)
    caller = await house.enter(mint({"sub": "ann", "exp": NOW + 60}))
    for claims in ({"sub": "ann", "exp": NOW - 6}, {"sub": "ann", "jti": "7"}, {"sub": "bob", "exp": NOW - 6}):
        assert (await caller.ask(refresh={"token": mint(claims)}))["error"] == 109
    assert (await caller.ask(refresh={}))["error"] == 107
    assert caller.session.identity.expires_at == NOW + 60
    await house.wait(60 + GRACE_S + 1)
    assert caller.goodbye == (3005, "connection expired")


@opens
async def test_who_has_come_by_cookie_may_bring_a_token_of_its_own() -> None:
    house = await TokenHouse().start()
    caller = Caller(house, identity=Identity(user="ann"))
    assert "expires" not in await caller.connect()
    assert (await caller.ask(refresh={"token": mint({"sub": "ann", "exp": NOW + 60})}))["ttl"] == 60
    nobody = Caller(house, identity=ANONYMOUS)
    await nobody.connect()
    nobody.send({"refresh": {"token": mint()}})
    await passes(30)
    assert nobody.goodbye == (3500, "the new token is another user's")


@opens
async def test_a_handshake_that_has_ended_before_the_connect_command() -> None:
    house = await TokenHouse().start()
    expired, revoked, good = [
        Identity(user=user, expires_at=end, issued_at=NOW) for user, end in (("a", NOW + 1), ("b", None), ("c", None))
    ]
    callers = [Caller(house, identity=identity) for identity in (expired, revoked, good)]
    house.clock.advance(1 + LEEWAY_S)
    assert house.revoke(user="b") == 0
    assert [(await caller.connect()).get("error") for caller in callers] == [109, 109, None]


# Hooks


@opens
async def test_hooks_and_functions_know_the_bearer() -> None:
    house = TokenHouse()
    heard: list[Any] = []
    who = Annotated[Identity, Depends(house.identities.dependency)]

    async def welcome(me: who, op: Operation) -> Welcome:
        heard.append((op.name, me.user, me.claims.get("plan")))
        return Welcome(info={"name": me.user})

    async def message(me: who, op: Operation) -> None:
        heard.append((op.name, me.user, me.claims.get("plan")))

    for name, hook in (("connect", welcome), ("message", message), ("disconnect", message)):
        house.site.hooks.declare(name, hook)
    await house.start()
    caller = await house.enter(mint({"sub": "ann", "plan": "free"}), identity=Identity(user="handshake"))
    assert caller.session.info == b'{"name":"ann"}'
    await caller.ask(refresh={"token": mint({"sub": "ann", "plan": "gold"})})
    caller.send({"send": {"data": 1}})
    await caller.ask(subscribe={"channel": "mine", "data": {"n": 1}})
    await caller.ask(subscribe={"channel": "each/*"})
    await caller.ask(publish={"channel": "mine", "data": 2})
    caller.close()
    await passes(20)
    await house.site.sessions.close()
    assert heard == [("connect", "ann", "free"), ("message", "ann", "gold"), ("disconnect", "ann", "gold")]
    assert house.asked == [("subscribe", "ann", {"n": 1}), ("subscribe", "ann", None), ("publish", "ann", 2)]
