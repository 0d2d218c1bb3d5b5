"""The reader against chance: any split of any valid stream gives the same; garbage gives a protocol close.

Two oracles: the list of what was encoded, and the ``websockets`` library's own reader.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Side
from websockets.protocol import State as TheirState
from websockets.server import ServerProtocol

from tests.wire.streams import (
    MAX_SIZE,
    Deflater,
    Stream,
    StreamMaker,
    read,
    some_split,
    some_stream,
)
from tidewire.wire.frames import Reader

SEEDS = range(6)
STREAMS_PER_SEED = 40
CODES = {1002, 1007, 1009}
DEFLATE = [None, (True, 15), (True, 9), (False, 15), (False, 9)]


def deflater_of(settings_: tuple[bool, int] | None) -> Deflater | None:
    return None if settings_ is None else Deflater(keeps_context=settings_[0], bits=settings_[1])


def reader_for(deflater: Deflater | None, *, masked: bool = True, max_size: int = MAX_SIZE) -> Reader:
    return Reader(max_size=max_size, masked=masked, extension=deflater.extension() if deflater else None)


def check(stream: Stream, reader: Reader, pieces: Sequence[bytes]) -> None:
    assert b"".join(pieces) == stream.data
    messages = list(read(reader, pieces))
    assert reader.failure is None
    assert messages == stream.messages
    assert [type(message) for message in messages] == [type(message) for message in stream.messages]
    assert reader.controls == stream.controls
    assert reader.close == stream.close


# Any split of any valid stream


@pytest.mark.parametrize("deflate", DEFLATE, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_any_split_of_any_stream_gives_what_was_encoded(seed: int, deflate: tuple[bool, int] | None) -> None:
    rng = random.Random(f"{seed} {deflate}")
    for number in range(STREAMS_PER_SEED):
        masked = rng.random() < 0.8
        deflater = deflater_of(deflate)
        stream = some_stream(rng, deflater, large=number % 5 == 0, masked=masked)
        for _ in range(3):
            check(stream, reader_for(deflater, masked=masked), some_split(rng, stream))


MESSAGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 300), st.sampled_from([4096, 65_535, 65_536, 65_537, 80_000])),
        st.integers(1, 6),
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(
    messages=MESSAGES,
    deflate=st.sampled_from(DEFLATE),
    seed=st.integers(0, 2**32),
    has_close=st.booleans(),
    data=st.data(),
)
def test_property_any_split_gives_what_was_encoded(
    messages: list[tuple[int, int, bool, bool]],
    deflate: tuple[bool, int] | None,
    seed: int,
    has_close: bool,
    data: st.DataObject,
) -> None:
    deflater = deflater_of(deflate)
    maker = StreamMaker(random.Random(seed), deflater)
    for size, fragments, is_text, compressed in messages:
        maker.message(size, fragments=fragments, is_text=is_text, compressed=compressed)
    if has_close:
        maker.close()
    stream = maker.done()
    places = sorted(data.draw(st.lists(st.integers(0, len(stream.data)), max_size=12)))
    pieces = [stream.data[a:b] for a, b in zip([0, *places], [*places, len(stream.data)], strict=True)]
    check(stream, reader_for(deflater), pieces)


@pytest.mark.parametrize("deflate", DEFLATE, ids=str)
def test_every_single_cut_of_a_stream_gives_the_same(deflate: tuple[bool, int] | None) -> None:
    deflater = deflater_of(deflate)
    maker = StreamMaker(random.Random(7), deflater)
    maker.message(40, fragments=3)
    maker.control()
    maker.message(130, is_text=False)
    maker.message(60, fragments=5, compressed=True)
    maker.message(0, fragments=3)
    maker.message(90, compressed=True)
    maker.close()
    stream = maker.done()
    for place in range(len(stream.data) + 1):
        check(stream, reader_for(deflater), [stream.data[:place], stream.data[place:]])


def test_every_cut_near_the_edges_of_a_large_frame_gives_the_same() -> None:
    maker = StreamMaker(random.Random(8))
    maker.message(70_001)
    maker.message(70_002, is_text=False)
    maker.message(5)
    stream = maker.done()
    for mark in [*stream.marks, len(stream.data)]:
        for place in range(max(0, mark - 5), min(len(stream.data), mark + 12)):
            for second in (place + 1, place + 3, place + 66_000):
                pieces = [stream.data[:place], stream.data[place:second], stream.data[second:]]
                check(stream, reader_for(None), pieces)


# Garbage


def assert_broken_well(reader: Reader, data: bytes, pieces: Sequence[bytes]) -> list[str | bytes]:
    """Feed ``pieces``: no exception comes out, a failure is one of three codes, and nothing is given after it."""
    found = list(read(reader, pieces))
    if reader.failure is not None:
        assert reader.close is None
        assert reader.failure.code in CODES
        assert 0 < len(reader.failure.reason.encode()) <= 123, "it has room in a close frame"
        before = list(reader.controls)
        assert reader.feed(b"\x81\x80\0\0\0\0" * 3 + b"\x89\x80\0\0\0\0") == []
        assert reader.controls == before
    return found


def garble(rng: random.Random, data: bytes) -> bytes:
    """Flip a bit, change, drop, repeat or insert a few bytes: mostly a stream, and somewhere not one."""
    garbled = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        # near the beginning frames are read, behind the first fault nothing is
        at = rng.randrange(min(len(garbled), 400) or 1)
        way = rng.randrange(5)
        if way == 0 and garbled:
            garbled[at] ^= 1 << rng.randrange(8)
        elif way == 1 and garbled:
            garbled[at] = rng.randrange(256)
        elif way == 2:
            del garbled[at : at + rng.randrange(1, 5)]
        elif way == 3:
            garbled[at:at] = garbled[at : at + rng.randrange(1, 30)]
        else:
            garbled[at:at] = rng.randbytes(rng.randrange(1, 5))
    return bytes(garbled)


def pure_garbage(rng: random.Random) -> bytes:
    """Random bytes; half of them begin like a frame."""
    head = b""
    if rng.random() < 0.5:
        head = bytes([rng.choice([0x81, 0x82, 0x01, 0x02, 0x88, 0x89, 0xC1]), 0x80 | rng.randrange(128)])
    return head + rng.randbytes(rng.randrange(600))


@pytest.mark.parametrize("deflate", DEFLATE, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_gives_a_protocol_close_and_nothing_else(seed: int, deflate: tuple[bool, int] | None) -> None:
    rng = random.Random(f"garbage {seed} {deflate}")
    failed = 0
    for number in range(STREAMS_PER_SEED * 3):
        deflater = deflater_of(deflate)
        is_large = number % 20 == 1
        data = pure_garbage(rng) if number % 4 == 0 else garble(rng, some_stream(rng, deflater, large=is_large).data)
        whole = reader_for(deflater)
        found = assert_broken_well(whole, data, [data])
        failed += whole.failure is not None
        # and the same, however it is cut: but what reaches back further than the window agreed on is found by zlib
        # when it does not have it any more, which is earlier when the pieces are small
        if deflater is not None and deflater.bits < 15:
            continue
        split = reader_for(deflater)
        assert assert_broken_well(split, data, some_split(rng, Stream(data, marks=[0, len(data) // 2]))) == found
        assert (split.close, split.controls) == (whole.close, whole.controls)
        assert (split.failure and split.failure.code) == (whole.failure and whole.failure.code)
    assert failed > STREAMS_PER_SEED, "most of it is garbage indeed"


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=300),
    deflate=st.sampled_from(DEFLATE),
    masked=st.booleans(),
    size=st.sampled_from([0, 5, 200]),
)
def test_property_garbage_gives_a_protocol_close(
    data: bytes, deflate: tuple[bool, int] | None, masked: bool, size: int
) -> None:
    reader = reader_for(deflater_of(deflate), masked=masked, max_size=size)
    found = assert_broken_well(reader, data, [data[at : at + 1] for at in range(len(data))])
    assert all(len(message if isinstance(message, bytes) else message.encode()) <= size for message in found)


# The websockets library


class Watched(PerMessageDeflate):
    """Their extension, which notes when a compressed stream has ended that the next message should go on with."""

    has_ended = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        try:
            return super().decode(frame, max_size=max_size)
        finally:
            decoder = getattr(self, "decoder", None)
            self.has_ended = self.has_ended or (decoder is not None and decoder.eof)


class Theirs:
    """The reader of ``websockets``, and what it makes of a stream: messages, and whether it was refused."""

    def __init__(self, deflater: Deflater | None) -> None:
        logger = logging.getLogger("tests.wire.theirs")
        logger.disabled = True
        self.protocol = ServerProtocol(state=TheirState.OPEN, max_size=MAX_SIZE, logger=logger)
        assert self.protocol.side is Side.SERVER
        self.extension = Watched(not deflater.keeps_context, False, deflater.bits, 15) if deflater else None
        # the message that is under way
        self._opcode = Opcode.BINARY
        self._payload = b""
        self.protocol.extensions = [self.extension] if self.extension else []

    def read(self, data: bytes) -> tuple[list[str | bytes], list[tuple[int, bytes]], int | None]:
        """Messages, control frames, and the code it refuses with, or None."""
        self.protocol.receive_data(data)
        messages: list[str | bytes] = []
        controls: list[tuple[int, bytes]] = []
        for event in self.protocol.events_received():
            if event.opcode in (Opcode.PING, Opcode.PONG):
                controls.append((int(event.opcode), bytes(event.data)))
            elif event.opcode is not Opcode.CLOSE:
                if event.opcode is not Opcode.CONT:
                    self._opcode, self._payload = event.opcode, b""
                self._payload += event.data
                if event.fin:
                    try:
                        messages.append(self._payload.decode() if self._opcode is Opcode.TEXT else self._payload)
                    except UnicodeDecodeError:
                        # their sans-I/O layer leaves text to the layer above, which fails just so
                        return messages, controls, 1007
        failed = self.protocol.parser_exc is not None and self.protocol.close_sent is not None
        return messages, controls, self.protocol.close_sent.code if failed and self.protocol.close_sent else None


@pytest.mark.parametrize("deflate", DEFLATE, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_websockets_reads_valid_streams_as_we_do(seed: int, deflate: tuple[bool, int] | None) -> None:
    rng = random.Random(f"theirs {seed} {deflate}")
    for number in range(STREAMS_PER_SEED):
        deflater = deflater_of(deflate)
        stream = some_stream(rng, deflater, large=number % 5 == 0)
        theirs = Theirs(deflater)
        assert theirs.read(stream.data) == (stream.messages, stream.controls, None)
        reader = reader_for(deflater)
        assert list(read(reader, some_split(rng, stream))) == stream.messages
        assert (reader.controls, reader.failure) == (stream.controls, None)


def explain(reader: Reader, theirs: Theirs, their_code: int | None) -> str:
    """Why the libraries differ about garbage; what is not in this list is a fault of one of them."""
    if reader.failure is None and their_code is not None:
        assert str(theirs.protocol.parser_exc) == "incomplete fragmented message"
        assert reader.close is not None
        return "a close frame may stand between fragments (RFC 6455 5.4); they refuse that"
    if reader.failure is not None and their_code is None:
        # a head, a fragment that is not UTF-8: they look once the frame, or the message, is whole; what follows
        # makes it so, and the message must never be one
        messages, _, later = theirs.read(bytes(70_000))
        assert messages == []
        assert later is not None
        return "we refuse what cannot become valid any more; they refuse it later"
    assert reader.failure is not None, "both fail, or both accept"
    return "several faults in one frame: the other one is told"


@pytest.mark.parametrize("deflate", DEFLATE, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_websockets_refuses_garbage_as_we_do(seed: int, deflate: tuple[bool, int] | None) -> None:
    rng = random.Random(f"their garbage {seed} {deflate}")
    for number in range(STREAMS_PER_SEED * 2):
        deflater = deflater_of(deflate)
        data = pure_garbage(rng) if number % 4 == 0 else garble(rng, some_stream(rng, deflater, large=False).data)
        reader = reader_for(deflater)
        messages = list(read(reader, [data]))
        theirs = Theirs(deflater)
        their_messages, their_controls, their_code = theirs.read(data)
        if theirs.extension is not None and theirs.extension.has_ended:
            # BFINAL (RFC 7692 7.2.3.4): they go on as if it had not been, and lose what comes behind it
            continue
        assert messages == their_messages
        if (reader.failure and reader.failure.code) != their_code:
            explain(reader, theirs, their_code)
        elif their_code is None:
            assert reader.controls == their_controls
            assert (reader.close is None) is (theirs.protocol.close_rcvd is None)
