"""Values as what a session carries, and back, in the types that were asked for. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tidewire.client.session.messages import Member
from tidewire.errors import BadPayload
from tidewire.protocol.codecs import Codec
from tidewire.protocol.packets import NOTHING, ClientInfo
from tidewire.protocol.payload import check_json, encode_json

Read = Callable[[bytes], Any]
"""Data as it came, as a value; raises ``BadPayload`` saying what is wrong with it."""


def encode_data(value: object, codec: Codec) -> msgspec.Raw:
    """``value`` as it is published, called with or sent: JSON, and bytes as they are in Protobuf sessions.

    Raises ``BadPayload``.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        if codec.is_text:
            raise BadPayload("bytes do not fit into JSON: connect with Client(url, protobuf=True), or send text")
        return msgspec.Raw(bytes(value))
    data = encode_json(value)
    # a ``msgspec.Raw`` of the user's may have line ends, and packets are lines
    return msgspec.Raw(check_json(data) if b"\n" in data else data)


def reader_of(wanted: Any, codec: Codec) -> Read:
    """How to read data as ``wanted``: a pydantic model, a dataclass or whatever msgspec decodes; None: as it comes.

    ``bytes`` gives the data as it is. Raises ``TypeError`` for what nobody can decode.
    """
    if wanted is None:
        return _read_json if codec.is_text else _read_any
    if wanted is bytes:
        return bytes
    if wanted is str and not codec.is_text:
        return _read_str
    validator = getattr(wanted, "__pydantic_validator__", None)
    if validator is not None:
        return _guard(validator.validate_json)
    return _guard(msgspec.json.Decoder(wanted, dec_hook=_validate).decode)


def _validate(wanted: type, value: Any) -> Any:
    """What msgspec does not know: pydantic models inside of other types."""
    validate = getattr(wanted, "model_validate", None)
    if validate is None:
        raise NotImplementedError(f"{wanted!r} is no type that can be decoded")
    return validate(value)


def _guard(decode: Callable[[bytes], Any]) -> Read:
    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadPayload(" ".join(str(error).split())) from None

    return read


def _read_any(data: bytes) -> Any:
    """Protobuf says no kind: JSON where it is JSON, else text where it is UTF-8, else bytes."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _read_str(data: bytes) -> str:
    """A JSON string, or text as it is."""
    try:
        return msgspec.json.decode(data, type=str)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadPayload("bytes that are not UTF-8 are no text") from None


_read_json = _guard(msgspec.json.decode)


def read_data(data: bytes, tags: Mapping[str, str], read: Read) -> Any:
    """What was published; bytes travel through JSON sessions as base64 with a tag. Raises ``BadPayload``."""
    if tags.get("encoding") == "base64":
        try:
            data = base64.b64decode(msgspec.json.decode(data, type=str), validate=True)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise BadPayload("bytes that are not base64") from None
        return data if read is _read_json else read(data)
    return read(data)


def read_info(data: msgspec.Raw) -> Any:
    """What is told of a member; None: nothing."""
    raw = bytes(data)
    return _read_any(raw) if raw else None


def read_member(info: ClientInfo) -> Member:
    """A member as the protocol says it."""
    return Member(info.client, info.user, read_info(info.conn_info), read_info(info.chan_info))


def encode_optional(value: object, codec: Codec) -> msgspec.Raw:
    """As ``encode_data``; nothing for None."""
    return NOTHING if value is None else encode_data(value, codec)
