"""Packets as Protobuf (proto3), written by a table that is made from the fields of their types.

Source: protobuf.dev, "Encoding" and "Proto3 language guide". Spoken is what ``client.proto`` uses: strings, bytes,
bools, varints, messages, lists of messages, and maps from strings. Fields that are unknown are skipped, as are known
ones of another wire type; a message that comes twice is merged; groups, which proto3 has not, are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin, get_type_hints

from msgspec import Meta, Raw

from tidewire.errors import BadPacket
from tidewire.protocol.packets import Packet
from tidewire.protocol.position import OFFSET_MAX

AnyPacket = TypeVar("AnyPacket", bound=Packet)

# wire types
_VARINT: Final = 0
_SIXTY_FOUR_BITS: Final = 1
_LENGTH: Final = 2
_THIRTY_TWO_BITS: Final = 5

_VARINT_BYTES_MAX: Final = 10
_MASK_64: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a packet: ``kind`` says how one value of it is said, ``of`` of which packets it is made."""

    number: int
    name: str
    kind: str
    shape: str = "one"
    of: type[Packet] | None = None

    @property
    def wire_type(self) -> int:
        return _LENGTH if self.kind in ("str", "raw", "packet") or self.shape != "one" else _VARINT


@cache
def _fields(kind: type[Packet]) -> tuple[_Field, ...]:
    """The fields of a packet's type, in the order of their numbers."""
    hints = get_type_hints(kind, include_extras=True)
    fields = [_read_hint(name, hints[name]) for name in kind.__struct_fields__]
    return tuple(sorted(fields, key=lambda one: one.number))


@cache
def _numbers(kind: type[Packet]) -> dict[int, _Field]:
    return {one.number: one for one in _fields(kind)}


def _read_hint(name: str, hint: Any) -> _Field:
    facts: dict[str, Any] = {}
    for meta in hint.__metadata__:
        if isinstance(meta, Meta):
            facts |= meta.extra or {}
    said = get_args(hint)[0]
    origin, parts = get_origin(said), get_args(said)
    if origin is dict:
        kind, of = _kind_of(parts[1])
        return _Field(facts["number"], name, kind, "map", of)
    if origin is list:
        kind, of = _kind_of(parts[0])
        return _Field(facts["number"], name, kind, "list", of)
    if isinstance(said, UnionType):
        (said,) = (part for part in parts if part is not NoneType)
    kind, of = _kind_of(said)
    return _Field(facts["number"], name, facts.get("kind", kind), "one", of)


def _kind_of(said: Any) -> tuple[str, type[Packet] | None]:
    if get_origin(said) is Annotated:
        said = get_args(said)[0]
    if isinstance(said, type) and issubclass(said, Packet):
        return "packet", said
    return {str: "str", Raw: "raw", bool: "bool", int: "int64"}[said], None


# Writing


def encode(packet: Packet) -> bytes:
    """``packet`` without a length before it."""
    out = bytearray()
    for one in _fields(type(packet)):
        value = getattr(packet, one.name)
        if one.shape == "map":
            for key, element in value.items():
                entry = _said(1, "str", key) + _said(2, one.kind, element)
                out += _tag(one.number, _LENGTH) + write_varint(len(entry)) + entry
        elif isinstance(value, Raw) and one.shape == "list":
            out += bytes(value)
        elif one.shape == "list":
            out += encode_list(one.number, value)
        elif value is not None and (one.kind == "packet" or _is_something(value)):
            out += _said(one.number, one.kind, value)
    return bytes(out)


def encode_list(number: int, packets: Iterable[Packet]) -> bytes:
    """A field of packets, each with its tag."""
    return b"".join(_said(number, "packet", one) for one in packets)


def encode_delimited(packet: Packet) -> bytes:
    """``packet`` with its length before it, as the frames of a session have them."""
    data = encode(packet)
    return write_varint(len(data)) + data


def _is_something(value: str | Raw | int) -> bool:
    return bool(bytes(value)) if isinstance(value, Raw) else bool(value)


def _said(number: int, kind: str, value: Any) -> bytes:
    """One field: its tag and its value."""
    if kind in _LENGTHY:
        data = _LENGTHY[kind](value)
        return _tag(number, _LENGTH) + write_varint(len(data)) + data
    # negative numbers are said in 64 bits, whatever they are
    return _tag(number, _VARINT) + write_varint(int(value) & _MASK_64)


_LENGTHY: Final[dict[str, Callable[[Any], bytes]]] = {"str": str.encode, "raw": bytes, "packet": encode}


def _tag(number: int, wire_type: int) -> bytes:
    return write_varint(number << 3 | wire_type)


def write_varint(value: int) -> bytes:
    """``value`` (0 to 2^64 - 1) in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Reading


def decode(kind: type[AnyPacket], data: bytes) -> AnyPacket:
    """The packet that ``data`` is the whole of. Raises ``BadPacket``."""
    known = _numbers(kind)
    values: dict[str, Any] = {}
    # messages in as many parts as they came in: joined, they are merged
    parts: dict[str, list[bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        value, at = _read_value(data, at, wire_type)
        if not number:
            raise BadPacket("there is no field 0")
        one = known.get(number)
        if one is None or one.wire_type != wire_type:
            continue
        if one.shape == "map":
            key, element = _read_entry(one, value)
            values.setdefault(one.name, {})[key] = element
        elif one.shape == "list":
            values.setdefault(one.name, []).append(_meant(one, value))
        elif one.kind == "packet":
            parts.setdefault(one.name, []).append(value)
        else:
            values[one.name] = _meant(one, value)
    for name, chunks in parts.items():
        one = next(one for one in known.values() if one.name == name)
        values[name] = _meant(one, b"".join(chunks))
    return kind(**values)


def _read_value(data: bytes, at: int, wire_type: int) -> tuple[Any, int]:
    """A value as it stands there: an int for a varint, bytes for everything else; and where it ends."""
    if wire_type == _VARINT:
        return read_varint(data, at)
    if wire_type == _LENGTH:
        size, at = read_varint(data, at)
    elif wire_type in (_SIXTY_FOUR_BITS, _THIRTY_TWO_BITS):
        size = 8 if wire_type == _SIXTY_FOUR_BITS else 4
    else:
        raise BadPacket(f"wire type {wire_type} is none of proto3")
    if size > len(data) - at:
        raise BadPacket("a field ends behind its message")
    return data[at : at + size], at + size


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, in 64 bits, and where it ends. Raises ``BadPacket``."""
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
        if at >= len(data):
            raise BadPacket("a number ends behind its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK_64, at
    raise BadPacket(f"a number has at most {_VARINT_BYTES_MAX} bytes")


def _read_entry(one: _Field, data: bytes) -> tuple[str, Any]:
    """One pair of a map: a message whose field 1 is the key and whose field 2 is the value."""
    key, value = "", b""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        element, at = _read_value(data, at, tag & 7)
        if tag == 1 << 3 | _LENGTH:
            key = _text(element)
        elif tag == 2 << 3 | _LENGTH:
            value = element
    return key, _meant(one, value)


def _meant(one: _Field, value: Any) -> Any:
    """What a value means for its field."""
    if one.kind == "str":
        return _text(value)
    if one.kind == "raw":
        return Raw(value)
    if one.kind == "packet":
        assert one.of is not None
        return decode(one.of, value)
    return _NUMBERS_MEAN[one.kind](value)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadPacket(f"a string that is not UTF-8: byte {error.start}") from None


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _offset(value: int) -> int:
    if value > OFFSET_MAX:
        raise BadPacket(f"offsets end at {OFFSET_MAX}")
    return value


_NUMBERS_MEAN: Final[dict[str, Callable[[int], Any]]] = {
    "bool": bool,
    "uint32": lambda value: value & 0xFFFFFFFF,
    "uint64": _offset,
    "int32": lambda value: _signed(value, 32),
    "int64": lambda value: _signed(value, 64),
}


def split_delimited(data: bytes) -> Iterator[bytes]:
    """The messages of a frame, each with its length before it. Raises ``BadPacket``."""
    at = 0
    while at < len(data):
        size, at = read_varint(data, at)
        if size > len(data) - at:
            raise BadPacket("a message ends behind its frame")
        yield data[at : at + size]
        at += size
