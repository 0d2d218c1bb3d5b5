"""Packets in frames: the JSON and the Protobuf form of the Centrifuge client protocol v2.

JSON: text frames, one packet a line, several lines joined by single newlines (old SDKs fail on an empty line). What
applications say is embedded as it is, so it has no newline in it: our own is compact, a client's came on one line.
Protobuf: binary frames, each packet with its length before it.
Source: centrifugal.dev, "Client protocol", and ``client.proto`` (``protocol.packets``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from tidewire.errors import BadPacket
from tidewire.protocol import protobuf
from tidewire.protocol.packets import Command, Publication, Reply

# the field of a subscribe result
_PUBLICATIONS: Final = 7


class Codec(Protocol):
    """One form. Reading raises ``BadPacket``, after the packets before the bad one."""

    name: str
    subprotocol: str
    is_text: bool
    """Whether its frames are text."""

    def read_commands(self, frame: str | bytes) -> Iterator[Command]:
        """The commands of a client's frame, one after the other."""

    def read_replies(self, frame: str | bytes) -> Iterator[Reply]:
        """The replies and pushes of a server's frame."""

    def write(self, packet: Command | Reply) -> bytes:
        """One packet, to be joined."""

    def join(self, packets: Sequence[bytes]) -> bytes:
        """The payload of one frame."""

    def prepare(self, publications: Sequence[Publication]) -> Any:
        """The publications of a subscribe result, written already: many clients miss the same ones."""


class JsonCodec:
    """The form most SDKs speak, and people read."""

    name = "json"
    subprotocol = "centrifuge-json"
    is_text = True

    def __init__(self) -> None:
        self._commands = msgspec.json.Decoder(Command)
        self._replies = msgspec.json.Decoder(Reply)
        self._encoder = msgspec.json.Encoder()

    def read_commands(self, frame: str | bytes) -> Iterator[Command]:
        """See ``Codec``."""
        yield from _read_lines(self._commands, frame)

    def read_replies(self, frame: str | bytes) -> Iterator[Reply]:
        """See ``Codec``."""
        yield from _read_lines(self._replies, frame)

    def write(self, packet: Command | Reply) -> bytes:
        """See ``Codec``."""
        return self._encoder.encode(packet)

    def join(self, packets: Sequence[bytes]) -> bytes:
        """See ``Codec``."""
        return b"\n".join(packets)

    def prepare(self, publications: Sequence[Publication]) -> Any:
        """See ``Codec``."""
        return msgspec.Raw(self._encoder.encode(publications))


def _read_lines(decoder: msgspec.json.Decoder[Any], frame: str | bytes) -> Iterator[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    for line in data.split(b"\n"):
        if not line or line.isspace():
            continue
        try:
            yield decoder.decode(line)
        except UnicodeDecodeError as error:
            raise BadPacket(f"JSON that is not UTF-8: byte {error.start}") from None
        except RecursionError:
            raise BadPacket("JSON that is nested too deeply") from None
        except msgspec.MsgspecError as error:
            raise BadPacket(f"not a packet: {error}") from None


class ProtobufCodec:
    """The form of the SDKs for Dart, Swift and Java, and of the others where they are told so."""

    name = "protobuf"
    subprotocol = "centrifuge-protobuf"
    is_text = False

    def read_commands(self, frame: str | bytes) -> Iterator[Command]:
        """See ``Codec``."""
        for data in protobuf.split_delimited(_binary(frame)):
            yield protobuf.decode(Command, data)

    def read_replies(self, frame: str | bytes) -> Iterator[Reply]:
        """See ``Codec``."""
        for data in protobuf.split_delimited(_binary(frame)):
            yield protobuf.decode(Reply, data)

    def write(self, packet: Command | Reply) -> bytes:
        """See ``Codec``."""
        return protobuf.encode_delimited(packet)

    def join(self, packets: Sequence[bytes]) -> bytes:
        """See ``Codec``."""
        return b"".join(packets)

    def prepare(self, publications: Sequence[Publication]) -> Any:
        """See ``Codec``. The number is that of the field of a subscribe result."""
        return msgspec.Raw(protobuf.encode_list(_PUBLICATIONS, publications))


def _binary(frame: str | bytes) -> bytes:
    if isinstance(frame, str):
        raise BadPacket("a text frame where Protobuf was agreed on, which has binary ones")
    return frame


JSON: Final = JsonCodec()
PROTOBUF: Final = ProtobufCodec()


def choose_codec(subprotocols: Sequence[str], query: dict[str, str]) -> tuple[Codec, str | None]:
    """The form that a client has asked for, and the subprotocol to answer with, if any.

    Protobuf by its subprotocol, or by ``format=protobuf`` or ``cf_protocol=protobuf`` in the URL; else JSON. A
    subprotocol that was offered has to be answered: browsers close a WebSocket whose offer was ignored.
    """
    for codec in (PROTOBUF, JSON):
        if codec.subprotocol in subprotocols:
            return codec, codec.subprotocol
    if "protobuf" in (query.get("format"), query.get("cf_protocol")):
        return PROTOBUF, None
    return JSON, None
