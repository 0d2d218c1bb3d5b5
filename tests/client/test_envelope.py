"""What a WebSocket with positions says: good envelopes, and every kind of garbage."""

import json

import pytest

from tidewire.client.envelope import Ended, Envelope, Garbage, Header, Item, Lost, parse_envelope, parse_header
from tidewire.protocol import plain
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.position import Position

P5 = Position("aaaa", 5)
P9 = Position("aaaa", 9)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (plain.opened_frame(P5, None, 0), Header(P5, None, 0)),
        (plain.opened_frame(P5, True, 37), Header(P5, True, 37)),
        (plain.opened_frame(None, None, 0), Header(None, None, 0)),
        (plain.gap_frame(P5, P9), Lost(P5, P9)),
        (plain.gap_frame(None, P9), Lost(None, P9)),
        (plain.end_frame(P9, None), Ended(P9, None)),
        (plain.end_frame(None, "it broke"), Ended(None, "it broke")),
    ],
)
def test_reads_what_the_server_writes(frame: str, expected: Envelope) -> None:
    assert parse_envelope(frame) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message(b'{"a":1}', Kind.JSON, "aaaa", 5), Item({"a": 1}, "json", P5)),
        (Message(b"null", Kind.JSON, "aaaa", 5), Item(None, "json", P5)),
        (Message(b'"quoted"', Kind.JSON, "aaaa", 5), Item("quoted", "json", P5)),
        (Message("grüße".encode(), Kind.TEXT, "aaaa", 5), Item("grüße", "text", P5)),
        (Message(b"\x00\xff", Kind.BYTES, "aaaa", 5), Item(b"\x00\xff", "bytes", P5)),
        (Message(b"", Kind.BYTES, "aaaa", 5), Item(b"", "bytes", P5)),
        (Message(b"1", Kind.JSON), Item(1, "json", None)),
        (Message(b"1", Kind.JSON, "aaaa", 5, key="k"), Item(1, "json", P5, key="k")),
        (Message(b"", Kind.JSON, "aaaa", 5, key="k", removed=True), Item(None, "json", P5, key="k", removed=True)),
        (Message(b"1", Kind.JSON, "aaaa", 5, snapshot=True), Item(1, "json", P5, snapshot=True)),
    ],
)
def test_reads_messages_the_server_writes(message: Message, expected: Item) -> None:
    assert parse_envelope(plain.positions_frame(message)) == expected


def test_unknown_fields_are_for_later_servers() -> None:
    assert parse_envelope('{"position":"a:1","data":1,"colour":"blue"}') == Item(1, "json", Position("a", 1))


def test_gap_after_everything_kept_begins_nowhere() -> None:
    assert parse_envelope('{"gap":{"from":"-1","to":"a:3"}}') == Lost(None, Position("a", 3))


GARBAGE = [
    "",
    "hello",
    "[]",
    "{}",
    "null",
    '"text"',
    '{"position":"a:1"}',
    '{"position":1,"data":2}',
    '{"position":"no position","data":2}',
    '{"position":"a:-1","data":2}',
    '{"position":"a:99999999999999999999","data":2}',
    '{"position":"a:1","recovered":"yes","replayed":0}',
    '{"position":"a:1","recovered":true,"replayed":-1}',
    '{"position":"a:1","text":7}',
    '{"position":"a:1","base64":"no base64!"}',
    '{"position":"a:1","base64":"YQ"}',
    '{"gap":7}',
    '{"gap":{"from":"x","to":"y"}}',
    '{"end":true}',
    '{"position":"a:1","data":' + "[" * 100_000,
    '{"data":"\\ud800"',
]


@pytest.mark.parametrize("frame", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_told_shortly(frame: str) -> None:
    with pytest.raises(Garbage) as caught:
        parse_envelope(frame)
    assert 10 < len(str(caught.value)) < 400


def test_binary_frame_is_garbage() -> None:
    with pytest.raises(Garbage, match="binary frame"):
        parse_envelope(b'{"position":"a:1","data":1}')


@pytest.mark.parametrize("frame", ['{"position":"a:1","data":1}', plain.gap_frame(P5, P9), "tick", b"\x00"])
def test_first_frame_must_be_a_header(frame: str | bytes) -> None:
    with pytest.raises(Garbage):
        parse_header(frame)


def test_control_characters_of_a_stranger_are_not_poured_out() -> None:
    with pytest.raises(Garbage) as caught:
        parse_envelope("\x1b[2Jboo")
    assert "\x1b" not in str(caught.value)


def test_large_numbers_survive() -> None:
    item = parse_envelope(json.dumps({"position": "a:1", "data": 2**63 - 1}))
    assert isinstance(item, Item)
    assert item.data == 2**63 - 1
