"""What a client sees of its mistakes, and of its attacks: each by the code it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.session.fakes import Caller, SessionHouse, opens, passes
from tests.server.session.test_commands import enter
from tests.wire.frames import BINARY, TEXT
from tidewire.protocol.message import Kind

both = pytest.mark.parametrize("codec", ["json", "protobuf"])


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        ("json", b"{"),
        ("json", b"nonsense"),
        ("json", b"[]"),
        ("json", b'{"id":-1,"connect":{}}'),
        ("json", b'{"id":4294967296,"connect":{}}'),
        ("json", b'{"id":"1","connect":{}}'),
        ("json", b'{"id":1,"connect":[]}'),
        ("json", b'{"id":1,"connect":{"token":7}}'),
        ("json", b'{"id":1,"unheard_of":{}}'),
        ("json", b"[" * 100_000),
        ("json", b'{"id":1,"connect":{"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}}"),
        ("protobuf", b"\x05\x08"),
        ("protobuf", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("protobuf", b"\x02\x0b\x0b"),
        ("protobuf", b"\x02\x22\x7f"),
        ("protobuf", b"\x04\x08\x01\x22\x05"),
    ],
)
@opens
async def test_what_is_no_packet(codec: str, payload: bytes) -> None:
    house = await SessionHouse().start()
    caller = Caller(house, codec=codec)
    caller.send_raw(payload)
    await passes(30)
    assert caller.goodbye is not None or caller.reply_of(1) is not None
    if caller.goodbye is not None:
        assert caller.goodbye[0] == 3501
    other = await enter(house, codec=codec)
    assert await other.ask(publish={"channel": "t", "data": 1}) == {}


@opens
async def test_the_wrong_kind_of_frame() -> None:
    house = await SessionHouse().start()
    json_in_binary = Caller(house)
    json_in_binary.send_raw(b'{"id":1,"connect":{}}', opcode=BINARY)
    await passes(30)
    assert json_in_binary.reply_of(1) is not None
    text_for_protobuf = Caller(house, codec="protobuf")
    text_for_protobuf.send_raw(b'{"id":1,"connect":{}}', opcode=TEXT)
    await passes()
    assert text_for_protobuf.goodbye is not None
    assert text_for_protobuf.goodbye[0] == 3501


@pytest.mark.parametrize(
    "command",
    [
        {"subscribe": {"channel": "t"}},
        {"publish": {"channel": "t", "data": 1}},
        {"history": {"channel": "t"}},
        {"presence": {"channel": "t"}},
        {"rpc": {"method": "x"}},
        {"refresh": {"token": "x"}},
        {"send": {"data": 1}},
    ],
)
@opens
async def test_commands_before_connect(command: dict[str, Any]) -> None:
    house = await SessionHouse().start()
    caller = Caller(house)
    caller.send(command)
    await passes()
    assert caller.goodbye == (3501, "the first command is connect")
    assert house.hub.subscriptions == 0


@opens
async def test_connect_twice() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.send({"connect": {}})
    await passes()
    assert caller.goodbye == (3501, "connect came twice")


@opens
async def test_a_command_without_an_id_and_an_id_without_a_command() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.send({"id": 0, "subscribe": {"channel": "t"}})
    await passes()
    assert caller.goodbye == (3501, "a command without an id")
    caller = await enter(house)
    caller.send({"id": 9})
    await passes()
    assert caller.goodbye == (3501, "a command that asks for nothing")


@opens
async def test_ids_may_come_in_any_order() -> None:
    house = await SessionHouse().start()
    caller = Caller(house)
    caller.send(
        {"id": 7, "connect": {}}, {"id": 3, "history": {"channel": "t"}}, {"id": 7, "history": {"channel": "t"}}
    )
    await passes(30)
    assert [packet.id for packet in caller.packets] == [7, 3, 7]


@opens
async def test_without_a_handler_nothing_is_sent_to_the_application() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    caller.send({"send": {"data": 1}})
    await passes()
    assert caller.goodbye == (3508, "not available")


@pytest.mark.parametrize("name", ["", "t" * 256, "a//b", "../x", "-/session", "a b", "ä", "t/*", "**", "nowhere"])
@both
@opens
async def test_names_that_name_nothing(codec: str, name: str) -> None:
    house = await SessionHouse().start()
    for command in ("subscribe", "publish", "history", "presence"):
        caller = await enter(house, codec=codec)
        request: dict[str, Any] = {"channel": name}
        if command == "publish":
            request["data"] = 1
        caller.send({command: request})
        await passes(20)
        if not name:
            assert caller.goodbye is not None
            assert caller.goodbye[0] == 3501
        else:
            is_unknown = name == "nowhere" or ("*" in name and command == "subscribe")
            assert caller.reply_of(2)["error"] == (102 if is_unknown else 107)
    assert house.hub.subscriptions == 0


@opens
async def test_subscribing_twice() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    first, second = caller.send({"subscribe": {"channel": "t"}}, {"subscribe": {"channel": "t"}})
    await passes(30)
    assert "epoch" in caller.reply_of(first)
    assert caller.reply_of(second)["error"] == 105
    await house.publish_json("t", 1)
    await passes()
    assert caller.told("t") == [1]
    assert house.hub.subscriptions == 1


@opens
async def test_unsubscribing_from_nothing_is_done_already() -> None:
    house = await SessionHouse().start()
    caller = await enter(house)
    assert await caller.ask(unsubscribe={"channel": "t"}) == {}
    assert await caller.ask(unsubscribe={"channel": "nowhere"}) == {}
    caller.send({"unsubscribe": {}})
    await passes()
    assert caller.goodbye is not None
    assert caller.goodbye[0] == 3501


@both
@opens
async def test_giant_data(codec: str) -> None:
    house = await SessionHouse(message_bytes_max=1000, session_frame_bytes_max=5000).start()
    caller = await enter(house, codec=codec)
    refused = await caller.ask(publish={"channel": "t", "data": "x" * 2000})
    assert refused["error"] == 106
    assert "2002 bytes exceeds the limit of 1000 bytes" in refused["message"]
    caller.send({"publish": {"channel": "t", "data": "x" * 6000}})
    await passes()
    assert caller.goodbye is not None
    code, reason = caller.goodbye
    assert code == 4413, "never 1009, which SDKs stop for"
    assert "5000" in reason
    assert house.hub.stats.published == 0


@opens
async def test_a_giant_frame_in_pieces_is_cut_short() -> None:
    house = await SessionHouse(session_frame_bytes_max=50_000).start()
    caller = await enter(house)
    head = b"\x81\xff" + (1 << 22).to_bytes(8, "big") + b"\0\0\0\0"
    caller.transport.deliver(head + b"x" * 40_000)
    await passes()
    assert caller.goodbye is None
    caller.transport.deliver(b"x" * 20_000)
    await passes()
    assert caller.goodbye is not None
    assert caller.goodbye[0] == 4413


@opens
async def test_topics_that_take_nothing() -> None:
    house = SessionHouse()
    house.declare("readonly")
    house.declare("values", payload=Kind.JSON, publish=True)
    await house.start()
    caller = await enter(house)
    assert (await caller.ask(publish={"channel": "readonly", "data": 1}))["error"] == 103
    assert (await caller.ask(publish={"channel": "t"}))["error"] == 107
    protobuf = await enter(house, codec="protobuf")
    protobuf.send_raw(_publish_bytes("values", b"\xff\xfe"))
    await passes(20)
    assert protobuf.packets[-1].error is not None
    assert protobuf.packets[-1].error.code == 107
    # a topic that promises nothing takes it as bytes
    protobuf.send_raw(_publish_bytes("t", b"\xff\xfe"))
    await passes(20)
    assert protobuf.packets[-1].publish is not None


def _publish_bytes(topic: str, data: bytes) -> bytes:
    import msgspec

    from tidewire.protocol.codecs import PROTOBUF
    from tidewire.protocol.packets import Command, PublishRequest

    command = Command(id=77, publish=PublishRequest(channel=topic, data=msgspec.Raw(data)))
    return PROTOBUF.join([PROTOBUF.write(command)])


@opens
async def test_line_ends_in_data_do_not_break_frames() -> None:
    house = await SessionHouse().start()
    reader, writer = await enter(house), await enter(house, codec="protobuf")
    await reader.ask(subscribe={"channel": "t"})
    writer.send_raw(_publish_bytes("t", b'{"a":\n\r\n 1}'))
    await passes(20)
    assert reader.told("t") == [{"a": 1}]
    for one in reader.frames:
        for line in one.payload.split(b"\n"):
            json.loads(line)


@opens
async def test_a_refused_connect_is_the_end() -> None:
    house = SessionHouse()

    async def nobody() -> None:
        from tidewire import Deny

        raise Deny("not today", status=401)

    house.site.hooks.declare("connect", nobody)
    await house.start()
    caller = Caller(house)
    assert await caller.connect() == {"error": 101, "message": "not today"}
    caller.send({"subscribe": {"channel": "t"}})
    await passes()
    assert caller.goodbye == (3501, "commands after a refused connect")
    # one that stays silent is not kept
    caller = Caller(house)
    await caller.connect()
    house.clock.advance(11)
    await passes()
    assert caller.goodbye == (3502, "stale")


@opens
async def test_a_denied_connect_is_closed() -> None:
    house = SessionHouse()

    async def nobody() -> None:
        from tidewire import Deny

        raise Deny("not today")

    house.site.hooks.declare("connect", nobody)
    await house.start()
    caller = Caller(house)
    caller.send({"connect": {}})
    await passes(20)
    assert caller.goodbye == (3507, "not today")


@opens
async def test_what_fails_in_a_command_is_no_end() -> None:
    house = SessionHouse()

    async def broken() -> None:
        raise LookupError("broken")

    house.declare("broken", broken)
    await house.start()
    caller = await enter(house)
    refused = await caller.ask(subscribe={"channel": "broken"})
    assert refused["error"] == 100
    assert "LookupError" not in refused["message"]
    assert "epoch" in await caller.ask(subscribe={"channel": "t"})
