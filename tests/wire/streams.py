"""Valid streams of a client's frames, made by chance from a seed, with the list of what was encoded in them.

Nothing here is ours under test: frames are made by hand (``tests.wire.frames``), compression is zlib's own.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from websockets.extensions.permessage_deflate import PerMessageDeflate

from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame
from tidewire.errors import Close
from tidewire.wire.frames import Assembler, Part, Reader

MAX_SIZE = 1 << 20
_TAIL = b"\x00\x00\xff\xff"
# sizes on both sides of every border: of the forms of a length, and of what is given whole
SIZES = [0, 1, 2, 3, 5, 8, 13, 60, 124, 125, 126, 127, 128, 300, 4095, 4096, 20_000]
LARGE = [65_535, 65_536, 65_537, 70_001, 140_003]
_ALPHABET = "aZ \n\x00\x7féߪ߿ࠀ€\ud7ff\ue000\uffff😀\U0010ffff"


@dataclass
class Stream:
    """What a client sends, and what that means."""

    data: bytes = b""
    messages: list[str | bytes] = field(default_factory=list)
    controls: list[tuple[int, bytes]] = field(default_factory=list)
    close: Close | None = None
    # where frames begin and payloads begin: good places to cut
    marks: list[int] = field(default_factory=list)


class Deflater:
    """permessage-deflate of a client (RFC 7692 7.2.1), cut wherever one likes."""

    def __init__(self, *, keeps_context: bool, bits: int = 15) -> None:
        self.keeps_context = keeps_context
        self.bits = bits
        self._encoder = self._new()

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(wbits=-self.bits)

    def deflate(self, payload: bytes) -> bytes:
        """A whole message."""
        if not self.keeps_context:
            self._encoder = self._new()
        data = self._encoder.compress(payload) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(_TAIL)
        return data[:-4]

    def extension(self) -> PerMessageDeflate:
        """The server's side of the same agreement."""
        return PerMessageDeflate(
            remote_no_context_takeover=not self.keeps_context,
            local_no_context_takeover=False,
            remote_max_window_bits=self.bits,
            local_max_window_bits=15,
        )


def cut(rng: random.Random, data: bytes, n: int) -> list[bytes]:
    """``data`` in ``n`` pieces, some of them empty."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(n - 1))
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


def some_payload(rng: random.Random, size: int, *, is_text: bool) -> bytes:
    """Text of every length of character, bytes of every value; some of it compresses, some does not."""
    if is_text:
        chars = _ALPHABET if rng.random() < 0.7 else "ab"
        text = "".join(rng.choices(chars, k=min(size, 500))) or ""
        data = (text * (size // max(1, len(text)) + 1)).encode() if size else b""
        # cut to about the size, between characters
        return data[:size].decode(errors="ignore").encode()
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return (b"tidewire " * (size // 9 + 1))[:size]


class StreamMaker:
    """Adds one thing after another to a stream."""

    def __init__(self, rng: random.Random, deflater: Deflater | None = None, *, masked: bool = True) -> None:
        self.stream = Stream()
        self._rng = rng
        self._deflater = deflater
        self._masked = masked
        self._pieces: list[bytes] = []
        self._size = 0

    def _add(self, opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0) -> None:
        rng = self._rng
        mask = rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4)])
        data = frame(opcode, payload, fin=fin, reserved=reserved, mask=mask, masked=self._masked)
        self.stream.marks += [self._size, self._size + len(data) - len(payload)]
        self._pieces.append(data)
        self._size += len(data)

    def control(self) -> None:
        opcode = self._rng.choice([PING, PONG])
        payload = self._rng.randbytes(self._rng.choice([0, 1, 4, 124, 125]))
        self._add(opcode, payload)
        self.stream.controls.append((opcode, payload))

    def message(self, size: int, *, fragments: int = 1, is_text: bool = True, compressed: bool = False) -> None:
        """A message, in fragments cut at any byte, with control frames in between."""
        payload = some_payload(self._rng, size, is_text=is_text)
        self.stream.messages.append(payload.decode() if is_text else payload)
        compressed = compressed and self._deflater is not None
        data = self._deflater.deflate(payload) if compressed and self._deflater else payload
        pieces = cut(self._rng, data, fragments)
        for number, piece in enumerate(pieces):
            while number and self._rng.random() < 0.2:
                self.control()
            opcode = CONTINUATION if number else TEXT if is_text else BINARY
            is_first_compressed = compressed and not number
            self._add(opcode, piece, fin=number == len(pieces) - 1, reserved=4 if is_first_compressed else 0)

    def close(self) -> None:
        reason = "".join(self._rng.choices(_ALPHABET, k=self._rng.randrange(30)))
        close = self._rng.choice([Close(1005), Close(1000), Close(1001, reason), Close(3000, reason), Close(4999, "x")])
        self._add(CLOSE, b"" if close.code == 1005 else close_payload(close.code, close.reason))
        self.stream.close = close

    def done(self) -> Stream:
        self.stream.data = b"".join(self._pieces)
        return self.stream


def some_stream(rng: random.Random, deflater: Deflater | None, *, large: bool, masked: bool = True) -> Stream:
    """Up to eight messages with controls in between, and sometimes a close frame at the end."""
    maker = StreamMaker(rng, deflater, masked=masked)
    for _ in range(rng.randrange(1, 9)):
        while rng.random() < 0.2:
            maker.control()
        maker.message(
            rng.choice(LARGE if large and rng.random() < 0.5 else SIZES),
            fragments=rng.choice([1, 1, 1, 2, 3, 7]),
            is_text=rng.random() < 0.5,
            compressed=rng.random() < 0.7,
        )
    if rng.random() < 0.5:
        maker.close()
    return maker.done()


def some_split(rng: random.Random, stream: Stream) -> list[bytes]:
    """The stream in pieces: whole, byte by byte where it is short, or cut anywhere, also just beside frames."""
    data = stream.data
    way = rng.randrange(4)
    if way == 0:
        return [data]
    if way == 1 and len(data) < 3000:
        return [data[at : at + 1] for at in range(len(data))]
    if way == 2:
        size = rng.choice([2, 3, 7, 64, 1000, 65_536]) if len(data) < 5000 else rng.choice([1000, 16_384, 65_536])
        return [data[at : at + size] for at in range(0, len(data), size)]
    near = [mark + rng.randrange(-2, 4) for mark in rng.choices(stream.marks, k=min(8, len(stream.marks)))]
    anywhere = [rng.randrange(len(data) + 1) for _ in range(rng.randrange(8))]
    places = sorted({min(max(place, 0), len(data)) for place in near + anywhere})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


def read(reader: Reader, pieces: Iterable[bytes]) -> Iterator[str | bytes]:
    """Whole messages, as an application gets them; checks what holds of pieces."""
    assembler = Assembler()
    is_inside = False
    for piece in pieces:
        for message in reader.feed(piece):
            if isinstance(message, Part):
                assert message.is_last or message.data, "a piece without anything in it"
                is_inside = not message.is_last
                whole = assembler.add(message)
                assert (whole is None) is not message.is_last
                if whole is None:
                    continue
                message = whole
            assert not is_inside, "a message inside of another one"
            yield message


class Outcome:
    """What a reader made of these pieces."""

    def __init__(self, *pieces: bytes, max_size: int = MAX_SIZE, **options: Any) -> None:
        self.reader = Reader(max_size=max_size, **options)
        self.messages = list(read(self.reader, pieces))
        self.controls = self.reader.controls
        self.close = self.reader.close
        self.code = None if self.reader.failure is None else self.reader.failure.code


def deflating(*, keeps_context: bool = True) -> dict[str, Any]:
    return {"extension": Deflater(keeps_context=keeps_context).extension()}


def by_bytes(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))
