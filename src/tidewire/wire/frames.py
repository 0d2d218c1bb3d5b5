"""RFC 6455 frames, read and written. Pure: bytes go in, messages come out; nothing here waits or writes.

Feed a ``Reader`` what a transport gives. It returns messages; what else came stands in its attributes::

    messages = reader.feed(data)   # str, bytes, or Part where a message comes in pieces
    reader.controls                # pings and pongs since the last feed, for the caller to take away
    reader.close                   # the peer's close frame, once it has come: nothing is read after it
    reader.failure                 # the close frame to send to a peer that broke the protocol or a limit

A small frame is waited for and given whole. Of a large one, and of fragments, every piece is given as it comes, so
that memory does not depend on the size of a message; ``Assembler`` makes whole messages of pieces.
"""

from __future__ import annotations

import codecs
import struct
from typing import Any, Final, TypeAlias

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.base import Extension

from tidewire.errors import Close
from tidewire.limits import FRAGMENTS_MAX
from tidewire.protocol.codes import may_be_sent, shorten_reason
from tidewire.wire.deflate import deflate, inflate
from tidewire.wire.mask import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_COMPRESSED: Final = 0x40
WHOLE_TEXT: Final = _FIN | TEXT
WHOLE_BINARY: Final = _FIN | BINARY
_NO_CODE: Final = 1005

WHOLE_BYTES_MAX: Final = 64 * 1024
"""A frame up to this size is given whole; of a larger one pieces are given as they come."""
# declared sizes of compressed frames may exceed those of their content by what deflate adds to what it cannot compress
_DEFLATE_SLACK_BYTES: Final = 1024

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Part:
    """A piece of a message that comes in several; text is cut between characters. The last one may be empty."""

    __slots__ = ("data", "is_last")

    def __init__(self, data: str | bytes, is_last: bool) -> None:
        self.data = data
        self.is_last = is_last

    def __len__(self) -> int:
        return len(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.data, self.is_last) == (other.data, other.is_last)

    def __hash__(self) -> int:
        return hash((self.data, self.is_last))

    def __repr__(self) -> str:
        return f"Part({self.data!r}, {self.is_last})"


Message: TypeAlias = "str | bytes | Part"


class _Broken(Exception):
    """The peer broke the protocol or a limit."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.close = Close(code, reason)


class Reader:
    """What comes from one peer, frame by frame.

    ``max_size``: bytes of one message, inflated. ``masked``: whether the peer must mask its frames, as clients must
    and servers must not (5.1). ``extension``: permessage-deflate as negotiated. ``fragments_max``: frames of a message.
    """

    __slots__ = (
        "_decoder",
        "_extension",
        "_fragments",
        "_fragments_max",
        "_held",
        "_held_bytes",
        "_is_compressed",
        "_is_first",
        "_is_over",
        "_left",
        "_mask",
        "_mask_bit",
        "_needed",
        "_opcode",
        "_size",
        "_tail_fin",
        "close",
        "controls",
        "failure",
        "max_size",
        "too_large_code",
    )

    def __init__(
        self,
        *,
        max_size: int,
        masked: bool = True,
        extension: Extension | None = None,
        fragments_max: int = FRAGMENTS_MAX,
    ) -> None:
        self.controls: list[tuple[int, bytes]] = []
        self.close: Close | None = None
        self.failure: Close | None = None
        self.max_size = max_size
        self.too_large_code = 1009
        self._mask_bit = 0x80 if masked else 0
        self._extension = extension
        self._fragments_max = fragments_max
        # the beginning of a frame that is not whole yet; joined once ``_needed`` bytes are there (made when needed)
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._needed = 0
        # inside of a large frame: payload still to come, its mask from there on, whether it ends its message
        self._left = 0
        self._mask = b""
        self._tail_fin = False
        # the message that is under way: its kind (0: none), bytes so far, frames so far
        self._opcode = 0
        self._size = 0
        self._fragments = 0
        self._is_compressed = False
        # nothing of the message was given yet
        self._is_first = True
        self._decoder: Any = None
        self._is_over = False

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """Take what has come; returns the messages, and pieces of messages, that it completes. ``data`` is not kept."""
        messages: list[Message] = []
        if self._is_over:
            return messages
        if self._held is not None:
            self._held.append(bytes(data))
            self._held_bytes += len(data)
            if self._held_bytes < self._needed:
                return messages
            data = b"".join(self._held)
            self._held = None
        try:
            at = self._go_on(data, 0, messages) if self._left else 0
            at = self._read_frames(data, at, messages)
        except (_Broken, UnicodeDecodeError) as error:
            close = (error if isinstance(error, _Broken) else _not_utf8(error)).close
            self.failure = Close(self.too_large_code, close.reason) if close.code == 1009 else close
            self._is_over = True
            return messages
        if at < len(data) and not self._is_over:
            rest = bytes(data[at:])
            self._held = [rest]
            self._held_bytes = len(rest)
        return messages

    def _read_frames(self, data: bytes | memoryview, at: int, messages: list[Message]) -> int:
        """Read whole frames from ``at`` on; returns where the first one begins that is not whole.

        The two kinds of frames that nearly all are, whole messages of up to 64 KiB from clients, are read here.
        """
        end = len(data)
        take = messages.append
        is_plain = self._is_plain()
        while end - at >= 2:
            first = data[at]
            length = data[at + 1] - 0x80
            if not is_plain or length < 0 or length == 127 or (first != WHOLE_TEXT and first != WHOLE_BINARY):
                before = at
                at = self._read_frame(data, at, end, messages)
                if at == before or self._is_over:
                    return at
                is_plain = self._is_plain()
                continue
            begin = at + 6
            if length == 126:
                if end - at < 4:
                    self._needed = 8
                    return at
                length = data[at + 2] << 8 | data[at + 3]
                begin = at + 8
                if length > self.max_size:
                    raise _too_large(length, self.max_size)
            stop = begin + length
            if stop > end:
                self._needed = stop - at
                return at
            payload = apply_mask(data[begin:stop], data[begin - 4 : begin])
            take(payload.decode() if first == WHOLE_TEXT else payload)
            at = stop
        self._needed = 2
        return at

    def _is_plain(self) -> bool:
        """Whether the next frame may be read without a look at anything else: nothing small can be too large."""
        return bool(self._mask_bit) and not self._opcode and self.max_size >= 125

    def _read_frame(self, data: bytes | memoryview, at: int, end: int, messages: list[Message]) -> int:
        """Read one frame of any kind (5.2); returns where the next begins, or ``at`` when this one is not whole."""
        first, second = data[at], data[at + 1]
        length = second & 0x7F
        self._check_head(first, second, length)
        begin = at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            begin += size
            if end < begin:
                self._needed = begin - at
                return at
            length = int.from_bytes(data[begin - size : begin], "big")
        if not first & 0x08:
            self._check_size(first, length)
        begin += 4 if self._mask_bit else 0
        stop = begin + length
        if stop > end and (length <= WHOLE_BYTES_MAX or end < begin):
            self._needed = stop - at if length <= WHOLE_BYTES_MAX else begin - at
            return at
        mask = bytes(data[begin - 4 : begin]) if self._mask_bit else b""
        if first & 0x08:
            self._take_control(first & 0x0F, _unmask(data[begin:stop], mask))
            return stop
        self._begin_frame(first)
        if stop <= end:
            self._take(_unmask(data[begin:stop], mask), bool(first & _FIN), messages)
            return stop
        self._left, self._mask, self._tail_fin = length, mask, bool(first & _FIN)
        return self._go_on(data, begin, messages)

    def _check_head(self, first: int, second: int, length: int) -> None:
        """What the first two bytes can be wrong about; told at once, whatever else would come."""
        opcode = first & 0x0F
        reserved = first & _RESERVED
        may_be_compressed = self._extension is not None and opcode in (TEXT, BINARY)
        if reserved and not (reserved == _COMPRESSED and may_be_compressed):
            raise _Broken(1002, "reserved bits are set, and nothing was agreed on that uses them")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise _Broken(1002, f"there is no opcode {opcode}")
        if opcode & 0x08:
            if not first & _FIN:
                raise _Broken(1002, "control frames come whole")
            if length > 125:
                raise _Broken(1002, "control frames have at most 125 bytes")
        elif opcode == CONTINUATION and not self._opcode:
            raise _Broken(1002, "a continuation of nothing")
        elif opcode != CONTINUATION and self._opcode:
            raise _Broken(1002, "a new message inside of another one")
        if second & 0x80 != self._mask_bit:
            raise _Broken(1002, "clients mask their frames" if self._mask_bit else "servers do not mask their frames")

    def _check_size(self, first: int, length: int) -> None:
        if length >> 63:
            raise _Broken(1002, "a length has 63 bits")
        limit = self.max_size
        if first & _COMPRESSED or (self._is_compressed and self._opcode):
            limit += limit // 512 + _DEFLATE_SLACK_BYTES
        if self._size + length > limit:
            raise _too_large(length, self.max_size, self._size)

    def _begin_frame(self, first: int) -> None:
        """A data frame is going to be read."""
        opcode = first & 0x0F
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._is_compressed = bool(first & _COMPRESSED)
            self._is_first = True
            self._size = 0
            self._fragments = 0
        self._fragments += 1
        if self._fragments > self._fragments_max:
            raise _Broken(1009, f"a message of more than {self._fragments_max} fragments")

    def _go_on(self, data: bytes | memoryview, at: int, messages: list[Message]) -> int:
        """Take the next piece of a large frame, from ``at`` on; returns where it ends."""
        size = min(self._left, len(data) - at)
        view = memoryview(data)[at : at + size]
        self._left -= size
        mask = self._mask
        if mask:
            piece = apply_mask(view, mask)
            turn = size & 3
            self._mask = mask[turn:] + mask[:turn]
        else:
            piece = bytes(view)
        self._take(piece, self._tail_fin and not self._left, messages)
        return at + size

    def _take(self, piece: bytes, is_last: bool, messages: list[Message]) -> None:
        """Take unmasked payload: inflate it, count it, decode it, and give it."""
        if self._is_compressed:
            piece = self._inflate(piece, is_last)
        self._size += len(piece)
        if self._size > self.max_size:
            raise _too_large(len(piece), self.max_size, self._size - len(piece))
        given: str | bytes = piece
        if self._opcode == TEXT:
            given = self._decode_piece(piece, is_last)
        if is_last:
            messages.append(given if self._is_first else Part(given, True))
            self._opcode = self._size = 0
            self._is_first = True
        elif given or self._is_compressed:
            self._is_first = False
            if given:
                messages.append(Part(given, False))

    def _decode_piece(self, piece: bytes, is_last: bool) -> str:
        if is_last and self._decoder is None:
            return _decode(piece)
        if self._decoder is None:
            self._decoder = _utf8_decoder()
        try:
            text: str = self._decoder.decode(piece, is_last)
        except UnicodeDecodeError as error:
            raise _not_utf8(error) from None
        if is_last:
            self._decoder = None
        return text

    def _inflate(self, piece: bytes, is_last: bool) -> bytes:
        """Inflate under the limit: no more is made of it than one byte too much."""
        assert self._extension is not None, "checked by the head"
        room = self.max_size - self._size + 1
        try:
            return inflate(self._extension, self._opcode, piece, is_first=self._is_first, is_last=is_last, room=room)
        except PayloadTooBig:
            raise _Broken(1009, f"message exceeds, inflated, the limit of {self.max_size} bytes") from None
        except ProtocolError:
            raise _Broken(1002, "what is compressed cannot be inflated") from None

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode != CLOSE:
            self.controls.append((opcode, payload))
            return
        self.close = _read_close(payload)
        self._is_over = True


def _unmask(payload: bytes | memoryview, mask: bytes) -> bytes:
    return apply_mask(payload, mask) if mask else bytes(payload)


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from None


def _not_utf8(error: UnicodeDecodeError) -> _Broken:
    return _Broken(1007, f"text that is not UTF-8: {error.reason} at byte {error.start}")


def _too_large(size_bytes: int, max_size: int, before: int = 0) -> _Broken:
    so_far = f" after reading {before} bytes" if before else ""
    return _Broken(1009, f"frame with {size_bytes} bytes{so_far} exceeds limit of {max_size} bytes")


def _read_close(payload: bytes) -> Close:
    """Code and reason of a close frame (5.5.1); ``Close(1005, "")`` for an empty one."""
    if not payload:
        return Close(_NO_CODE, "")
    if len(payload) < 2:
        raise _Broken(1002, "a close frame has no byte, or two and a reason")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise _Broken(1002, f"no peer may close with {code}")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError as error:
        raise _Broken(1007, f"a close reason that is not UTF-8: {error.reason}") from None


class Assembler:
    """Makes whole messages of pieces. Pieces of any size cost no more memory than the message has bytes."""

    __slots__ = ("_large", "_small")

    # pieces below this are gathered before they are kept: an object each would cost more than their bytes
    _SMALL = 4096

    def __init__(self) -> None:
        self._large: list[Any] = []
        self._small: list[Any] = []

    def add(self, part: Part) -> str | bytes | None:
        """Add the next piece; returns the message with the last one, None before."""
        self._small.append(part.data)
        if len(part.data) >= self._SMALL or len(self._small) >= self._SMALL or part.is_last:
            self._large.append(self._join(self._small, part))
            self._small.clear()
        if not part.is_last:
            return None
        message: str | bytes = self._join(self._large, part)
        self._large.clear()
        return message

    def take(self) -> list[Message]:
        """What was added of a message that is not whole, as pieces; nothing of it is left here."""
        pieces = [Part(piece, False) for piece in [*self._large, *self._small]]
        self._large.clear()
        self._small.clear()
        return [*pieces]

    @staticmethod
    def _join(pieces: list[Any], part: Part) -> Any:
        return ("" if isinstance(part.data, str) else b"").join(pieces)


# Writing


def head(first: int, size_bytes: int) -> bytes:
    """The head of an unmasked frame: ``first`` is FIN and opcode, then the length in its shortest form (5.2)."""
    if size_bytes < 126:
        return bytes((first, size_bytes))
    if size_bytes < 65536:
        return struct.pack("!BBH", first, 126, size_bytes)
    return struct.pack("!BBQ", first, 127, size_bytes)


def frame(first: int, payload: bytes) -> bytes:
    """A whole unmasked frame."""
    return head(first, len(payload)) + payload


SMALL_TEXT_HEADS: Final = [head(WHOLE_TEXT, size) for size in range(126)]


def message_frame(message: str | bytes) -> bytes:
    """A whole message in one frame: ``str`` as text, ``bytes`` as binary."""
    if isinstance(message, str):
        payload = message.encode()
        if len(payload) < 126:
            return SMALL_TEXT_HEADS[len(payload)] + payload
        return frame(WHOLE_TEXT, payload)
    return frame(WHOLE_BINARY, message)


def compressed_message(extension: Extension, message: str | bytes) -> bytes:
    """A whole message in one frame, compressed (RFC 7692 7.2.1)."""
    if isinstance(message, str):
        return _compressed(extension, WHOLE_TEXT, message.encode())
    return _compressed(extension, WHOLE_BINARY, message)


def fragment(piece: str | bytes, extension: Extension | None, *, is_first: bool, is_last: bool) -> bytes:
    """A piece of a message as a frame (5.4), compressed where that was agreed on."""
    opcode = CONTINUATION if not is_first else TEXT if isinstance(piece, str) else BINARY
    first = (_FIN if is_last else 0) | opcode
    payload = piece.encode() if isinstance(piece, str) else piece
    return frame(first, payload) if extension is None else _compressed(extension, first, payload)


def _compressed(extension: Extension, first: int, payload: bytes) -> bytes:
    data, is_marked = deflate(extension, first & 0x0F, payload, is_last=bool(first & _FIN))
    return frame(first | (_COMPRESSED if is_marked else 0), data)


def ping_frame(payload: bytes) -> bytes:
    """A ping (5.5.2) with at most 125 bytes."""
    return frame(_FIN | PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping (5.5.3)."""
    return frame(_FIN | PONG, payload)


def close_frame(close: Close) -> bytes:
    """A close frame (5.5.1); 1005 is the word for one without a code. A reason that does not fit is cut.

    Raises ``ValueError`` for a code that none may carry.
    """
    if close.code == _NO_CODE:
        return frame(_FIN | CLOSE, b"")
    if not may_be_sent(close.code):
        raise ValueError(
            f"no close frame carries {close.code}: use 1000, 1001, 1008, 1011, or 3000 to 4999 (RFC 6455 7.4)"
        )
    return frame(_FIN | CLOSE, struct.pack("!H", close.code) + shorten_reason(close.reason).encode())
