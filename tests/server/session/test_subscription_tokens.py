"""Subscription tokens: for whom and what they are good, until when, and what a new one is good for."""

from typing import Any

import pytest

from tests.server.mint import NOW, OTHER_SECRET, SECRET, encode, mint, private_key
from tests.server.session.fakes import Caller, opens, passes, until
from tests.server.session.token_house import GRACE_S, TokenHouse, assert_silent
from tidewire import Tokens

both = pytest.mark.parametrize("codec", ["json", "protobuf"])
commands = pytest.mark.parametrize("command", ["subscribe", "sub_refresh"])
topics = pytest.mark.parametrize("topic", ["mine", "each/*"])

UNSUBSCRIBED_EXPIRED = ("unsubscribe", 2501)


def grant(topic: Any = "mine", **claims: Any) -> str:
    """A token of ann's for a subscription."""
    return mint({"sub": "ann", "channel": topic, **claims})


async def reader(house: TokenHouse, topic: str = "mine", codec: str = "json", **claims: Any) -> Caller:
    """A client that is subscribed by token."""
    caller = await house.enter(codec=codec)
    result = await caller.ask(subscribe={"channel": topic, "token": grant(topic, **claims)})
    assert "error" not in result, result
    return caller


async def present(house: TokenHouse, command: str, token: str, topic: str = "mine", codec: str = "json") -> Any:
    """The answer to a token, of one who is not yet subscribed or wants to stay so; nothing is said of the token."""
    if command == "subscribe":
        caller = await house.enter(codec=codec)
    else:
        caller = await reader(house, topic, codec, exp=NOW + 60)
    answer = await caller.ask(**{command: {"channel": topic, "token": token}})
    assert_silent(caller, token)
    assert caller.session.is_connected
    assert (topic in caller.session.subscriptions) is (command == "sub_refresh" or "error" not in answer)
    return answer


def attacks() -> dict[str, str]:
    """Tokens for the topic ``mine``, of a client that is ann; each is refused."""
    header, _, signature = grant().split(".")
    return {
        "another user": mint({"sub": "bob", "channel": "mine"}),
        "nobody": mint({"channel": "mine"}),
        "another case": mint({"sub": "Ann", "channel": "mine"}),
        "another topic": grant("mine2"),
        "a pattern that covers it": grant("*"),
        "an empty topic": grant(""),
        "no topic": grant(None),
        "a list of topics": grant(["mine"]),
        "for a connection": mint(),
        "for a connection with topics": mint({"sub": "ann", "channels": ["mine"]}),
        "another secret": mint({"sub": "ann", "channel": "mine"}, key=OTHER_SECRET),
        "another kind of key": mint({"sub": "ann", "channel": "mine"}, key=private_key("RS256"), algorithm="RS256"),
        "alg none": f"{encode({'alg': 'none'})}.{encode({'sub': 'ann', 'channel': 'mine'})}.",
        "other claims": f"{header}.{encode({'sub': 'ann', 'channel': 'mine', 'exp': NOW + 999})}.{signature}",
        "not valid yet": grant(nbf=NOW + 60),
        "for an audience": grant(aud="elsewhere"),
        "garbage": "nonsense",
    }


# Subscribing


@both
@opens
async def test_what_a_client_is_told_of_its_subscription(codec: str) -> None:
    house = await TokenHouse().start()
    house.declare("room", presence=True)
    caller = await house.enter(codec=codec)
    token = grant("room", exp=NOW + 60, info={"seat": 4})
    result = await caller.ask(subscribe={"channel": "room", "token": token})
    assert (result["expires"], result["ttl"]) == (True, 60)
    assert caller.session.subscriptions["room"].info == b'{"seat":4}'
    members = (await caller.ask(presence={"channel": "room"}))["presence"]
    assert [one["chan_info"] for one in members.values()] == [{"seat": 4}]


@opens
async def test_a_token_without_an_end_is_for_good() -> None:
    house = await TokenHouse().start()
    ways: list[dict[str, int]] = [{}, {"exp": NOW + 60, "expire_at": 0}]
    for claims in ways:
        caller = await house.enter()
        result = await caller.ask(subscribe={"channel": "mine", "token": grant(**claims)})
        assert not {"expires", "ttl"} & result.keys()
    await house.wait(120)
    assert [caller.told("mine") for caller in house.callers] == [[], []]


@pytest.mark.parametrize("attack", attacks())
@commands
@both
@opens
async def test_a_token_that_is_not_for_this_is_refused(codec: str, command: str, attack: str) -> None:
    """103, and no more: the session goes on, and the subscription that it has."""
    house = await TokenHouse().start()
    answer = await present(house, command, attacks()[attack], codec=codec)
    assert answer["error"] == 103


@commands
@both
@opens
async def test_an_expired_token_is_to_be_renewed(codec: str, command: str) -> None:
    """109: clients fetch a new one and ask again."""
    house = await TokenHouse().start()
    house.site.revocations.revoke_token("7", for_s=60)
    for claims in ({"exp": NOW - 6}, {"exp": NOW + 60, "expire_at": NOW - 6}, {"jti": "7"}):
        assert (await present(house, command, grant(**claims), codec=codec))["error"] == 109
    # within the leeway it is good, and to be renewed at once
    assert (await present(house, command, grant(exp=NOW - 4), codec=codec))["ttl"] == 1


@opens
async def test_a_token_for_a_subscription_is_none_for_a_connection() -> None:
    house = await TokenHouse().start()
    for command in ("connect", "refresh"):
        caller = Caller(house) if command == "connect" else await house.enter()
        caller.send({command: {"token": grant()}})
        await passes(30)
        assert caller.goodbye is not None
        assert caller.goodbye[0] == 3500
    assert len(house.site.sessions) == 0


@topics
@commands
@opens
async def test_a_token_grants_nothing_that_the_function_denies(command: str, topic: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house, topic) if command == "sub_refresh" else await house.enter()
    house.is_denied = True
    answer = await caller.ask(**{command: {"channel": topic, "token": grant(topic)}})
    assert (answer["error"], answer["message"]) == (103, "not any more")


@opens
async def test_subscription_tokens_may_have_keys_of_their_own() -> None:
    tokens = Tokens(secret=SECRET, subscriptions=Tokens(secret=OTHER_SECRET))
    house = await TokenHouse(tokens).start()
    caller = await house.enter()
    of_connections, own = grant(), mint({"sub": "ann", "channel": "mine"}, key=OTHER_SECRET)
    assert (await caller.ask(subscribe={"channel": "mine", "token": of_connections}))["error"] == 103
    assert "error" not in await caller.ask(subscribe={"channel": "mine", "token": own})
    assert (await caller.ask(sub_refresh={"channel": "mine", "token": of_connections}))["error"] == 103
    assert await caller.ask(sub_refresh={"channel": "mine", "token": own}) == {}
    caller.send({"refresh": {"token": mint(key=OTHER_SECRET)}})
    await passes(30)
    assert caller.goodbye is not None
    assert caller.goodbye[0] == 3500


@commands
@opens
async def test_who_is_nobody_needs_a_token_for_nobody(command: str) -> None:
    house = await TokenHouse().start()
    caller = Caller(house)
    await caller.connect()
    if command == "sub_refresh":
        await caller.ask(subscribe={"channel": "mine"})
    assert (await caller.ask(**{command: {"channel": "mine", "token": grant()}}))["error"] == 103
    for_nobody = mint({"channel": "mine", "exp": NOW + 60})
    assert (await caller.ask(**{command: {"channel": "mine", "token": for_nobody}}))["ttl"] == 60


@commands
@opens
async def test_a_token_that_is_revoked_while_the_function_runs_is_revoked(command: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house) if command == "sub_refresh" else await house.enter()
    house.may.clear()
    (command_id,) = caller.send({command: {"channel": "mine", "token": grant(jti="7")}})
    await until(lambda: len(house.asked) == (2 if command == "sub_refresh" else 1), "the question")
    assert house.revoke(token_id="7") == 0
    house.may.set()
    assert (await caller.answer(command_id))["error"] == 109
    assert ("mine" in caller.session.subscriptions) is (command == "sub_refresh")


# The end, and putting it off


@topics
@both
@opens
async def test_a_subscription_ends_a_grace_after_its_token(codec: str, topic: str) -> None:
    house = await TokenHouse().start()
    house.declare("forever")
    caller = await reader(house, topic, codec, exp=NOW + 60)
    await caller.ask(subscribe={"channel": "forever"})
    name = "each/1" if topic == "each/*" else "mine"
    await house.wait(60 + GRACE_S - 1)
    await house.publish_json(name, 1)
    await passes()
    assert caller.told(topic) == [1]
    await house.wait(2)
    await house.publish_json(name, 2)
    await house.publish_json("forever", 3)
    await passes()
    # 2500 and above: clients subscribe again, with a new token
    assert caller.told(topic) == [1, UNSUBSCRIBED_EXPIRED]
    assert caller.told("forever") == [3]
    assert caller.goodbye is None
    assert set(caller.session.subscriptions) == {"forever"}
    result = await caller.ask(subscribe={"channel": topic, "token": grant(topic, exp=NOW + 200)})
    assert result["ttl"] == 200 - 86
    await house.publish_json(name, 4)
    await passes()
    assert caller.told(topic)[-1] == 4


@topics
@both
@opens
async def test_a_subscription_is_renewed_and_goes_on(codec: str, topic: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house, topic, codec, exp=NOW + 60)
    await house.wait(50)
    result = await caller.ask(sub_refresh={"channel": topic, "token": grant(topic, exp=NOW + 120)})
    assert result == {"expires": True, "ttl": 70}
    # asked again, as on subscribe
    assert house.asked == [("subscribe", "ann", None)] * 2
    await house.wait(70 + GRACE_S - 1)
    assert caller.told(topic) == []
    await house.wait(2)
    assert caller.told(topic) == [UNSUBSCRIBED_EXPIRED]


@both
@opens
async def test_it_may_be_renewed_in_the_grace_and_not_after_it(codec: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house, codec=codec, exp=NOW + 60)
    await house.wait(60 + GRACE_S - 1)
    assert (await caller.ask(sub_refresh={"channel": "mine", "token": grant(exp=NOW + 100)}))["ttl"] == 16
    await house.wait(16 + GRACE_S + 1)
    assert caller.told("mine") == [UNSUBSCRIBED_EXPIRED]
    assert (await caller.ask(sub_refresh={"channel": "mine", "token": grant()}))["error"] == 107


@opens
async def test_a_token_without_an_end_ends_the_countdown_and_the_reverse() -> None:
    house = await TokenHouse().start()
    caller = await reader(house, exp=NOW + 60)
    assert await caller.ask(sub_refresh={"channel": "mine", "token": grant()}) == {}
    await house.wait(120)
    assert caller.told("mine") == []
    assert (await caller.ask(sub_refresh={"channel": "mine", "token": grant(exp=NOW + 180)}))["ttl"] == 60
    await house.wait(60 + GRACE_S + 1)
    assert caller.told("mine") == [UNSUBSCRIBED_EXPIRED]


@topics
@both
@opens
async def test_a_renewal_is_refused_where_the_function_now_denies(codec: str, topic: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house, topic, codec, exp=NOW + 60)
    house.is_denied = True
    token = grant(topic, exp=NOW + 600)
    answer = await caller.ask(sub_refresh={"channel": topic, "token": token})
    assert (answer["error"], answer["message"]) == (103, "not any more")
    assert_silent(caller, token)
    # what it had is as long as it was
    await house.wait(60 + GRACE_S - 1)
    assert caller.told(topic) == []
    await house.wait(2)
    assert caller.told(topic) == [UNSUBSCRIBED_EXPIRED]


@opens
async def test_renewals_that_come_to_nothing_change_nothing() -> None:
    house = await TokenHouse().start()
    caller = await reader(house, exp=NOW + 60)
    for given, code in (
        ({"channel": "mine", "token": grant(exp=NOW - 6)}, 109),
        ({"channel": "mine", "token": grant("each/*", exp=NOW + 600)}, 103),
        ({"channel": "mine", "token": ""}, 107),
        ({"channel": "mine", "token": grant(exp=NOW + 600), "type": 1}, 108),
        ({"channel": "each/*", "token": grant("each/*")}, 107),
        ({"channel": "each/1", "token": grant("each/1")}, 107),
        ({"channel": "nowhere", "token": grant("nowhere")}, 102),
        ({"channel": "no//name", "token": grant("no//name")}, 107),
        ({"channel": "nowhere/*", "token": grant("nowhere/*")}, 107),
    ):
        answer = await caller.ask(sub_refresh=given)
        assert answer.get("error") == code, (given, answer)
    await house.wait(60 + GRACE_S + 1)
    assert caller.told("mine") == [UNSUBSCRIBED_EXPIRED]


@opens
async def test_a_token_of_a_pattern_is_for_this_pattern() -> None:
    house = await TokenHouse().start()
    caller = await reader(house, "each/*", exp=NOW + 60)
    for other in ("each/1", "each/**", "*/*", "**"):
        answer = await caller.ask(sub_refresh={"channel": "each/*", "token": grant(other, exp=NOW + 600)})
        assert answer["error"] == 103
    assert (await caller.ask(subscribe={"channel": "each/1", "token": grant("each/*")}))["error"] == 103
    assert set(caller.session.subscriptions) == {"each/*"}


@topics
@opens
async def test_a_subscription_that_ends_while_its_renewal_is_asked_about_stays_ended(topic: str) -> None:
    house = await TokenHouse().start()
    caller = await reader(house, topic, exp=NOW + 60)
    house.may.clear()
    (command_id,) = caller.send({"sub_refresh": {"channel": topic, "token": grant(topic, exp=NOW + 600)}})
    await until(lambda: len(house.asked) == 2, "the question")
    await house.wait(60 + GRACE_S + 1)
    assert caller.told(topic) == [UNSUBSCRIBED_EXPIRED]
    house.may.set()
    assert (await caller.answer(command_id))["error"] == 107
    assert caller.session.subscriptions == {}
    assert house.hub.subscriptions == 0


@opens
async def test_who_leaves_is_not_told_of_an_end() -> None:
    house = await TokenHouse().start()
    caller = await reader(house, exp=NOW + 60)
    await caller.ask(unsubscribe={"channel": "mine"})
    # subscribed anew, without a token: the old one has nothing to do with it
    await caller.ask(subscribe={"channel": "mine"})
    await house.wait(60 + GRACE_S + 1)
    assert caller.told("mine") == []
    other = await reader(house, exp=NOW + 200)
    other.close()
    await passes()
    await house.wait(120 + GRACE_S)
    assert other.told("mine") == []
    caller.close()
    await passes()
    house.check_empty()
