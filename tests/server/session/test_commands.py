"""What each command of a session does, in both codecs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes, until
from tidewire import Deny, Latest, Log, Operation, Signal
from tidewire.protocol.message import Kind
from tidewire.server.identity import Identity

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


async def enter(house: SessionHouse, **options: Any) -> Caller:
    caller = Caller(house, **options)
    await caller.connect()
    return caller


@both
@opens
async def test_from_connect_to_goodbye(codec: str) -> None:
    house = await SessionHouse().start()
    caller = Caller(house, codec=codec)
    welcome = await caller.connect(name="test", version="1")
    assert welcome["client"]
    assert welcome["version"].startswith("tidewire ")
    assert (welcome["ping"], welcome["pong"]) == (25, True)
    result = await caller.ask(subscribe={"channel": "t"})
    assert (result["recoverable"], result["positioned"]) == (True, True)
    assert result["epoch"]
    assert result.get("offset", 0) == 0
    assert await caller.ask(publish={"channel": "t", "data": {"n": 1}}) == {}
    await house.publish_json("t", {"n": 2})
    await passes()
    assert caller.told("t") == [{"n": 1}, {"n": 2}]
    offsets = [push.pub.offset for push in caller.pushes if push.pub is not None]
    assert offsets == [1, 2]
    assert await caller.ask(unsubscribe={"channel": "t"}) == {}
    await house.publish_json("t", {"n": 3})
    await passes()
    assert caller.told("t") == [{"n": 1}, {"n": 2}]
    caller.close()
    await passes()
    assert caller.goodbye == (1000, "")
    house.check_empty()


@both
@opens
async def test_many_commands_in_one_frame_are_answered_in_one(codec: str) -> None:
    house = await SessionHouse().start()
    caller = await enter(house, codec=codec)
    frames = len(caller.frames)
    ids = caller.send(*({"history": {"channel": "t"}} for _ in range(10)))
    await caller.answer(ids[-1])
    assert len(caller.frames) <= frames + 2
    assert [packet.id for packet in caller.packets[-10:]] == ids


@both
@opens
async def test_a_message_never_comes_before_the_answer(codec: str) -> None:
    house = await SessionHouse().start()
    caller = await enter(house, codec=codec)
    await house.publish_json("t", *range(3))
    for n in range(3, 30):
        caller.send({"subscribe": {"channel": "t", "recover": n % 2 == 0, "offset": n}})
        # something is published in every pass of the loop, whatever the subscription does in it
        for m in range(8):
            await house.publish_json("t", [n, m])
            await passes(1)
        caller.send({"unsubscribe": {"channel": "t"}})
        await passes()
    live = False
    for packet in caller.packets:
        if packet.subscribe is not None:
            live = True
        elif packet.unsubscribe is not None:
            live = False
        elif packet.push is not None:
            assert live


@both
@opens
async def test_what_was_missed_stands_in_the_answer(codec: str) -> None:
    house = await SessionHouse().start()
    (first, *_) = await house.publish_json("t", *range(5))
    assert first is not None
    caller = await enter(house, codec=codec)
    result = await caller.ask(subscribe={"channel": "t", "recover": True, "epoch": first.epoch, "offset": 2})
    assert (result["recovered"], result["was_recovering"]) == (True, True)
    # the position that was asked for, not the newest one: the client moves on as it takes the publications
    assert (result["epoch"], result["offset"]) == (first.epoch, 2)
    assert [(one["offset"], one["data"]) for one in result["publications"]] == [(3, 2), (4, 3), (5, 4)]
    await house.publish_json("t", "live")
    await passes()
    assert caller.told("t") == [2, 3, 4, "live"]


@both
@opens
async def test_a_long_past_follows_the_answer(codec: str) -> None:
    house = await SessionHouse(page_messages_max=10).start()
    (first, *_) = await house.publish_json("t", *range(95))
    assert first is not None
    caller = await enter(house, codec=codec)
    result = await caller.ask(subscribe={"channel": "t", "recover": True, "epoch": first.epoch, "offset": 3})
    assert (result["recovered"], result["offset"], result.get("publications", [])) == (True, 3, [])
    await until(lambda: len(caller.told("t")) == 92)
    assert caller.told("t") == list(range(3, 95))


@both
@pytest.mark.parametrize(
    ("recover", "kept", "publications"),
    [
        # another epoch
        ({"epoch": "0000000000000000", "offset": 4}, 100, []),
        # of the future
        ({"offset": 50}, 100, []),
        # trimmed away: nothing, instead of the part that is left
        ({"offset": 1}, 2, []),
    ],
)
@opens
async def test_what_cannot_be_recovered_is_told(
    codec: str, recover: dict[str, Any], kept: int, publications: list[Any]
) -> None:
    house = await SessionHouse(policy=Log(keep=kept)).start()
    (top,) = (await house.publish_json("t", *range(5)))[-1:]
    assert top is not None
    caller = await enter(house, codec=codec)
    asked = {"channel": "t", "recover": True, "epoch": top.epoch, **recover}
    result = await caller.ask(subscribe=asked)
    assert result["was_recovering"] is True
    assert result.get("recovered", False) is False
    assert result.get("publications", []) == publications
    assert (result["epoch"], result["offset"]) == (top.epoch, 5)
    await house.publish_json("t", "live")
    await passes()
    assert caller.told("t") == ["live"]


@opens
async def test_a_client_may_ask_to_be_refused_instead() -> None:
    house = await SessionHouse().start()
    await house.publish_json("t", 1)
    caller = await enter(house)
    asked = {"channel": "t", "recover": True, "epoch": "elsewhere", "offset": 1, "flag": 2}
    assert (await caller.ask(subscribe=asked))["error"] == 112
    # nothing is left of it
    assert "epoch" in await caller.ask(subscribe={"channel": "t"})
    await house.publish_json("t", 2)
    await passes()
    assert caller.told("t") == [2]


@opens
async def test_a_latest_topic_begins_with_its_values_and_conflates() -> None:
    house = SessionHouse()
    house.declare("prices", policy=Latest(key="k"))
    await house.start()
    await house.publish_json("prices", {"k": "a", "v": 1}, {"k": "b", "v": 1}, {"k": "a", "v": 2})
    caller = await enter(house)
    result = await caller.ask(subscribe={"channel": "prices"})
    await passes()
    assert caller.told("prices") == [{"k": "b", "v": 1}, {"k": "a", "v": 2}]
    last = max(push.pub.offset for push in caller.pushes if push.pub is not None)
    await caller.ask(unsubscribe={"channel": "prices"})
    await house.publish_json("prices", {"k": "b", "v": 7})
    # back with its position: only what changed
    again = await caller.ask(subscribe={"channel": "prices", "recover": True, "epoch": result["epoch"], "offset": last})
    await passes()
    assert again["recovered"] is True
    assert caller.told("prices")[2:] == [{"k": "b", "v": 7}]


@opens
async def test_a_subscriber_may_ask_for_a_slower_rate() -> None:
    house = SessionHouse()
    house.declare("prices", policy=Latest(key="k", max_per_s=4))
    await house.start()
    slow, usual = await enter(house), await enter(house)
    await slow.ask(subscribe={"channel": "prices", "data": {"max_per_s": 1}})
    await usual.ask(subscribe={"channel": "prices", "data": {"max_per_s": 100}})
    for n in range(80):
        await house.publish_json("prices", {"k": "a", "v": n})
        house.clock.advance(0.05)
        await passes(3)
    counts = [len(caller.told("prices")) for caller in (slow, usual)]
    assert counts[0] <= 5
    assert 14 <= counts[1] <= 18
    assert slow.told("prices")[-1]["v"] >= 60
    refused = await usual.ask(subscribe={"channel": "prices", "data": {"max_per_s": "much"}})
    assert refused["error"] in (105, 107)


@opens
async def test_a_signal_has_no_position() -> None:
    house = SessionHouse()
    house.declare("typing", policy=Signal(), publish=True)
    await house.start()
    caller = await enter(house)
    result = await caller.ask(subscribe={"channel": "typing", "recover": True, "offset": 3})
    assert "recoverable" not in result
    assert "epoch" not in result
    await caller.ask(publish={"channel": "typing", "data": {"who": "me"}})
    await passes()
    (push,) = [push for push in caller.pushes if push.pub is not None]
    assert push.pub is not None
    assert push.pub.offset == 0
    assert (await caller.ask(history={"channel": "typing", "limit": 5}))["error"] == 108


@both
@opens
async def test_history_up_and_down(codec: str) -> None:
    house = await SessionHouse(history_messages_max=6).start()
    (first, *_) = await house.publish_json("t", *range(10))
    assert first is not None
    caller = await enter(house, codec=codec)

    async def ask(**more: Any) -> tuple[list[Any], int]:
        result = await caller.ask(history={"channel": "t", **more})
        assert result["epoch"] == first.epoch
        return [one["data"] for one in result.get("publications", [])], result["offset"]

    assert await ask() == ([], 10)
    assert await ask(limit=2) == ([0, 1], 10)
    assert await ask(limit=-1) == ([0, 1, 2, 3, 4, 5], 10)
    assert await ask(limit=3, since={"offset": 4, "epoch": first.epoch}) == ([4, 5, 6], 10)
    assert await ask(limit=3, since={"offset": 4}) == ([4, 5, 6], 10)
    assert await ask(limit=4, reverse=True) == ([9, 8, 7, 6], 10)
    assert await ask(limit=2, reverse=True, since={"offset": 4, "epoch": first.epoch}) == ([2, 1], 10)
    assert await ask(limit=9, reverse=True, since={"offset": 3, "epoch": first.epoch}) == ([1, 0], 10)
    refused = await caller.ask(history={"channel": "t", "limit": 1, "since": {"offset": 4, "epoch": "elsewhere"}})
    assert refused["error"] == 112
    refused = await caller.ask(
        history={"channel": "t", "limit": 1, "reverse": True, "since": {"offset": 4, "epoch": "elsewhere"}}
    )
    assert refused["error"] == 112


@opens
async def test_history_of_keyed_values() -> None:
    house = SessionHouse()
    house.declare("prices", policy=Latest(key="k"))
    await house.start()
    caller = await enter(house)
    assert await caller.ask(history={"channel": "prices", "limit": 5}) == {}
    await house.publish_json("prices", *({"k": "abc"[n % 3], "v": n} for n in range(9)))
    result = await caller.ask(history={"channel": "prices", "limit": 5})
    assert [one["data"]["v"] for one in result["publications"]] == [6, 7, 8]
    result = await caller.ask(history={"channel": "prices", "limit": 2, "reverse": True})
    assert [one["data"]["v"] for one in result["publications"]] == [8, 7]


@opens
async def test_each_operation_is_asked_for() -> None:
    asked: list[tuple[str, str, str | None, Any]] = []

    async def room(number: int, op: Operation) -> None:
        asked.append((op.name, op.topic, op.since, op.data))
        if number == 13:
            raise Deny("not this one")
        if number == 14 and op.name == "publish":
            raise Deny("slowly", status=429)

    house = SessionHouse()
    house.declare("room/{number}", room, publish=True, presence=True)
    await house.start()
    caller = await enter(house)
    await caller.ask(subscribe={"channel": "room/1", "data": {"as": "me"}})
    await caller.ask(publish={"channel": "room/1", "data": [1]})
    await caller.ask(history={"channel": "room/1"})
    await caller.ask(presence={"channel": "room/1"})
    assert asked == [
        ("subscribe", "room/1", None, {"as": "me"}),
        ("publish", "room/1", None, [1]),
        ("read", "room/1", None, None),
        ("presence", "room/1", None, None),
    ]
    for command in ("subscribe", "history", "presence", "presence_stats"):
        assert await caller.ask(**{command: {"channel": "room/13"}}) == {"error": 103, "message": "not this one"}
    assert (await caller.ask(publish={"channel": "room/13", "data": 1}))["error"] == 103
    assert (await caller.ask(publish={"channel": "room/14", "data": 1})) == {"error": 111, "message": "slowly"}
    assert (await caller.ask(subscribe={"channel": "room/x"}))["error"] == 107
    assert house.hub.subscriptions == 1


@opens
async def test_kinds_of_payload() -> None:
    house = SessionHouse()
    house.declare("words", payload=Kind.TEXT, publish=True)
    house.declare("raw", payload=Kind.BYTES, publish=True)
    house.declare("values", payload=Kind.JSON, publish=True)
    await house.start()
    json, protobuf = await enter(house), await enter(house, codec="protobuf")
    for topic in ("words", "values", "t"):
        await json.ask(subscribe={"channel": topic})
    for topic in ("words", "values", "t", "raw"):
        await protobuf.ask(subscribe={"channel": topic})
    refused = await json.ask(subscribe={"channel": "raw"})
    assert refused == {"error": 108, "message": "this topic carries bytes: connect with Protobuf"}
    assert (await json.ask(history={"channel": "raw"}))["error"] == 108
    assert await json.ask(publish={"channel": "words", "data": "hällo"}) == {}
    assert (await json.ask(publish={"channel": "words", "data": {"not": "text"}}))["error"] == 107
    assert (await json.ask(publish={"channel": "words"}))["error"] == 107
    await passes()
    assert json.told("words") == ["hällo"]
    assert protobuf.told("words") == ["hällo".encode()]


@opens
async def test_what_is_not_spoken_is_refused() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    for more in ({"type": 1}, {"type": 4}, {"tf": {"key": "a", "cmp": "eq", "val": "b"}}):
        assert (await caller.ask(subscribe={"channel": "t", **more}))["error"] == 108
    assert (await caller.ask(publish={"channel": "t", "data": 1, "type": 1}))["error"] == 108
    assert (await caller.ask(sub_refresh={"channel": "t", "type": 1}))["error"] == 108
    assert (await caller.ask(ping={}))["error"] == 108
    # offers that need not be taken up: the answer is silent about them
    result = await caller.ask(subscribe={"channel": "t", "delta": "fossil", "flag": 1})
    assert "delta" not in result
    assert "id" not in result


@both
@opens
async def test_a_publication_says_which_client_it_is_from(codec: str) -> None:
    house = await SessionHouse().start()
    ann = await enter(house, codec=codec, identity=Identity(user="ann", info={"name": "Ann"}))
    bob = await enter(house, codec=codec)
    await bob.ask(subscribe={"channel": "t"})
    await ann.ask(publish={"channel": "t", "data": 1})
    await house.publish_json("t", 2)
    await passes()
    first, second = [push.pub for push in bob.pushes if push.pub is not None]
    assert first.info is not None
    assert (first.info.user, first.info.client) == ("ann", ann.session.client)
    assert bytes(first.info.conn_info) == b'{"name":"Ann"}'
    assert second.info is None, "the application's own"
    history = await bob.ask(history={"channel": "t", "limit": 5})
    assert [one.get("info", {}).get("user") for one in history["publications"]] == ["ann", None]


@opens
async def test_who_has_a_part_of_a_state_does_not_stand_at_its_position() -> None:
    async def state() -> list[dict[str, Any]]:
        return [{"k": "a", "v": 1}, {"k": "b", "v": 2}]

    house = SessionHouse()
    house.declare("prices", state, policy=Latest(key="k"))
    await house.start()
    await house.publish_json("prices", {"k": "c", "v": 3})
    caller = await enter(house)
    result = await caller.ask(subscribe={"channel": "prices"})
    await passes()
    assert result.get("offset", 0) == 0
    assert result.get("positioned", False) is False
    assert [push.pub.offset for push in caller.pushes if push.pub is not None] == [0, 0]
    # cut in between: the whole state again, and not called recovered
    again = await enter(house)
    asked = {"channel": "prices", "recover": True, "epoch": result["epoch"], "offset": 0}
    assert (await again.ask(subscribe=asked)).get("recovered", False) is False
    await passes()
    assert again.told("prices") == [{"k": "a", "v": 1}, {"k": "b", "v": 2}]
    # what changes afterwards moves it
    await house.publish_json("prices", {"k": "a", "v": 9})
    await passes()
    last = max(push.pub.offset for push in again.pushes if push.pub is not None)
    third = await enter(house)
    result = await third.ask(subscribe={**asked, "offset": last})
    assert result["recovered"] is True
    await passes()
    assert third.told("prices") == []


@opens
async def test_one_answer_holds_so_many_bytes() -> None:
    house = await SessionHouse(message_bytes_max=1000).start()
    await house.publish_json("t", *("x" * 300 for _ in range(10)))
    caller = await enter(house)
    first = await caller.ask(history={"channel": "t", "limit": -1})
    assert [one["offset"] for one in first["publications"]] == [1, 2, 3]
    assert first["offset"] == 10
    rest = await caller.ask(history={"channel": "t", "limit": -1, "since": {"offset": 3, "epoch": first["epoch"]}})
    assert [one["offset"] for one in rest["publications"]] == [4, 5, 6]
    back = await caller.ask(history={"channel": "t", "limit": -1, "reverse": True})
    assert [one["offset"] for one in back["publications"]] == [10, 9, 8]


@opens
async def test_protobuf_is_told_what_is_no_json() -> None:
    house = await SessionHouse().start()
    caller = await enter(house, codec="protobuf")
    await caller.ask(subscribe={"channel": "t"})
    await house.publish("42", b"\x00")
    await house.publish_json("t", 42)
    await passes()
    tags = [push.pub.tags for push in caller.pushes if push.pub is not None]
    assert tags == [{"encoding": "text"}, {"encoding": "bytes"}, {}]
