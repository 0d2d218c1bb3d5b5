"""Who is there: join, leave, coming back within the grace, and no ghosts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes
from tests.server.session.test_commands import enter
from tidewire.server.identity import Identity

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


async def house_with_room(**options: Any) -> SessionHouse:
    house = SessionHouse(**options)
    house.declare("room", publish=True, join_leave=True)
    house.declare("quiet", presence=True)
    return await house.start()


def user(name: str, **more: Any) -> Identity:
    return Identity(user=name, **more)


async def roster(caller: Caller, topic: str = "room") -> list[str]:
    result = await caller.ask(presence={"channel": topic})
    return sorted(info.get("user", "?") for info in result.get("presence", {}).values())


@both
@opens
async def test_join_and_leave_are_told_to_all(codec: str) -> None:
    house = await house_with_room()
    a = await enter(house, codec=codec, identity=user("a", info={"name": "Ann"}))
    await a.ask(subscribe={"channel": "room"})
    await passes()
    assert a.told("room") == [("join", "a")], "its own join too"
    b = await enter(house, codec=codec, identity=user("b"))
    await b.ask(subscribe={"channel": "room"})
    await passes()
    assert a.told("room") == [("join", "a"), ("join", "b")]
    assert b.told("room") == [("join", "b")]
    result = await b.ask(presence={"channel": "room"})
    (ann,) = [info for info in result["presence"].values() if info["user"] == "a"]
    assert ann["conn_info"] == {"name": "Ann"}
    assert result["presence"][ann["client"]] == ann
    await b.ask(unsubscribe={"channel": "room"})
    await passes()
    assert a.told("room")[-1] == ("leave", "b")
    assert await roster(a) == ["a"]


@opens
async def test_a_member_may_have_several_connections() -> None:
    house = await house_with_room()
    one, two, other = [await enter(house, identity=user(name)) for name in "aab"]
    for caller in (one, two, other):
        await caller.ask(subscribe={"channel": "room"})
    assert await roster(one) == ["a", "a", "b"]
    assert await one.ask(presence_stats={"channel": "room"}) == {"num_clients": 3, "num_users": 2}
    await two.ask(unsubscribe={"channel": "room"})
    assert await one.ask(presence_stats={"channel": "room"}) == {"num_clients": 2, "num_users": 2}


@opens
async def test_unknown_people_are_counted_one_by_one() -> None:
    house = await house_with_room()
    callers = [await enter(house) for _ in range(3)]
    for caller in callers:
        await caller.ask(subscribe={"channel": "room"})
    assert await callers[0].ask(presence_stats={"channel": "room"}) == {"num_clients": 3, "num_users": 3}


@pytest.mark.parametrize("query", ["", "session=0123456789abcdef"])
@opens
async def test_a_reconnect_is_no_leave(query: str) -> None:
    house = await house_with_room()
    watcher = await enter(house, identity=user("w"))
    await watcher.ask(subscribe={"channel": "room"})
    a = await enter(house, identity=user("a"), query=query)
    await a.ask(subscribe={"channel": "room"})
    a.vanish()
    await passes()
    await house.wait(5)
    again = await enter(house, identity=user("a"), query=query)
    await again.ask(subscribe={"channel": "room"})
    await house.wait(60)
    assert watcher.told("room") == [("join", "w"), ("join", "a")]
    assert again.told("room") == [("join", "a")]
    assert await roster(watcher) == ["a", "w"]


@opens
async def test_who_does_not_come_back_has_left() -> None:
    house = await house_with_room()
    watcher, a = [await enter(house, identity=user(name)) for name in "wa"]
    for caller in (watcher, a):
        await caller.ask(subscribe={"channel": "room"})
    a.vanish()
    await passes()
    house.clock.advance(9)
    await passes()
    assert await roster(watcher) == ["a", "w"], "a moment of grace"
    house.clock.advance(2)
    await passes()
    assert watcher.told("room")[-1] == ("leave", "a")
    assert await roster(watcher) == ["w"]
    # and who comes after the grace has joined anew, under another id
    late = await enter(house, identity=user("a"))
    await late.ask(subscribe={"channel": "room"})
    await passes()
    assert watcher.told("room")[-1] == ("join", "a")
    assert late.session.client != a.session.client


@opens
async def test_a_goodbye_is_a_leave_at_once() -> None:
    house = await house_with_room()
    watcher, a = [await enter(house, identity=user(name)) for name in "wa"]
    for caller in (watcher, a):
        await caller.ask(subscribe={"channel": "room"})
    a.close(1000)
    await passes()
    assert watcher.told("room")[-1] == ("leave", "a")


@opens
async def test_a_peer_that_never_answers_is_no_ghost() -> None:
    house = await house_with_room()
    watcher, a = [await enter(house, identity=user(name)) for name in "wa"]
    for caller in (watcher, a):
        await caller.ask(subscribe={"channel": "room"})
    a.silent = True
    await house.wait(46)
    assert watcher.goodbye is None
    assert watcher.told("room")[-1] == ("leave", "a")


@opens
async def test_a_second_loss_during_the_grace_ends_once() -> None:
    house = await house_with_room()
    watcher = await enter(house, identity=user("w"))
    await watcher.ask(subscribe={"channel": "room"})
    for _ in range(4):
        a = await enter(house, identity=user("a"))
        await a.ask(subscribe={"channel": "room"})
        a.vanish()
        await passes()
        await house.wait(6)
    await house.wait(20)
    assert watcher.told("room") == [("join", "w"), ("join", "a"), ("leave", "a")]


@opens
async def test_only_who_asks_hears_where_nothing_else_is_declared() -> None:
    house = await house_with_room()
    silent, asking = await enter(house, identity=user("s")), await enter(house, identity=user("k"))
    await silent.ask(subscribe={"channel": "quiet"})
    await asking.ask(subscribe={"channel": "quiet", "join_leave": True})
    await passes()
    assert silent.told("quiet") == []
    assert asking.told("quiet") == [("join", "k")]
    assert await roster(silent, "quiet") == ["k", "s"]


@opens
async def test_topics_without_presence_say_so() -> None:
    house = await house_with_room()
    caller = await enter(house)
    await caller.ask(subscribe={"channel": "t", "join_leave": True})
    assert (await caller.ask(presence={"channel": "t"}))["error"] == 108
    assert (await caller.ask(presence_stats={"channel": "t"}))["error"] == 108
    assert caller.told("t") == []


@opens
async def test_a_crowd_is_counted_and_not_listed() -> None:
    house = await house_with_room(presence_members_max=3)
    callers = [await enter(house) for _ in range(4)]
    for caller in callers:
        await caller.ask(subscribe={"channel": "quiet"})
    assert (await callers[0].ask(presence={"channel": "quiet"}))["error"] == 106
    assert (await callers[0].ask(presence_stats={"channel": "quiet"}))["num_clients"] == 4


@opens
async def test_a_refused_caller_is_not_there() -> None:
    house = SessionHouse()

    async def nobody() -> None:
        from tidewire import Deny

        raise Deny("no")

    house.declare("closed", nobody, join_leave=True)
    await house.start()
    caller = await enter(house)
    assert (await caller.ask(subscribe={"channel": "closed"}))["error"] == 103
    assert house.site.presence.members("closed") == []
    assert house.hub.subscriptions == 0
