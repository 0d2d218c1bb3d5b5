"""What the reader makes of each thing that a peer can do; and the frames that we write, read back by others."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State as TheirState
from websockets.streams import StreamReader
from websockets.uri import parse_uri

from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, split, xor
from tests.wire.streams import Deflater, Outcome, by_bytes, deflating
from tidewire.errors import Close
from tidewire.wire import frames
from tidewire.wire.frames import WHOLE_BYTES_MAX, Part, Reader

KIB = 1024
MIB = 1024 * KIB


# Messages


def test_the_examples_of_the_rfc() -> None:
    """RFC 6455 5.7: text, unmasked and masked, in two fragments, ping and pong, 256 bytes, 64 KiB."""
    assert Outcome(bytes.fromhex("8105 48656c6c6f"), masked=False).messages == ["Hello"]
    assert Outcome(bytes.fromhex("8185 37fa213d 7f9f4d5158")).messages == ["Hello"]
    assert Outcome(bytes.fromhex("0103 48656c 8002 6c6f"), masked=False).messages == ["Hello"]
    assert Outcome(bytes.fromhex("8905 48656c6c6f"), masked=False).controls == [(PING, b"Hello")]
    assert Outcome(bytes.fromhex("8a85 37fa213d 7f9f4d5158")).controls == [(PONG, b"Hello")]
    for head, size in ((bytes.fromhex("827e0100"), 256), (bytes.fromhex("827f0000000000010000"), 65_536)):
        assert Outcome(head + b"x" * size, masked=False).messages == [b"x" * size]


def test_the_examples_of_the_rfc_on_compression() -> None:
    """RFC 7692 7.2.3: one block, a shared window, no compression, BFINAL, two blocks; fragments."""
    hello = "f248cdc9c90700"
    keeps = {"masked": False, **deflating()}
    assert Outcome(bytes.fromhex(f"c107 {hello}"), **keeps).messages == ["Hello"]
    assert Outcome(bytes.fromhex("4103 f248cd 8004 c9c90700"), masked=False, **deflating()).messages == ["Hello"]
    again = bytes.fromhex(f"c107 {hello} c105 f200110000")
    assert Outcome(again, masked=False, **deflating()).messages == ["Hello", "Hello"]
    assert Outcome(bytes.fromhex("c10b 000500faff48656c6c6f00"), masked=False, **deflating()).messages == ["Hello"]
    assert Outcome(bytes.fromhex("c108 f348cdc9c9070000"), masked=False, **deflating()).messages == ["Hello"]
    assert Outcome(bytes.fromhex("c10d f2480500 0000ffff cac9c90700"), masked=False, **deflating()).messages == [
        "Hello"
    ]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 300_000])
def test_a_frame_of_any_size_is_read(size: int, masked: bool) -> None:
    payload = random.Random(size).randbytes(size)
    data = frame(BINARY, payload, mask=b"\x01\x80\xff\x3c", masked=masked)
    assert Outcome(data, data, masked=masked).messages == [payload, payload]


@pytest.mark.parametrize("size", range(9))
def test_a_large_frame_keeps_its_mask_however_it_is_cut(size: int) -> None:
    payload = random.Random(1).randbytes(70_000)
    data = frame(BINARY, payload, mask=b"\x01\x80\xff\x3c")
    cut = 14 + size
    assert Outcome(data[:cut], data[cut : cut + 5], data[cut + 5 :]).messages == [payload]


def test_a_length_need_not_have_its_shortest_form() -> None:
    """5.2 asks it of who sends; nothing is gained by refusing it, and ``websockets`` reads it as well."""
    for head in (b"\x82\xfe\x00\x03", b"\x82\xff" + bytes(7) + b"\x03"):
        assert Outcome(head + bytes(4) + b"abc", *by_bytes(head + bytes(4) + b"def")).messages == [b"abc", b"def"]


def test_a_small_frame_is_given_whole_and_of_a_larger_one_every_piece_at_once() -> None:
    reader = Reader(max_size=MIB)
    small = frame(TEXT, b"x" * WHOLE_BYTES_MAX)
    assert reader.feed(small[:-1]) == []
    assert reader.feed(small[-1:]) == ["x" * WHOLE_BYTES_MAX]
    large = frame(BINARY, b"x" * (WHOLE_BYTES_MAX + 1))
    assert reader.feed(large[:14]) == []
    assert reader.feed(large[14:20]) == [Part(b"x" * 6, False)]
    assert reader.feed(large[20:]) == [Part(b"x" * (WHOLE_BYTES_MAX - 5), True)]
    assert reader.feed(large) == [b"x" * (WHOLE_BYTES_MAX + 1)]


def test_fragments_are_given_as_they_come_and_text_is_cut_between_characters() -> None:
    reader = Reader(max_size=MIB)
    assert reader.feed(frame(TEXT, b"caf\xc3", fin=False)) == [Part("caf", False)]
    assert reader.feed(frame(PING, b"?") + frame(CONTINUATION, b"", fin=False)) == []
    assert reader.feed(frame(CONTINUATION, b"\xa9!", fin=False)) == [Part("é!", False)]
    assert reader.feed(frame(CONTINUATION)) == [Part("", True)]
    assert reader.controls == [(PING, b"?")]


def test_what_is_fragmented_and_empty_but_for_the_end_is_a_whole_message() -> None:
    empty = frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 3
    reader = Reader(max_size=MIB)
    assert reader.feed(empty + frame(CONTINUATION, b"end")) == ["end"]
    assert reader.feed(empty + frame(CONTINUATION)) == [""]


def test_a_message_after_a_fragmented_one_is_of_its_own_kind() -> None:
    parts = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
    found = Outcome(parts + frame(BINARY, b"c") + parts + frame(BINARY, b"d", fin=False) + frame(CONTINUATION, b"\xff"))
    assert found.messages == ["ab", b"c", "ab", b"d\xff"]


def test_messages_that_are_not_compressed_are_taken_where_compression_was_agreed_on() -> None:
    deflater = Deflater(keeps_context=True)
    packed = frame(TEXT, deflater.deflate(b"hello"), reserved=4)
    plain = frame(TEXT, b"pl", fin=False) + frame(CONTINUATION, b"ain")
    found = Outcome(packed, plain, frame(TEXT, b"p"), packed[:3], packed[3:], **deflating())
    assert found.messages == ["hello", "plain", "p", "hello"]


# Faults of single frames

HEADS = [first << 8 | second for first in range(256) for second in (0x00, 0x05, 0x7E, 0x80, 0x85, 0xFE, 0xFF)]


def is_wrong(first: int, second: int, *, masked: bool, deflates: bool) -> bool:
    """What RFC 6455 5.2 to 5.5 says of a head at the beginning of a stream."""
    opcode, fin, reserved, length = first & 15, first >> 7, first >> 4 & 7, second & 127
    if reserved and not (reserved == 4 and deflates and opcode in (TEXT, BINARY)):
        return True
    if opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
        return True
    return bool(opcode >= 8 and (not fin or length > 125)) or bool(second >> 7) is not masked


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("deflates", [True, False])
def test_every_head_is_judged_at_once_by_its_two_bytes(masked: bool, deflates: bool) -> None:
    """Every opcode, every reserved bit, masks missing where they must be and there where they must not."""
    for head in HEADS:
        first, second = head >> 8, head & 255
        found = Outcome(head.to_bytes(2), masked=masked, **(deflating() if deflates else {}))
        assert found.code == (1002 if is_wrong(first, second, masked=masked, deflates=deflates) else None), hex(head)


INSIDE = {
    "a new message inside of another one": frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "and of another kind": frame(BINARY, b"x", fin=False) + frame(TEXT, b"y", fin=False),
    "a continuation after the end": frame(TEXT, b"x", fin=False) + frame(CONTINUATION) + frame(CONTINUATION, b"y"),
    "a continuation of a whole message": frame(TEXT, b"x") + frame(CONTINUATION, b"y"),
    "one without a mask among others": frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", masked=False),
    "a reserved bit on a continuation": frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", reserved=4),
    "a fragmented ping inside": frame(TEXT, b"x", fin=False) + frame(PING, b"y", fin=False),
}


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("deflates", [True, False])
def test_faults_between_fragments(name: str, deflates: bool) -> None:
    found = Outcome(INSIDE[name], frame(TEXT, b"never"), **(deflating() if deflates else {}))
    assert found.code == 1002
    assert "never" not in found.messages


def test_what_was_whole_before_a_fault_is_given_and_nothing_after_it() -> None:
    bad = frame(TEXT, b"good") + frame(PING, b"1") + frame(3) + frame(TEXT, b"never") + frame(PING, b"2")
    found = Outcome(bad, frame(TEXT, b"never"))
    assert (found.messages, found.controls, found.code) == (["good"], [(PING, b"1")], 1002)


# Closing (5.5.1, 7.4)

MAY_CLOSE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
MAY_NOT_CLOSE = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@pytest.mark.parametrize("code", MAY_CLOSE)
def test_a_close_frame_is_read_and_nothing_behind_it(code: int) -> None:
    found = Outcome(frame(CLOSE, close_payload(code, "añb")) + frame(TEXT, b"never"), frame(PING) + frame(3))
    assert (found.close, found.messages, found.controls, found.code) == (Close(code, "añb"), [], [], None)


@pytest.mark.parametrize("code", MAY_NOT_CLOSE)
def test_a_close_code_that_no_peer_may_send(code: int) -> None:
    found = Outcome(frame(CLOSE, close_payload(code)))
    assert (found.close, found.code) == (None, 1002)


@pytest.mark.parametrize(
    ("payload", "close", "code"),
    [
        (b"", Close(1005, ""), None),
        (b"\x03", None, 1002),
        (b"\x03\xe8" + b"x" * 123, Close(1000, "x" * 123), None),
        (b"\x03\xe8\xff", None, 1007),
        (b"\x03\xe8\xc3", None, 1007),
        (b"\x03\xe8\xed\xa0\x80", None, 1007),
    ],
    ids=str,
)
def test_what_a_close_frame_may_carry(payload: bytes, close: Close | None, code: int | None) -> None:
    found = Outcome(*by_bytes(frame(CLOSE, payload)))
    assert (found.close, found.code) == (close, code)


def test_a_close_frame_may_stand_between_fragments_and_ends_them() -> None:
    found = Outcome(frame(TEXT, b"x", fin=False) + frame(CLOSE) + frame(CONTINUATION, b"y"))
    assert (found.messages, found.close, found.code) == ([], Close(1005), None)


# UTF-8

NOT_UTF8 = [
    b"\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xc3\x28", b"\xe0\x80\xaf", b"\xe2\x28\xa1", b"\xf0\x80\x80\xaf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",
    b"\xed\xa0\x80", b"\xed\xbf\xbf",
]  # fmt: skip
GOOD = "κόσμε".encode()


@pytest.mark.parametrize("bad", NOT_UTF8, ids=bytes.hex)
def test_text_that_is_not_utf8_is_refused_in_one_frame_and_in_fragments(bad: bytes) -> None:
    assert Outcome(frame(TEXT, GOOD + bad)).code == 1007
    text = GOOD + bad + GOOD
    for place in range(len(text)):
        cut = frame(TEXT, text[:place], fin=False) + frame(CONTINUATION, text[place:])
        assert Outcome(cut).code == 1007
    assert Outcome(frame(BINARY, text)).messages == [text]


@pytest.mark.parametrize("unfinished", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"], ids=bytes.hex)
def test_text_that_ends_inside_of_a_character_is_refused(unfinished: bytes) -> None:
    assert Outcome(frame(TEXT, GOOD + unfinished)).code == 1007
    assert Outcome(frame(TEXT, GOOD + unfinished, fin=False) + frame(CONTINUATION)).code == 1007
    assert Outcome(frame(TEXT, b"x" * 70_000 + unfinished)).code == 1007
    assert Outcome(*by_bytes(frame(TEXT, b"x" * 70_000 + unfinished))).code == 1007
    assert Outcome(frame(TEXT, GOOD + unfinished, fin=False)).code is None


def when_refused(reader: Reader, pieces: Iterable[bytes]) -> int:
    """After how many pieces the reader has had enough."""
    for number, piece in enumerate(pieces, 1):
        reader.feed(piece)
        if reader.failure is not None:
            assert reader.failure.code == 1007
            return number
    raise AssertionError("all of it was taken")


# the bytes of each that may still become a character; CPython's decoder takes one more of a surrogate
EARLY = [(b"\xf4\x90\x80\x80", 1), (b"\xff", 0), (b"\xc0\xaf", 0), (b"\xe0\x80\xaf", 1), (b"\xed\xa0\x80", 2)]


@pytest.mark.parametrize(("bad", "good"), EARLY, ids=str)
def test_fragments_are_refused_at_the_first_byte_that_cannot_be(bad: bytes, good: int) -> None:
    """As Autobahn 6.4.1 and 6.4.2 do: fragments of one byte, and more to come."""
    text = GOOD + bad + GOOD
    pieces = [frame(TEXT, text[:1], fin=False), *(frame(CONTINUATION, byte, fin=False) for byte in by_bytes(text[1:]))]
    assert when_refused(Reader(max_size=MIB), pieces) == len(GOOD) + good + 1


@pytest.mark.parametrize(("bad", "good"), EARLY, ids=str)
def test_a_large_frame_is_refused_at_the_first_byte_that_cannot_be(bad: bytes, good: int) -> None:
    """As Autobahn 6.4.3 does: one frame, byte by byte, most of which has not come."""
    data = frame(TEXT, GOOD + bad, length=100_000)
    assert when_refused(Reader(max_size=MIB), by_bytes(data)) == 14 + len(GOOD) + good + 1


def test_compressed_text_is_refused_as_early() -> None:
    deflater = Deflater(keeps_context=True)
    reader = Reader(max_size=MIB, extension=deflater.extension())
    packed = zlib.compressobj(wbits=-15)
    first = packed.compress(GOOD + b"\xff") + packed.flush(zlib.Z_SYNC_FLUSH)
    assert reader.feed(frame(TEXT, first, fin=False, reserved=4)) == []
    assert reader.failure is not None
    assert reader.failure.code == 1007


# Writing


def read_back(data: bytes) -> Frame:
    """By the parser of ``websockets``; nothing may be left over."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert not reader.buffer, "nothing is left over"
    found = done.value.value
    assert isinstance(found, Frame)
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize(("first", "opcode"), [(0x81, Opcode.TEXT), (0x82, Opcode.BINARY)])
def test_a_frame_reads_back(size: int, first: int, opcode: Opcode) -> None:
    payload = bytes(n % 251 for n in range(size))
    found = read_back(frames.frame(first, payload))
    assert (found.opcode, found.fin, bytes(found.data)) == (opcode, True, payload)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_length_has_its_shortest_form(size: int) -> None:
    assert frames.frame(0x82, b"x" * size) == Frame(Opcode.BINARY, b"x" * size).serialize(mask=False)
    assert frames.frame(0x82, b"x" * size) == frames.head(0x82, size) + b"x" * size


@pytest.mark.parametrize("message", ["", "café", b"", b"\xff\x00", "x" * 70_000])
def test_a_message_reads_back(message: str | bytes) -> None:
    found = read_back(frames.message_frame(message))
    is_text = isinstance(message, str)
    assert found.opcode is (Opcode.TEXT if is_text else Opcode.BINARY)
    assert (bytes(found.data).decode() if is_text else bytes(found.data)) == message


def test_control_frames_read_back() -> None:
    assert frames.ping_frame(b"x" * 125) == Frame(Opcode.PING, b"x" * 125).serialize(mask=False)
    assert frames.pong_frame(b"") == Frame(Opcode.PONG, b"").serialize(mask=False)
    assert frames.close_frame(Close(1005)) == Frame(Opcode.CLOSE, b"").serialize(mask=False)
    payload = close_payload(3001, "grüße")
    assert frames.close_frame(Close(3001, "grüße")) == Frame(Opcode.CLOSE, payload).serialize(mask=False)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "x" * 5000])
def test_a_reason_that_does_not_fit_is_cut_between_characters(reason: str) -> None:
    (found,), rest = split(frames.close_frame(Close(1008, reason)))
    assert rest == b""
    code, shown = found.close
    assert code == 1008
    assert shown[:-3] and reason.startswith(shown[:-3])
    assert len(found.payload) <= 125


@pytest.mark.parametrize("code", [0, 999, 1006, 1015, 2000, 5000, 65_536, -1])
def test_a_code_that_may_not_be_sent_is_an_error_of_who_sends_it(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        frames.close_frame(Close(code))


def client_of(*, keeps_context: bool) -> ClientProtocol:
    """The ``websockets`` library as the peer, with permessage-deflate."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), state=TheirState.OPEN, max_size=None)
    protocol.extensions = [extension(keeps_context=keeps_context)]
    return protocol


def extension(*, keeps_context: bool) -> PerMessageDeflate:
    return PerMessageDeflate(not keeps_context, not keeps_context, 15, 15)


@pytest.mark.parametrize("keeps_context", [True, False])
def test_compressed_messages_and_fragments_read_back(keeps_context: bool) -> None:
    ours = extension(keeps_context=keeps_context)
    client = client_of(keeps_context=keeps_context)
    noise = random.Random(6).randbytes(70_000)
    messages: list[str | bytes] = ["", "hello " * 20, "hello " * 20, b"", noise, "grüße", b"x" * 100_000]
    for message in messages:
        client.receive_data(frames.compressed_message(ours, message))
        (event,) = client.events_received()
        assert isinstance(event, Frame)
        assert (event.data.decode() if isinstance(message, str) else event.data) == message
        assert event.opcode is (Opcode.TEXT if isinstance(message, str) else Opcode.BINARY)
    for pieces in (["gr", "ü", "", "ße" * 200], [b"", noise, b"\x00"], ["only"]):
        for number, piece in enumerate(pieces):
            last = len(pieces) - 1
            data = frames.fragment(piece, ours, is_first=number == 0, is_last=number == last)  # type: ignore[arg-type]
            client.receive_data(data)
        events: list[Any] = client.events_received()
        found = b"".join(event.data for event in events)
        assert found == b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
        assert [event.fin for event in events] == [False] * (len(pieces) - 1) + [True]
        assert [event.opcode for event in events][1:] == [Opcode.CONT] * (len(pieces) - 1)
        assert events[0].opcode is (Opcode.TEXT if isinstance(pieces[0], str) else Opcode.BINARY)
    assert client.parser_exc is None


def test_fragments_without_compression_read_back() -> None:
    written = [
        frames.fragment("gr", None, is_first=True, is_last=False),
        frames.fragment("üße", None, is_first=False, is_last=False),
        frames.fragment("", None, is_first=False, is_last=True),
        frames.fragment(b"one", None, is_first=True, is_last=True),
    ]
    found = [read_back(data) for data in written]
    expected = [(Opcode.TEXT, False), (Opcode.CONT, False), (Opcode.CONT, True), (Opcode.BINARY, True)]
    assert [(one.opcode, one.fin) for one in found] == expected
    assert Outcome(*written, masked=False).messages == ["grüße", b"one"]


def test_what_we_write_our_own_reader_takes_as_a_client() -> None:
    written = frames.message_frame("x" * 70_000) + frames.ping_frame(b"1") + frames.close_frame(Close(1001, "bye"))
    found = Outcome(*by_bytes(written), masked=False)
    assert (found.messages, found.controls, found.close) == (["x" * 70_000], [(PING, b"1")], Close(1001, "bye"))


def test_the_helpers_of_these_tests_mask_as_the_rfc_does() -> None:
    assert xor(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")
    assert frame(TEXT, b"Hello", mask=bytes.fromhex("37fa213d")) == bytes.fromhex("8185 37fa213d 7f9f4d5158")
