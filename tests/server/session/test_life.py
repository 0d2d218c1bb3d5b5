"""How a session lives and ends: pings, deadlines, the codes of its ends, and what it leaves behind."""

from __future__ import annotations

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes, until
from tests.server.session.test_commands import enter
from tidewire import Latest, Log
from tidewire.hub.subscription import Eviction
from tidewire.protocol import codes
from tidewire.protocol.message import Draft, Kind, Message
from tidewire.protocol.position import START
from tidewire.server.identity import Identity

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


# Pings


@both
@opens
async def test_pings_come_and_pongs_are_wanted(codec: str) -> None:
    house = await SessionHouse().start()
    caller = await enter(house, codec=codec)
    await house.wait(12.0)
    assert caller.pings == 0, "the first comes after half of the interval"
    await house.wait(13.5)
    assert caller.pings == 1
    for n in range(2, 6):
        await house.wait(25)
        assert caller.pings == n
    assert caller.goodbye is None
    caller.silent = True
    await house.wait(36)
    assert caller.pings == 6
    # nothing is said to a peer that does not answer: the line is dropped
    assert caller.connection.verdict is not None
    assert (caller.connection.verdict.code, caller.connection.verdict.abrupt) == (3012, True)
    await house.wait(12)
    house.check_empty()


@opens
async def test_first_pings_are_spread() -> None:
    house = await SessionHouse().start()
    callers = [await enter(house) for _ in range(40)]
    seen = []
    for _ in range(130):
        house.clock.advance(0.2)
        await passes(3)
        seen.append(sum(caller.pings > 0 for caller in callers))
    assert seen[60] == 0
    assert 5 < seen[90] < 35
    assert seen[-1] == 40


@opens
async def test_a_pong_without_a_ping_is_a_mistake() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.pong()
    await passes()
    assert caller.goodbye == (3501, "a pong without a ping")


@opens
async def test_who_asks_for_frame_pings_gets_no_others() -> None:
    house = await SessionHouse().start()
    caller = Caller(house, query="cf_ws_frame_ping_pong=true")
    welcome = await caller.connect()
    assert "ping" not in welcome
    assert "pong" not in welcome
    house.clock.advance(1000)
    await passes()
    assert caller.pings == 0
    assert caller.goodbye is None


@opens
async def test_connect_has_to_come_in_time() -> None:
    house = await SessionHouse().start()
    quiet = Caller(house)
    house.clock.advance(10.2)
    await passes()
    assert quiet.goodbye == (3502, "stale")


# Losses


@opens
async def test_a_gap_in_the_middle_is_told_and_recovered_from() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    result = await caller.ask(subscribe={"channel": "t"})
    await house.publish_json("t", 1)
    await passes()
    # the broker has lost two messages on the way to this node
    house.hub.deliver("t", Message(b"4", Kind.JSON, result["epoch"], 4))
    await passes()
    assert caller.told("t") == [1, ("unsubscribe", 2500)]
    assert house.hub.subscriptions == 0
    again = await caller.ask(subscribe={"channel": "t", "recover": True, "epoch": result["epoch"], "offset": 1})
    assert again["recovered"] is True


@opens
async def test_too_slow_for_a_log_is_the_end_that_may_come_back() -> None:
    house = await SessionHouse(outbox_messages_max=50).start()
    caller = await enter(house, high_water=1)
    await caller.ask(subscribe={"channel": "t"})
    caller.transport.stall()
    for n in range(200):
        await house.publish_json("t", "x" * 100 + str(n))
        await passes(2)
    assert house.hub.stats.evicted == 1
    assert caller.connection.verdict is not None
    assert caller.connection.verdict.code == 3008
    house.clock.advance(2)
    await passes()
    house.check_empty()


@opens
async def test_a_slow_reader_of_values_is_conflated_and_answered_first() -> None:
    house = SessionHouse(outbox_messages_max=50)
    house.declare("prices", policy=Latest(key="k"))
    await house.start()
    caller = await enter(house, high_water=1)
    await caller.ask(subscribe={"channel": "prices"})
    caller.transport.stall()
    for n in range(300):
        await house.publish_json("prices", {"k": n % 10, "v": n, "pad": "x" * 1000})
        await passes(2)
    (command_id,) = caller.send({"history": {"channel": "t"}})
    await passes(50)
    caller.transport.unstall()
    await caller.answer(command_id)
    await until(lambda: len({one["k"] for one in caller.told("prices")}) == 10)
    newest = {one["k"]: one["v"] for one in caller.told("prices")}
    assert newest == {n % 10: n for n in range(290, 300)}
    order = [packet for packet in caller.packets if packet.id == command_id or packet.push is not None]
    answer = next(index for index, packet in enumerate(order) if packet.id == command_id)
    assert answer < len(order) - 5, "an answer does not wait behind messages"


@opens
async def test_the_end_of_a_topic_is_told() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    await caller.ask(subscribe={"channel": "t"})
    await house.publish_json("t", 1)
    await house.hub.finish("t", house.policy, None)
    await passes()
    assert caller.told("t") == [1, ("unsubscribe", 2001)]
    assert caller.goodbye is None
    assert caller.session.subscriptions == {}
    # whoever comes later hears the rest and the end at once
    await caller.ask(subscribe={"channel": "t", "recover": True})
    await passes()
    assert caller.told("t")[-1] == ("unsubscribe", 2001)
    assert (await caller.ask(publish={"channel": "t", "data": 1}))["error"] == 108


@opens
async def test_a_shutdown_says_come_back() -> None:
    house = await SessionHouse().start()
    with_topics, without = await enter(house), await enter(house)
    await with_topics.ask(subscribe={"channel": "t"})
    house.site.sessions.end_all(codes.SESSION_SHUTDOWN)
    house.hub.evict_all(Eviction.SHUTDOWN)
    await passes()
    assert with_topics.goodbye == (3001, "shutdown")
    assert without.goodbye == (3001, "shutdown")
    for caller in (with_topics, without):
        caller.close(3001)
    await passes()
    house.check_empty()


@opens
async def test_the_word_of_an_end_does_not_come_after_a_new_beginning() -> None:
    house = await SessionHouse().start()
    caller = await enter(house, identity=Identity(user="a"), high_water=1)
    await caller.ask(subscribe={"channel": "t"})
    caller.transport.stall()
    for n in range(5):
        await house.publish_json("t", "." * 300 + str(n))
        await passes()
    assert house.site.sessions.unsubscribe("a", "t") == 1
    # the client does not know yet, and its own words are on their way
    caller.send({"unsubscribe": {"channel": "t"}}, {"subscribe": {"channel": "t"}})
    await passes(20)
    caller.transport.unstall()
    await passes(20)
    await house.publish_json("t", "live")
    await passes()
    order = [packet for packet in caller.packets if packet.unsubscribe or packet.subscribe or packet.push]
    at = max(index for index, packet in enumerate(order) if packet.subscribe is not None)
    assert all(packet.push is None or packet.push.unsubscribe is None for packet in order[at:])
    assert caller.told("t")[-1] == "live"
    assert caller.session.dropped == {}


# Coming and going


@pytest.mark.parametrize("way", ["close", "vanish", "drop", "end"])
@opens
async def test_nothing_is_left_of_a_session(way: str) -> None:
    house = SessionHouse()
    house.declare("room", publish=True, join_leave=True)
    await house.start()
    caller = await enter(house, identity=Identity(user="a"))
    for topic in ("t", "room"):
        await caller.ask(subscribe={"channel": topic})
    if way == "close":
        caller.close()
    elif way == "vanish":
        caller.vanish()
    elif way == "drop":
        caller.connection.drop()
    else:
        house.site.sessions.disconnect("a", codes.FORCED)
        await passes()
        assert caller.goodbye == (3503, "disconnected")
        caller.close(3503)
    await passes()
    house.clock.advance(11)
    await passes()
    house.check_empty()
    assert house.site.presence.members("room") == []
    assert house.site.presence._rosters == {}
    assert house.site.sessions._lost == {}


@opens
async def test_what_was_sent_before_a_goodbye_is_published() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.send(*({"publish": {"channel": "t", "data": n}} for n in range(20)))
    caller.close()
    await passes(100)
    history = await house.hub.read("t", START, 100)
    assert history is not None
    assert [message.payload for message in history.messages] == [b"%d" % n for n in range(20)]


@opens
async def test_nothing_is_published_by_who_has_not_connected() -> None:
    house = await SessionHouse().start()
    caller = Caller(house)
    caller.send({"publish": {"channel": "t", "data": 1}})
    caller.close()
    await passes(50)
    assert house.hub.stats.published == 0


@opens
async def test_a_half_open_predecessor_is_cut_off() -> None:
    house = SessionHouse()
    house.declare("room", publish=True, join_leave=True)
    await house.start()
    other = await enter(house, identity=Identity(user="b"))
    await other.ask(subscribe={"channel": "room"})
    old = Caller(house, identity=Identity(user="a"), query="session=0123456789abcdef")
    first = await old.connect()
    await old.ask(subscribe={"channel": "room"})
    new = Caller(house, identity=Identity(user="a"), query="session=0123456789abcdef")
    second = await new.connect()
    assert second["client"] == first["client"]
    await passes()
    assert old.connection.verdict is not None
    assert old.connection.verdict.code == 4500
    # it neither receives nor publishes
    old.send({"publish": {"channel": "room", "data": "ghost"}})
    await new.ask(subscribe={"channel": "room"})
    await house.publish_json("room", "news")
    await passes()
    assert "news" not in old.told("room")
    assert other.told("room") == [("join", "b"), ("join", "a"), "news"], "a reconnect is no leave"
    assert len(house.site.presence.members("room")) == 2


@opens
async def test_the_late_word_of_a_predecessor_replaces_nobody() -> None:
    house = await SessionHouse().start()
    old = Caller(house, query="session=0123456789abcdef")
    new = Caller(house, query="session=0123456789abcdef")
    await new.connect()
    # it was sent before, and was longer on its way
    old.send({"connect": {}})
    await passes(20)
    assert old.goodbye == (4500, "replaced")
    assert new.connection.verdict is None
    assert await new.ask(publish={"channel": "t", "data": 1}) == {}


@opens
async def test_a_key_of_another_user_replaces_nobody() -> None:
    house = await SessionHouse().start()
    mine = Caller(house, identity=Identity(user="a"), query="session=0123456789abcdef")
    await mine.connect()
    theirs = Caller(house, identity=Identity(user="b"), query="session=0123456789abcdef")
    await theirs.connect()
    await passes()
    assert mine.connection.verdict is None
    bad = Caller(house, query="session=short")
    assert (await bad.connect())["error"] == 107


# Limits


@opens
async def test_a_flood_is_told() -> None:
    house = await SessionHouse(session_burst_max=100, session_commands_per_s=10).start()
    caller = await enter(house)
    caller.send(*({"history": {"channel": "t"}} for _ in range(201)))
    await passes(10)
    assert caller.goodbye == (3013, "too many requests")


@opens
async def test_who_is_in_a_hurry_is_slowed_down() -> None:
    house = await SessionHouse(session_burst_max=100, session_commands_per_s=10).start()
    caller = await enter(house)
    ids = caller.send(*({"history": {"channel": "t"}} for _ in range(149)))
    await until(lambda: caller.reply_of(ids[-1]) is not None)
    await passes()
    assert caller.transport.is_paused, "fifty were taken in advance"
    house.clock.advance(4.9)
    await passes()
    assert caller.transport.is_paused
    house.clock.advance(0.2)
    await passes()
    assert not caller.transport.is_paused
    assert caller.goodbye is None


@opens
async def test_subscriptions_are_counted() -> None:
    house = SessionHouse(session_subscriptions_max=10)
    house.declare("many/{n}", policy=Log())
    await house.start()
    caller = await enter(house)
    for n in range(10):
        assert "epoch" in await caller.ask(subscribe={"channel": f"many/{n}"})
    refused = await caller.ask(subscribe={"channel": "many/10"})
    assert refused == {"error": 106, "message": "one session has 10 subscriptions at most"}
    await caller.ask(unsubscribe={"channel": "many/3"})
    assert "epoch" in await caller.ask(subscribe={"channel": "many/10"})


@opens
async def test_reading_stops_while_much_is_to_be_done() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.send(*({"history": {"channel": "t"}} for _ in range(200)))
    assert caller.transport.is_paused
    await until(lambda: not caller.transport.is_paused)
    await passes()
    assert len(caller.packets) == 201


@opens
async def test_one_topic_that_cannot_be_made_is_refused() -> None:
    house = SessionHouse(topics_max=2)
    house.declare("many/{n}")
    await house.start()
    caller = await enter(house)
    for n in range(2):
        await caller.ask(subscribe={"channel": f"many/{n}"})
    assert (await caller.ask(subscribe={"channel": "many/2"}))["error"] == 106
    assert set(caller.session.subscriptions) == {"many/0", "many/1"}
    await house.hub.publish("many/0", Log(), Draft(b"1", Kind.JSON))
    await passes()
    assert caller.told("many/0") == [1]
