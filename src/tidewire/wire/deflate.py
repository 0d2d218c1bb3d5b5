"""permessage-deflate (RFC 7692) frame by frame, by the extension classes of ``websockets``."""

from __future__ import annotations

import zlib
from typing import Any, Final

from websockets.exceptions import ProtocolError
from websockets.extensions.base import Extension
from websockets.frames import Frame, Opcode

# behind the end of a compressed stream: the rest of an empty block, and what is appended to every message
_BEHIND_END_BYTES_MAX: Final = 5


def inflate(extension: Extension, opcode: int, piece: bytes, *, is_first: bool, is_last: bool, room: int) -> bytes:
    """Inflate a piece of a message, cut anywhere (7.2.2), to ``room`` bytes at most.

    Raises ``PayloadTooBig`` of ``websockets`` for more, and its ``ProtocolError`` for what cannot be inflated.
    """
    frame = Frame(Opcode(opcode) if is_first else Opcode.CONT, piece, fin=is_last, rsv1=is_first)
    inflated = bytes(extension.decode(frame, max_size=room).data)
    _check_end(extension, is_last)
    return inflated


def _check_end(extension: Any, is_last: bool) -> None:
    """A peer may end its compressed stream with a message (7.2.3.4); its next one begins another.

    zlib gives nothing of what comes behind such an end, and keeps it.
    """
    decoder = getattr(extension, "decoder", None)
    if decoder is None or not decoder.eof:
        return
    if len(decoder.unused_data) > _BEHIND_END_BYTES_MAX:
        raise ProtocolError("something stands behind the end of what is compressed")
    if is_last:
        extension.decoder = zlib.decompressobj(wbits=-extension.remote_max_window_bits)


def deflate(extension: Extension, opcode: int, payload: bytes, *, is_last: bool) -> tuple[bytes, bool]:
    """Compress a fragment or a whole message (7.2.1); returns it, and whether its frame has the bit that says so."""
    made = extension.encode(Frame(Opcode(opcode), payload, fin=is_last))
    return bytes(made.data), made.rsv1
