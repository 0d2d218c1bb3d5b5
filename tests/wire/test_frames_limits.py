"""The reader under its limits: how large, how many, how much work and memory; compressed or not; and assembling."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.wire.frames import BINARY, CONTINUATION, TEXT, frame
from tests.wire.streams import Deflater, Outcome, by_bytes, deflating, read
from tidewire.errors import Close
from tidewire.limits import FRAGMENTS_MAX
from tidewire.wire.frames import WHOLE_BYTES_MAX, Assembler, Part, Reader

KIB = 1024
MIB = 1024 * KIB


# Limits


@pytest.mark.parametrize("limit", [0, 1, 125, 126, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_has_the_limit_and_not_one_byte_more(limit: int, opcode: int) -> None:
    exact, over = b"x" * limit, b"x" * (limit + 1)
    expected: Any = exact if opcode == BINARY else exact.decode()
    for mask in (bytes(4), b"\x01\x02\x03\x04"):
        assert Outcome(frame(opcode, exact, mask=mask), max_size=limit).messages == [expected]
        found = Outcome(frame(opcode, over, mask=mask), max_size=limit)
        assert (found.messages, found.code) == ([], 1009)
    assert Outcome(frame(opcode, exact, masked=False), max_size=limit, masked=False).messages == [expected]
    assert Outcome(frame(opcode, over, masked=False), max_size=limit, masked=False).code == 1009


@pytest.mark.parametrize("limit", [1, 126, 70_000])
@pytest.mark.parametrize("pieces", [2, 3])
def test_fragments_have_the_limit_together(limit: int, pieces: int) -> None:
    share = limit // pieces
    begun = frame(BINARY, b"x" * share, fin=False) + frame(CONTINUATION, b"x" * share, fin=False) * (pieces - 2)
    rest = limit - share * (pieces - 1)
    exact, over = frame(CONTINUATION, b"x" * rest), frame(CONTINUATION, b"x" * (rest + 1))
    # a second message begins from nothing
    assert Outcome(begun + exact, begun + exact, max_size=limit).messages == [b"x" * limit] * 2
    found = Outcome(begun + over, max_size=limit)
    assert (found.messages, found.code) == ([], 1009)
    # told by its head, before any of it has come
    assert Outcome(begun + over[: len(over) - rest - 1], max_size=limit).code == 1009


@pytest.mark.parametrize("keeps_context", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 1000, 65_536, 200_000])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_the_limit_is_one_of_inflated_bytes(limit: int, keeps_context: bool, kind: str) -> None:
    def packed(size: int) -> bytes:
        payload = bytes(size) if kind == "zeros" else random.Random(size).randbytes(size)
        return Deflater(keeps_context=keeps_context).deflate(payload)

    exact, over = packed(limit), packed(limit + 1)
    pieces = [(0, len(exact) // 2), (len(exact) // 2, None)]
    cut = [exact[begin:end] for begin, end in pieces]
    fragments = frame(BINARY, cut[0], fin=False, reserved=4) + frame(CONTINUATION, cut[1])
    options = {"max_size": limit, **deflating(keeps_context=keeps_context)}
    (message,) = Outcome(frame(BINARY, exact, reserved=4), **options).messages
    assert len(message) == limit
    (message,) = Outcome(fragments, max_size=limit, **deflating(keeps_context=keeps_context)).messages
    assert len(message) == limit
    too_large = frame(BINARY, over, reserved=4)
    for way in ([too_large], by_bytes(too_large)):
        found = Outcome(*way, max_size=limit, **deflating(keeps_context=keeps_context))
        assert (found.messages, found.code) == ([], 1009)


def test_a_compressed_message_after_another_has_the_whole_limit_again() -> None:
    deflater = Deflater(keeps_context=True)
    packed = [frame(BINARY, deflater.deflate(bytes(1000)), reserved=4) for _ in range(5)]
    assert Outcome(*packed, max_size=1000, **deflating()).messages == [bytes(1000)] * 5


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_a_length_of_64_bits_is_against_the_protocol(opcode: int, length: int) -> None:
    found = Outcome(frame(opcode, length=length), max_size=2**70)
    assert found.code == 1002


@pytest.mark.parametrize("length", [MIB + 1, 2**31, 2**32, 2**62, 2**63 - 1])
@pytest.mark.parametrize("masked", [True, False])
def test_a_length_over_the_limit_is_refused_by_the_head_alone(length: int, masked: bool) -> None:
    head = frame(BINARY, length=length, masked=masked)[:10]
    found = Outcome(*by_bytes(head), masked=masked)
    assert found.code == 1009
    assert str(length) in str(found.reader.failure)


def test_fragments_have_a_limit_of_their_own() -> None:
    options = {"fragments_max": 5}
    begun = frame(TEXT, b"", fin=False)
    more = frame(CONTINUATION, b"", fin=False)
    five = begun + more * 3 + frame(CONTINUATION)
    assert Outcome(five, five, **options).messages == ["", ""]
    assert Outcome(begun + more * 4, **options).code is None
    assert Outcome(begun + more * 5, **options).code == 1009
    assert Outcome(begun + more * 4 + frame(CONTINUATION), **options).code == 1009
    # whole messages are not fragments
    assert Outcome(frame(TEXT, b"x") * 10, **options).code is None


# Work and memory


def test_a_frame_that_comes_byte_by_byte_is_joined_a_few_times_and_not_for_each_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every join is followed by a look at the frames: as many looks as there are steps in reading a frame."""
    looks = []
    read_frames = Reader._read_frames

    def counted(reader: Reader, data: bytes, at: int, messages: Any) -> int:
        looks.append(len(data))
        return read_frames(reader, data, at, messages)

    monkeypatch.setattr(Reader, "_read_frames", counted)
    for payload, opcode, fin in ((b"x" * WHOLE_BYTES_MAX, TEXT, True), (b"x" * 65_000, BINARY, False)):
        looks.clear()
        data = frame(opcode, payload, fin=fin)
        reader = Reader(max_size=MIB)
        for byte in by_bytes(data):
            reader.feed(byte)
        assert len(looks) <= 5
        assert sum(looks) <= len(data) + 40


def test_pieces_of_a_large_frame_are_given_and_not_held() -> None:
    """A byte is given when it has come; nothing is joined or looked at again."""
    size = 1 * MIB
    reader = Reader(max_size=size)
    data = frame(BINARY, bytes(size))
    given = 0
    for byte in by_bytes(data):
        given += sum(len(message.data) for message in reader.feed(byte) if isinstance(message, Part))
        assert reader._held is None or reader._held_bytes < 14
    assert given == size


def peak_of(work: Iterator[object]) -> int:
    """The most memory that was held while ``work`` went on, in bytes."""
    tracemalloc.start()
    try:
        for _ in work:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(("size", "piece"), [(256 * KIB, 1), (1 * MIB, 7), (16 * MIB, 64 * KIB)])
def test_a_message_costs_a_small_multiple_of_itself(opcode: int, size: int, piece: int) -> None:
    """However it is cut: the smaller ones stand for 16 MiB, tracemalloc looks at every piece."""
    data = frame(opcode, b"x" * size)
    pieces = (data[at : at + piece] for at in range(0, len(data), piece))
    found: list[str | bytes] = []

    def work() -> Iterator[None]:
        for message in read(Reader(max_size=size), pieces):
            found.append(message)
            yield

    peak = peak_of(work())
    assert [len(message) for message in found] == [size]
    assert peak < 2.5 * size + 512 * KIB


def test_lengths_that_are_announced_and_never_sent_cost_nothing() -> None:
    def work() -> Iterator[Reader]:
        readers = []
        for _ in range(100):
            reader = Reader(max_size=2**40)
            for message in reader.feed(frame(BINARY, b"x", length=2**39)):
                assert message == Part(b"x", False)
            readers.append(reader)
            yield reader

    assert peak_of(work()) < 256 * KIB


def test_endless_empty_fragments_cost_nothing_and_end() -> None:
    fragments = frame(CONTINUATION, b"", fin=False) * 1000
    reader = Reader(max_size=MIB)
    reader.feed(frame(TEXT, b"", fin=False))

    def work() -> Iterator[None]:
        while reader.failure is None:
            assert reader.feed(fragments) == []
            yield

    assert peak_of(work()) < 64 * KIB
    assert reader.failure == Close(1009, f"a message of more than {FRAGMENTS_MAX} fragments")


def bomb(size: int) -> bytes:
    """So many zeros, compressed to a thousandth: the same block again and again."""
    packer = zlib.compressobj(level=9, wbits=-15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // MIB) + b"\x00"


@pytest.mark.parametrize("piece", [2 * MIB, 4096])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_bomb_of_a_gibibyte_in_a_mebibyte_is_refused(opcode: int, piece: int) -> None:
    packed = bomb(1024 * MIB)
    assert len(packed) < 1.1 * MIB
    data = frame(opcode, packed, reserved=4)
    reader = Reader(max_size=4 * MIB, extension=Deflater(keeps_context=True).extension())
    assembler = Assembler()

    def work() -> Iterator[None]:
        for at in range(0, len(data), piece):
            for message in reader.feed(data[at : at + piece]):
                assert isinstance(message, Part)
                assert assembler.add(message) is None
            yield

    assert peak_of(work()) < 4 * 4 * MIB
    assert reader.failure is not None
    assert reader.failure.code == 1009
    assert str(4 * MIB) in reader.failure.reason


def test_a_bomb_in_fragments_is_refused() -> None:
    packed = bomb(64 * MIB)
    reader = Reader(max_size=MIB, extension=Deflater(keeps_context=True).extension())
    reader.feed(frame(TEXT, packed[:100], fin=False, reserved=4))

    def work() -> Iterator[None]:
        for at in range(100, len(packed), 100):
            reader.feed(frame(CONTINUATION, packed[at : at + 100], fin=False))
            yield

    assert peak_of(work()) < 4 * MIB
    assert reader.failure is not None
    assert reader.failure.code == 1009


def ended(payload: bytes) -> bytes:
    """A message whose last block says that it is the last (RFC 7692 7.2.3.4)."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(payload) + packer.flush(zlib.Z_FINISH) + b"\x00"


@pytest.mark.parametrize("keeps_context", [True, False])
def test_messages_may_each_end_their_compressed_stream(keeps_context: bool) -> None:
    """Who has no other way of flushing does it so (RFC 7692 7.2.3.4)."""
    text = "hello hello hello"
    data = frame(TEXT, ended(text.encode()), reserved=4)
    cut = frame(TEXT, ended(b"y" * 10)[:-3], reserved=4, fin=False) + frame(CONTINUATION, ended(b"y" * 10)[-3:])
    options = deflating(keeps_context=keeps_context)
    assert Outcome(data, data, cut, data, cut, **options).messages == [text, text, "y" * 10, text, "y" * 10]
    noise = random.Random(3).randbytes(100_000)
    for place in (1, 5, 66_000):
        large = frame(BINARY, ended(noise), reserved=4)
        whole = [large[: len(large) - place], large[len(large) - place :]]
        assert Outcome(*whole, *whole, **deflating(keeps_context=keeps_context)).messages == [noise, noise]


@pytest.mark.parametrize("keeps_context", [True, False])
def test_what_stands_behind_the_end_of_a_compressed_stream_is_not_stored(keeps_context: bool) -> None:
    """zlib keeps what it was given too much of, for ever."""
    reader = Reader(max_size=MIB, extension=Deflater(keeps_context=keeps_context).extension())
    junk = random.Random(4).randbytes(60_000)

    def work() -> Iterator[None]:
        reader.feed(frame(BINARY, ended(b"x"), fin=False, reserved=4))
        for _ in range(200):
            reader.feed(frame(CONTINUATION, junk, fin=False))
            yield

    assert peak_of(work()) < 2 * MIB
    assert reader.failure is not None
    assert reader.failure.code == 1002


def test_messages_behind_the_end_of_a_compressed_stream_are_not_lost_and_not_stored() -> None:
    reader = Reader(max_size=MIB, extension=Deflater(keeps_context=True).extension())
    noise = random.Random(5).randbytes(60_000)
    found: list[str | bytes] = list(read(reader, [frame(BINARY, ended(b"x"), reserved=4)]))
    deflater = Deflater(keeps_context=False)

    def work() -> Iterator[None]:
        for _ in range(100):
            for message in read(reader, [frame(BINARY, deflater.deflate(noise), reserved=4)]):
                assert message == noise
                found.append(b"y")
            yield

    assert peak_of(work()) < 2 * MIB
    assert (found, reader.failure) == ([b"x"] + [b"y"] * 100, None)


@pytest.mark.parametrize("junk", [b"\xff" * 20, b"\x07\x00" * 40_000], ids=["small", "large"])
def test_what_cannot_be_inflated_is_refused(junk: bytes) -> None:
    found = Outcome(frame(BINARY, junk, reserved=4), frame(TEXT, b"never"), **deflating())
    assert (found.messages, found.code) == ([], 1002)


# Assembler


def assemble(parts: Iterable[Part]) -> list[str | bytes]:
    assembler = Assembler()
    return [whole for part in parts if (whole := assembler.add(part)) is not None]


@pytest.mark.parametrize("sizes", [[0], [1], [5, 0, 5000, 1, 4096, 4095], [3] * 10_000, [5000] * 50])
def test_pieces_are_joined_in_order(sizes: list[int]) -> None:
    pieces = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    parts = [Part(piece, False) for piece in pieces] + [Part(b"", True)]
    assert assemble(parts * 2) == [b"".join(pieces)] * 2
    texts = [piece.hex() for piece in pieces]
    parts = [Part(text, number == len(texts) - 1) for number, text in enumerate(texts)]
    assert assemble(parts * 2) == ["".join(texts)] * 2


def test_what_was_added_can_be_taken_away_again() -> None:
    assembler = Assembler()
    pieces = ["a", "b" * 5000, "c", "d"]
    for piece in pieces:
        assert assembler.add(Part(piece, False)) is None
    taken = assembler.take()
    assert all(isinstance(part, Part) and not part.is_last for part in taken)
    assert assembler.take() == []
    assert assemble([*taken, Part("e", True)]) == ["".join(pieces) + "e"]  # type: ignore[list-item]
    # and what it is given next is a message of its own
    assert assembler.add(Part(b"next", True)) == b"next"


def test_many_small_pieces_cost_no_object_each() -> None:
    assembler = Assembler()

    def work() -> Iterator[None]:
        for number in range(200_000):
            assembler.add(Part(struct.pack("!I", number), False))
            yield

    assert peak_of(work()) < 2 * 800_000 + 512 * KIB
