"""Packets in frames, in both forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.packets import packets
from tidewire.errors import BadPacket
from tidewire.protocol import packets as p
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec, choose_codec

CODECS = pytest.mark.parametrize("codec", [JSON, PROTOBUF], ids=lambda codec: codec.name)


def in_frame(codec: Codec, payload: bytes) -> str | bytes:
    return payload.decode() if codec.is_text else payload


@CODECS
@given(commands=st.lists(packets(p.Command), max_size=4), replies=st.lists(packets(p.Reply), max_size=4))
@settings(max_examples=100, deadline=None)
def test_many_in_one_frame(codec: Codec, commands: list[p.Command], replies: list[p.Reply]) -> None:
    frame = in_frame(codec, codec.join([codec.write(one) for one in commands]))
    assert list(codec.read_commands(frame)) == commands
    frame = in_frame(codec, codec.join([codec.write(one) for one in replies]))
    assert list(codec.read_replies(frame)) == replies


def test_json_as_sdks_write_and_read_it() -> None:
    (command,) = JSON.read_commands(
        '{"id":1,"subscribe":{"channel":"a","recover":true,"epoch":"e","offset":7,"new":1}}'
    )
    assert command == p.Command(id=1, subscribe=p.SubscribeRequest("a", recover=True, epoch="e", offset=7))
    assert command.request == command.subscribe
    # nothing at its default is sent, and an empty answer is there
    assert JSON.write(p.Reply(id=1, publish=p.PublishResult())) == b'{"id":1,"publish":{}}'
    assert JSON.write(p.Reply()) == b"{}"
    push = p.Reply(push=p.Push(channel="a", pub=p.Publication(data=Raw(b'{"x": 1}'), offset=3)))
    assert JSON.write(push) == b'{"push":{"channel":"a","pub":{"data":{"x": 1},"offset":3}}}'
    assert JSON.join([b"{}", b"{}"]) == b"{}\n{}"


def test_json_lines_may_be_empty_or_padded_when_they_come() -> None:
    assert [one.id for one in JSON.read_commands('\n{"id":1}\r\n\n  {"id":2} \n\n')] == [1, 2]
    assert list(JSON.read_commands(b'{"id":3}')) == [p.Command(id=3)]
    assert list(JSON.read_commands("")) == []


@CODECS
def test_the_answer_to_a_ping_is_empty(codec: Codec) -> None:
    pong = {"json": "{}", "protobuf": b"\0"}[codec.name]
    assert list(codec.read_commands(pong)) == [p.Command()]
    assert p.Command().request is None
    assert codec.join([codec.write(p.Reply())]) == (pong.encode() if isinstance(pong, str) else pong)


def test_the_first_request_counts() -> None:
    two = p.Command(id=1, rpc=p.RPCRequest(), connect=p.ConnectRequest(), send=p.SendRequest())
    assert two.request is two.connect
    (command,) = JSON.read_commands('{"id":1,"connect":null,"rpc":{},"publish":{}}')
    assert command.request is command.publish


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("x", "not a packet: JSON is malformed"),
        ("[]", "not a packet: Expected `object`, got `array`"),
        ('{"id":1}{"id":2}', "trailing characters"),
        ('{"id":-1}', "Expected `int` >= 0"),
        ('{"id":4294967296}', "Expected `int` <= 4294967295"),
        ('{"id":"1"}', "Expected `int`, got `str`"),
        ('{"rpc":[]}', "Expected `object | null`, got `array`"),
        ('{"rpc":{"data":{"a":}}}', "JSON is malformed"),
        ('{"subscribe":{"offset":9223372036854775808}}', "not a packet"),
        ('{"rpc":{"data":' + "[" * 100_000, "nested too deeply"),
        (b'{"id":1,"rpc":{"method":"\xff"}}', "JSON that is not UTF-8"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_json_that_is_wrong(frame: str | bytes, words: str) -> None:
    with pytest.raises(BadPacket) as error:
        list(JSON.read_commands(frame))
    assert words in str(error.value)


@CODECS
def test_what_comes_before_a_bad_packet_is_read(codec: Codec) -> None:
    good = codec.write(p.Command(id=1))
    bad = b"\nnope" if codec is JSON else b"\x05\x08"
    commands = codec.read_commands(in_frame(codec, good + bad))
    assert next(commands) == p.Command(id=1)
    with pytest.raises(BadPacket):
        next(commands)


def test_text_where_protobuf_was_agreed_on() -> None:
    with pytest.raises(BadPacket, match="a text frame"):
        list(PROTOBUF.read_commands("{}"))


@pytest.mark.parametrize(
    ("subprotocols", "query", "codec", "answer"),
    [
        ([], {}, JSON, None),
        (["centrifuge-protobuf"], {}, PROTOBUF, "centrifuge-protobuf"),
        (["other", "centrifuge-json"], {}, JSON, "centrifuge-json"),
        (["centrifuge-json", "centrifuge-protobuf"], {}, PROTOBUF, "centrifuge-protobuf"),
        ([], {"format": "protobuf"}, PROTOBUF, None),
        ([], {"cf_protocol": "protobuf"}, PROTOBUF, None),
        (["other"], {"format": "json"}, JSON, None),
    ],
)
def test_the_form_a_client_asks_for(
    subprotocols: list[str], query: dict[str, str], codec: Codec, answer: str | None
) -> None:
    assert choose_codec(subprotocols, query) == (codec, answer)
