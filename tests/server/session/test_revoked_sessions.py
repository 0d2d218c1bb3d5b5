"""Revocation: whose sessions end, whose go on, and who is not let in although it was asked about before."""

from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.server.mint import NOW, mint
from tests.server.session.fakes import Caller, opens, passes, until
from tests.server.session.token_house import TokenHouse, present
from tidewire import Identity, Welcome

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


@pytest.mark.parametrize("what", [{"user": "ann"}, {"token_id": "1"}, {"user": "ann", "token_id": "1"}])
@both
@opens
async def test_sessions_of_a_revoked_token_end_and_others_go_on(codec: str, what: dict[str, Any]) -> None:
    house = await TokenHouse().start()
    revoked = await house.enter(mint({"sub": "ann", "jti": "1", "iat": NOW}), codec=codec)
    another = await house.enter(mint({"sub": "ann", "jti": "2", "iat": NOW}), codec=codec)
    bob = await house.enter(mint({"sub": "bob", "jti": "3", "iat": NOW}), codec=codec)
    nobody = Caller(house, codec=codec)
    await nobody.connect()
    for caller in house.callers:
        await caller.ask(subscribe={"channel": "t"})
    is_of_user = "user" in what
    assert house.revoke(**what) == (2 if is_of_user else 1)
    await house.publish_json("t", 1)
    await passes()
    assert revoked.goodbye == (3005, "the token was revoked")
    assert another.goodbye == ((3005, "the token was revoked") if is_of_user else None)
    assert revoked.told("t") == []
    assert another.told("t") == ([] if is_of_user else [1])
    assert (bob.told("t"), bob.goodbye) == (nobody.told("t"), nobody.goodbye) == ([1], None)


@opens
async def test_who_is_revoked_comes_back_with_a_newer_token_only() -> None:
    house = await TokenHouse().start()
    old = mint({"sub": "ann", "iat": NOW})
    await house.enter(old)
    assert house.revoke(user="ann") == 1
    house.clock.advance(1)
    for token in (old, mint()):
        # nobody knows when the second was issued
        assert (await present(house, token))[0]["error"] == 109
    caller = await house.enter(mint({"sub": "ann", "iat": NOW + 1}))
    assert house.revoke(token_id="7") == 0
    assert house.revoke(user="ann") == 1
    await passes()
    assert caller.goodbye == (3005, "the token was revoked")


@opens
async def test_a_session_stands_on_its_newest_token() -> None:
    house = await TokenHouse().start()
    caller = await house.enter(mint({"sub": "ann", "jti": "1"}))
    await caller.ask(refresh={"token": mint({"sub": "ann", "jti": "2"})})
    assert house.revoke(token_id="1") == 0
    assert house.revoke(token_id="2") == 1
    await passes()
    assert caller.goodbye == (3005, "the token was revoked")


@opens
async def test_who_has_come_by_the_handshake_is_revoked_too() -> None:
    house = await TokenHouse().start()
    caller = Caller(house, identity=Identity(user="ann", issued_at=NOW))
    await caller.connect()
    assert house.revoke(user="ann") == 1
    await passes()
    assert caller.goodbye == (3005, "the token was revoked")


@pytest.mark.parametrize("what", [{"user": "ann"}, {"token_id": "1"}])
@both
@opens
async def test_who_is_revoked_while_it_connects_is_not_let_in(codec: str, what: dict[str, Any]) -> None:
    house = TokenHouse()
    gone: list[str] = []

    async def hook(who: Annotated[Identity, Depends(house.identities.dependency)]) -> Welcome:
        await house.may.wait()
        return Welcome(data="a secret", topics=["t"])

    async def left(who: Annotated[Identity, Depends(house.identities.dependency)]) -> None:
        gone.append(who.user)

    house.site.hooks.declare("connect", hook)
    house.site.hooks.declare("disconnect", left)
    await house.start()
    house.may.clear()
    ann, bob = Caller(house, codec=codec), Caller(house, codec=codec)
    for caller, user, token_id in ((ann, "ann", "1"), (bob, "bob", "2")):
        caller.send({"connect": {"token": mint({"sub": user, "jti": token_id, "iat": NOW})}})
    await passes(20)
    assert house.revoke(**what) == 0
    house.may.set()
    await until(lambda: ann.goodbye is not None and bob.reply_of(1) is not None, "what becomes of both")
    assert (ann.reply_of(1), ann.goodbye) == (None, (3005, "the token was revoked"))
    assert bob.reply_of(1)["data"] == "a secret"
    await house.publish_json("t", 1)
    await passes()
    assert ann.told("t") == []
    assert len(house.site.sessions) == 1
    # it has never been there
    assert gone == []


@opens
async def test_who_is_revoked_while_a_function_runs_is_not_subscribed() -> None:
    house = await TokenHouse().start()
    caller = await house.enter(mint({"sub": "ann", "jti": "1"}))
    house.may.clear()
    caller.send({"subscribe": {"channel": "mine"}}, {"publish": {"channel": "t", "data": 1}})
    await until(lambda: house.asked, "the question")
    assert house.revoke(token_id="1") == 1
    house.may.set()
    await caller.session.finished()
    assert caller.goodbye == (3005, "the token was revoked")
    assert caller.reply_of(2) is None
    assert house.hub.subscriptions == 0
    assert len(house.site.sessions) == 0


@both
@opens
async def test_a_subscription_whose_own_token_is_revoked_ends_and_the_session_goes_on(codec: str) -> None:
    """2501: clients get a new token for it and subscribe again."""
    house = await TokenHouse().start()
    caller, another = [await house.enter(mint({"sub": "ann", "jti": "1", "iat": NOW}), codec=codec) for _ in range(2)]
    for each, token_id in ((caller, "s1"), (another, "s2")):
        token = mint({"sub": "ann", "channel": "mine", "jti": token_id, "iat": NOW})
        await each.ask(subscribe={"channel": "mine", "token": token})
        await each.ask(subscribe={"channel": "t"})
    assert house.revoke(token_id="s1") == 0
    await house.publish_json("mine", 1)
    await house.publish_json("t", 2)
    await passes()
    assert (caller.told("mine"), caller.told("t"), caller.goodbye) == ([("unsubscribe", 2501)], [2], None)
    assert (another.told("mine"), another.told("t")) == ([1], [2])
    # it stands on its newest token
    token = mint({"sub": "ann", "channel": "mine", "jti": "s3", "iat": NOW})
    await another.ask(sub_refresh={"channel": "mine", "token": token})
    house.revoke(token_id="s2")
    assert "mine" in another.session.subscriptions
    house.revoke(token_id="s3")
    assert "mine" not in another.session.subscriptions


@opens
async def test_who_is_revoked_takes_nobodys_place() -> None:
    house = TokenHouse()

    async def hook() -> None:
        await house.may.wait()

    house.site.hooks.declare("connect", hook)
    await house.start()
    stays = Caller(house, query="session=abcdefgh")
    await stays.connect(token=mint({"sub": "ann", "jti": "1"}))
    house.may.clear()
    copy = Caller(house, query="session=abcdefgh")
    copy.send({"connect": {"token": mint({"sub": "ann", "jti": "2"})}})
    await passes(20)
    house.revoke(token_id="2")
    house.may.set()
    await until(lambda: copy.goodbye is not None, "the end")
    assert copy.goodbye == (3005, "the token was revoked")
    assert stays.goodbye is None
    assert stays.session.is_connected
