"""Packets as Protobuf: the bytes that others write, every way to be wrong, and that nothing else comes of garbage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.packets import packets
from tidewire.errors import BadPacket
from tidewire.protocol import packets as p
from tidewire.protocol import protobuf

# what protoc's classes for client.proto write
KNOWN: list[tuple[p.Packet, str]] = [
    (p.Command(), ""),
    (p.Command(id=150, ping=p.PingRequest()), "08 96 01 5a 00"),
    (p.Command(id=1, connect=p.ConnectRequest(token="testing")), "08 01 22 09 0a 07 74 65 73 74 69 6e 67"),
    (p.Command(id=1, connect=p.ConnectRequest(flag=-1)), "08 01 22 0b 38 ff ff ff ff ff ff ff ff ff 01"),
    (p.Command(id=2, history=p.HistoryRequest(limit=-1)), "08 02 52 0b 38 ff ff ff ff ff ff ff ff ff 01"),
    (
        p.Command(id=3, connect=p.ConnectRequest(headers={"a": "b"}, subs={"t": p.SubscribeRequest(offset=300)})),
        "08 03 22 12 1a 08 0a 01 74 12 03 38 ac 02 32 06 0a 01 61 12 01 62",
    ),
    (
        p.Reply(push=p.Push(channel="t", pub=p.Publication(data=Raw(b"1"), offset=1))),
        "22 0a 12 01 74 22 05 22 01 31 30 01",
    ),
    (
        p.Reply(id=4, subscribe=p.SubscribeResult(publications=[p.Publication(), p.Publication(offset=9)])),
        "08 04 32 06 3a 00 3a 02 30 09",
    ),
]


@pytest.mark.parametrize(("packet", "known"), KNOWN, ids=[known for _, known in KNOWN])
def test_known_bytes(packet: p.Packet, known: str) -> None:
    assert protobuf.encode(packet).hex(" ") == known
    assert protobuf.decode(type(packet), bytes.fromhex(known)) == packet


@pytest.mark.parametrize("kind", [p.Command, p.Reply])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(kind: type[p.Packet], data: st.DataObject) -> None:
    packet = data.draw(packets(kind))
    assert protobuf.decode(kind, protobuf.encode(packet)) == packet


@pytest.mark.parametrize(
    ("value", "known"), [(0, "00"), (127, "7f"), (128, "80 01"), (150, "96 01"), (2**64 - 1, "ff " * 9 + "01")]
)
def test_numbers(value: int, known: str) -> None:
    assert protobuf.write_varint(value) == bytes.fromhex(known)
    assert protobuf.read_varint(bytes.fromhex("00" + known), 1) == (value, 1 + len(bytes.fromhex(known)))


def read(data: str) -> p.Command:
    return protobuf.decode(p.Command, bytes.fromhex(data))


def test_what_is_unknown_is_skipped() -> None:
    # a varint, 64 bits, a length and 32 bits, all of field 99; then the id
    assert read("98 06 05  99 06 0102030405060708  9a 06 02 ffff  9d 06 01020304  08 07") == p.Command(id=7)
    # the id as a string, and a request as a number
    assert read("0a 01 31 20 01 08 07") == p.Command(id=7)


def test_the_last_of_a_number_counts_and_messages_are_merged() -> None:
    assert read("08 01 08 02") == p.Command(id=2)
    # connect: token "a"; connect: name "b"; connect: token "c"
    merged = p.Command(connect=p.ConnectRequest(token="c", name="b"))
    assert read("22 03 0a 01 61  22 03 22 01 62  22 03 0a 01 63") == merged


def test_numbers_are_cut_to_their_width() -> None:
    # 2^32 + 5 for 32 bits (proto3, "Updating a message type")
    assert read("08 85 80 80 80 10") == p.Command(id=5)
    assert read("52 06 38 ff ff ff ff 0f") == p.Command(history=p.HistoryRequest(limit=-1))


def test_an_entry_of_a_map_may_lack_either_half_and_the_last_of_a_key_counts() -> None:
    assert read("22 02 32 00") == p.Command(connect=p.ConnectRequest(headers={"": ""}))
    assert read("22 05 32 03 12 01 62") == p.Command(connect=p.ConnectRequest(headers={"": "b"}))
    twice = "32 06 0a 01 61 12 01 62  32 06 0a 01 61 12 01 63"
    assert read("22 10 " + twice) == p.Command(connect=p.ConnectRequest(headers={"a": "c"}))
    assert read("22 05 1a 03 0a 01 61") == p.Command(connect=p.ConnectRequest(subs={"a": p.SubscribeRequest()}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("08", "a number ends behind its message"),
        ("08 80", "a number ends behind its message"),
        ("08 " + "80 " * 10 + "01", "a number has at most 10 bytes"),
        ("22", "a number ends behind its message"),
        ("22 05 0a", "a field ends behind its message"),
        ("22 ff ff ff ff ff ff ff ff ff 01", "a field ends behind its message"),
        ("22 02 0a 05", "a field ends behind its message"),
        ("22 03 0a 01 ff", "a string that is not UTF-8: byte 0"),
        ("22 05 32 03 0a 01 ff", "a string that is not UTF-8: byte 0"),
        ("0b", "wire type 3 is none of proto3"),
        ("0c", "wire type 4 is none of proto3"),
        ("0e", "wire type 6 is none of proto3"),
        ("00 01", "there is no field 0"),
        ("99 06 01", "a field ends behind its message"),
        ("2a 0b 38 ff ff ff ff ff ff ff ff ff 01", "offsets end at 9223372036854775807"),
    ],
)
def test_what_is_wrong_is_told(data: str, words: str) -> None:
    with pytest.raises(BadPacket) as error:
        read(data)
    assert str(error.value) == words


def test_messages_of_a_frame() -> None:
    frame = protobuf.encode_delimited(p.Command(id=1)) + b"\0" + protobuf.encode_delimited(p.Command(id=300))
    assert list(protobuf.split_delimited(frame)) == [b"\x08\x01", b"", b"\x08\xac\x02"]
    assert list(protobuf.split_delimited(b"")) == []
    with pytest.raises(BadPacket, match="a message ends behind its frame"):
        list(protobuf.split_delimited(frame[:-1]))


@pytest.mark.parametrize("seed", range(20))
def test_of_garbage_comes_a_packet_or_a_refusal(seed: int) -> None:
    rng = random.Random(seed)
    valid = protobuf.encode(KNOWN[5][0])
    for _ in range(300):
        data = bytearray(valid) if rng.random() < 0.7 else bytearray(rng.randbytes(rng.randrange(40)))
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)]
        for kind in (p.Command, p.Reply):
            try:
                packet = protobuf.decode(kind, bytes(data))
            except BadPacket:
                continue
            assert protobuf.decode(kind, protobuf.encode(packet)) == packet


def test_many_parts_of_one_message_cost_their_bytes_and_no_more() -> None:
    # joined one by one, they would cost 10^10 bytes of copying
    assert read("22 00 " * 200_000) == p.Command(connect=p.ConnectRequest())
