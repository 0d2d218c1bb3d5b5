"""The frames that our uvicorn class writes itself, read back by an independent reader."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tidewire.wire.frames import frame


def read(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert not reader.buffer, "nothing is left over"
    found = done.value.value
    assert isinstance(found, Frame)
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
@pytest.mark.parametrize(("first", "opcode"), [(0x81, Opcode.TEXT), (0x82, Opcode.BINARY)])
def test_a_frame_reads_back(size: int, first: int, opcode: Opcode) -> None:
    payload = bytes(n % 251 for n in range(size))
    found = read(frame(first, payload))
    assert (found.opcode, found.fin, bytes(found.data)) == (opcode, True, payload)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_the_length_has_its_shortest_form(size: int) -> None:
    assert frame(0x82, b"x" * size) == Frame(Opcode.BINARY, b"x" * size).serialize(mask=False)
