"""Values and bytes: what ``publish`` makes of an object, and what a POST or a frame must be (CONTRACTS 3)."""

from __future__ import annotations

from typing import Any

import msgspec

from tidewire.errors import BadPayload, TooLarge
from tidewire.protocol.message import Kind


def _dump_model(value: Any) -> Any:
    """What msgspec does not know itself: pydantic models, and anything else with the same method."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    raise NotImplementedError


_encoder = msgspec.json.Encoder(enc_hook=_dump_model)


def encode(value: object) -> tuple[Kind, bytes]:
    """``str`` is text, bytes are bytes, everything else is compact JSON.

    Takes what msgspec takes (dict, list, numbers, dataclasses, Struct, datetime, UUID, Enum, ...) and
    pydantic models. Raises ``BadPayload`` naming the type that JSON has no form for.
    """
    if isinstance(value, str):
        return Kind.TEXT, _utf8(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return Kind.BYTES, bytes(value)
    return Kind.JSON, encode_json(value)


def encode_json(value: object) -> bytes:
    """``value`` as compact JSON; raises ``BadPayload``."""
    try:
        return _encoder.encode(value)
    except (NotImplementedError, TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayload(f"a {type(value).__name__} cannot be published as JSON: {error}") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadPayload("the text holds a lone surrogate, which UTF-8 cannot say") from None


def check_json(data: bytes) -> bytes:
    """``data`` as compact JSON text, validated; raises ``BadPayload`` saying where it is malformed."""
    try:
        data.decode()
        return bytes(msgspec.json.format(data, indent=-1))
    except UnicodeDecodeError as error:
        raise BadPayload(f"the JSON is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise BadPayload("the JSON is nested too deeply") from None
    except msgspec.MsgspecError as error:
        raise BadPayload(f"not JSON: {error}") from None


def split_json(data: bytes) -> list[bytes]:
    """A POSTed JSON body as messages: an array is a batch of its elements, anything else is one message."""
    compact = check_json(data)
    if not compact.startswith(b"["):
        return [compact]
    return [bytes(part) for part in msgspec.json.decode(compact, type=list[msgspec.Raw])]


def check_text(data: bytes) -> bytes:
    """``data`` when it is UTF-8, else ``BadPayload``."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise BadPayload(f"the text is not UTF-8: byte {error.start}") from None
    return data


def check_size(payload: bytes, limit_bytes: int) -> bytes:
    """``payload`` when it fits, else ``TooLarge`` naming both numbers."""
    if len(payload) > limit_bytes:
        raise TooLarge(len(payload), limit_bytes)
    return payload


def read_field(payload: bytes, field: str) -> str:
    """The value of ``field`` in a JSON object, as text; raises ``BadPayload`` when it is not there."""
    try:
        value = msgspec.json.decode(payload)[field]
    except (KeyError, TypeError):
        raise BadPayload(f"the topic is keyed by {field!a}, and this message has no such field") from None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_key(value)
    raise BadPayload(f"the field {field!a} must be a string or a number to be a key")


def format_key(value: object) -> str:
    """A key as text: 4200 and 4200.0 are the same key."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def removal(key: str | None, field: str | None = None) -> bytes:
    """How readers that see payloads only hear that a key is gone: ``{"<field>": key, "removed": true}``."""
    return _encoder.encode({field or "key": key, "removed": True})
