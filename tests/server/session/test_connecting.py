"""How a session begins: what the application is asked, what the server subscribes it to, what it may send to users."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes, until
from tests.server.session.test_commands import enter
from tidewire import Deny, Log, Operation
from tidewire.protocol import codes
from tidewire.protocol.message import Kind, Message
from tidewire.server.hooks import Welcome
from tidewire.server.identity import Identity

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


async def house_with_own_topics(*topics: str, **options: Any) -> SessionHouse:
    house = SessionHouse(**options)

    async def closed() -> None:
        raise Deny("nobody comes here by itself")

    async def welcome(op: Operation) -> Welcome:
        return Welcome(data={"you said": op.data}, topics=topics)

    house.declare("own/{n}", closed, policy=Log(keep=20))
    house.site.hooks.declare("connect", welcome)
    return await house.start()


@both
@opens
async def test_the_application_is_asked_and_answers(codec: str) -> None:
    house = await house_with_own_topics()
    caller = Caller(house, codec=codec)
    assert (await caller.connect(data={"hello": 1}))["data"] == {"you said": {"hello": 1}}


@both
@opens
async def test_the_server_subscribes_by_itself(codec: str) -> None:
    house = await house_with_own_topics("own/1", "own/2")
    await house.publish_json("own/1", "old")
    caller = Caller(house, codec=codec)
    welcome = await caller.connect()
    assert set(welcome["subs"]) == {"own/1", "own/2"}
    begun = welcome["subs"]["own/1"]
    assert (begun["recoverable"], begun["positioned"], begun["offset"]) == (True, True, 1)
    await passes(20)
    await house.publish_json("own/1", "new")
    await house.publish_json("own/2", "other")
    await passes(20)
    assert caller.told("own/1") == ["new"]
    assert caller.told("own/2") == ["other"]
    # it has the subscription already
    assert (await caller.ask(subscribe={"channel": "own/1"}))["error"] in (103, 105)


@both
@opens
async def test_what_the_server_subscribed_to_is_recovered(codec: str) -> None:
    house = await house_with_own_topics("own/1")
    first = Caller(house, codec=codec)
    begun = (await first.connect())["subs"]["own/1"]
    await passes(20)
    await house.publish_json("own/1", *range(3))
    await passes(20)
    epoch = (await house.hub.note("own/1")).epoch  # type: ignore[union-attr]
    assert begun.get("epoch", epoch) == epoch
    first.vanish()
    await passes()
    await house.publish_json("own/1", *range(3, 6))
    second = Caller(house, codec=codec)
    asked = {"own/1": {"channel": "own/1", "recover": True, "epoch": epoch, "offset": 3}}
    result = (await second.connect(subs=asked))["subs"]["own/1"]
    assert (result["was_recovering"], result["recovered"], result["offset"]) == (True, True, 3)
    assert [one["data"] for one in result["publications"]] == [3, 4, 5]
    await passes(20)
    await house.publish_json("own/1", 6)
    await passes(20)
    assert second.told("own/1") == [6]


@opens
async def test_a_long_past_of_the_servers_choice_follows() -> None:
    house = await house_with_own_topics("own/1", page_messages_max=5)
    await house.publish_json("own/1", *range(18))
    epoch = (await house.hub.note("own/1")).epoch  # type: ignore[union-attr]
    caller = Caller(house)
    asked = {"own/1": {"recover": True, "epoch": epoch, "offset": 2}}
    result = (await caller.connect(subs=asked))["subs"]["own/1"]
    assert (result["recovered"], result["offset"], result.get("publications", [])) == (True, 2, [])
    await until(lambda: len(caller.told("own/1")) == 16)
    assert caller.told("own/1") == list(range(2, 18))


@opens
async def test_what_is_not_kept_is_not_recovered() -> None:
    house = await house_with_own_topics("own/1")
    await house.publish_json("own/1", *range(50))
    epoch = (await house.hub.note("own/1")).epoch  # type: ignore[union-attr]
    caller = Caller(house)
    asked = {"own/1": {"recover": True, "epoch": epoch, "offset": 2}}
    result = (await caller.connect(subs=asked))["subs"]["own/1"]
    assert (result["was_recovering"], result.get("recovered", False), result["offset"]) == (True, False, 50)
    assert result.get("publications", []) == []


@opens
async def test_a_gap_in_a_topic_of_the_servers_choice_ends_the_connection() -> None:
    house = await house_with_own_topics("own/1")
    await house.publish_json("own/1", 1)
    epoch = (await house.hub.note("own/1")).epoch  # type: ignore[union-attr]
    caller = Caller(house)
    await caller.connect()
    await passes(20)
    house.hub.deliver("own/1", Message(b"9", Kind.JSON, epoch, 9))
    await passes(20)
    assert caller.goodbye == (3010, "insufficient state")


@opens
async def test_a_topic_that_does_not_exist_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    house = await house_with_own_topics("own/1", "nowhere/1")
    caller = Caller(house)
    assert set((await caller.connect())["subs"]) == {"own/1"}
    assert "nowhere/1" in caplog.text


@opens
async def test_a_token_may_name_topics() -> None:
    house = await house_with_own_topics()
    caller = Caller(house, identity=Identity(user="a", claims={"channels": ["own/7", 7], "subs": {"own/8": {}}}))
    assert set((await caller.connect())["subs"]) == {"own/7", "own/8"}


@opens
async def test_sending_to_a_user() -> None:
    house = await SessionHouse().start()
    one, two, other = [await enter(house, identity=Identity(user=name)) for name in "aab"]
    assert house.site.sessions.send("a", {"n": 1}) == 2
    assert house.site.sessions.send("c", {"n": 1}) == 0
    await passes()
    for caller, count in ((one, 1), (two, 1), (other, 0)):
        assert len([push for push in caller.pushes if push.message is not None]) == count


@opens
async def test_unsubscribing_and_disconnecting_a_user() -> None:
    house = await SessionHouse().start()
    one, other = [await enter(house, identity=Identity(user=name)) for name in "ab"]
    for caller in (one, other):
        await caller.ask(subscribe={"channel": "t"})
    assert house.site.sessions.unsubscribe("a", "t") == 1
    assert house.site.sessions.unsubscribe("a", "t") == 0
    await house.publish_json("t", 1)
    await passes()
    assert one.told("t") == [("unsubscribe", 2000)]
    assert other.told("t") == [1]
    assert house.site.sessions.disconnect("b", codes.FORCED) == 1
    assert house.site.sessions.disconnect("a", codes.RECONNECT) == 1
    await passes()
    assert other.goodbye == (3503, "disconnected")
    assert one.goodbye == (3011, "reconnect")


@opens
async def test_the_application_hears_of_messages_and_ends() -> None:
    house = SessionHouse()
    heard: list[Any] = []

    async def message(op: Operation) -> None:
        heard.append(op.data)

    async def gone(op: Operation) -> None:
        heard.append(op.name)

    house.site.hooks.declare("message", message)
    house.site.hooks.declare("disconnect", gone)
    await house.start()
    caller = await enter(house)
    caller.send({"send": {"data": {"n": 1}}}, {"send": {"data": {"n": 2}}})
    await passes(20)
    caller.close()
    await until(lambda: len(heard) == 3)
    assert heard == [{"n": 1}, {"n": 2}, "disconnect"]
    stranger = Caller(house)
    stranger.close()
    await passes(20)
    assert heard[3:] == []
    await house.site.sessions.close()
