"""WebSocket frames made and read by hand (RFC 6455 5.2), also those that no library would make."""

from __future__ import annotations

import ssl
import struct
from typing import NamedTuple

from tests.wire.servers import Peer

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a close frame."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length: int = -1,
    mask: bytes = bytes(4),
) -> bytes:
    """A client's frame. With the mask that is all zero the payload stays readable. ``length``: a lie about it."""
    length = len(payload) if length < 0 else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if masked and any(mask):
        payload = xor(payload, mask)
    return head + (mask if masked else b"") + payload


def xor(payload: bytes, mask: bytes) -> bytes:
    """The payload with the mask on it, or off again (5.3): by arithmetic on one large number."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame carries."""
    return struct.pack("!H", code) + reason.encode()


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """A server's whole frames, and what is left of the next one."""
    frames = []
    at = 0
    while len(data) >= at + 2:
        length, begin = data[at + 1] & 0x7F, at + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, begin = int.from_bytes(data[begin : begin + size], "big"), begin + size
        if len(data) < begin + length:
            break
        frames.append(Frame(data[at] & 0x0F, data[begin : begin + length]))
        at = begin + length
    return frames, data[at:]


def upgrade(path: str, *headers: str) -> bytes:
    """The head of a handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        "host: 127.0.0.1",
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-key: {_KEY}",
        "sec-websocket-version: 13",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def open_websocket(
    port: int,
    path: str,
    *headers: str,
    receive_buffer: int | None = None,
    context: ssl.SSLContext | None = None,
) -> Peer:
    """A peer that has become a WebSocket; ``received`` holds frames from now on."""
    peer = Peer(port, receive_buffer=receive_buffer, context=context)
    peer.send(upgrade(path, *headers))
    peer.receive(lambda data: b"\r\n\r\n" in data)
    head, _, rest = peer.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    peer.received = rest
    return peer


def follow(
    port: int,
    topic: str,
    *,
    query: str = "",
    receive_buffer: int | None = None,
    context: ssl.SSLContext | None = None,
) -> Peer:
    """A WebSocket on ``topic`` that is live: it has been told its position."""
    path = f"/live/{topic}?positions=1&{query}"
    peer = open_websocket(port, path, receive_buffer=receive_buffer, context=context)
    peer.receive(lambda data: split(data)[0])
    return peer


def read_close(peer: Peer) -> tuple[int, str]:
    """Read until the server has closed; code and reason of its close frame."""
    peer.read_to_end()
    return split(peer.received)[0][-1].close
