"""What a WebSocket with ``?positions=1`` says, read from JSON text. Pure.

First a ``Header``, then ``Item`` and ``Lost`` in any order, at last perhaps an ``Ended``.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tidewire.errors import BadPosition
from tidewire.protocol.position import Position, parse_position

Kind = Literal["json", "text", "bytes"]


class Garbage(ValueError):
    """Not what a Tidewire topic says; the text is one sentence saying what came instead."""


@dataclass(frozen=True, slots=True)
class Header:
    """Messages follow after ``position`` (None: the topic numbers nothing), the first ``replayed`` at once.

    ``recovered``: whether the ``since`` that was asked for is honoured; None when none was asked for.
    """

    position: Position | None
    recovered: bool | None
    replayed: int


@dataclass(frozen=True, slots=True)
class Item:
    """One message; ``data`` is a JSON value, str or bytes as ``kind`` says."""

    data: Any
    kind: Kind
    position: Position | None
    key: str | None = None
    removed: bool = False
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Between ``start`` and ``end`` messages are lost; what follows comes after ``end``. None: not known."""

    start: Position | None
    end: Position | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The topic is finished; ``error`` is None when all is well."""

    position: Position | None
    error: str | None


Envelope = Header | Item | Lost | Ended


class _Gap(msgspec.Struct, rename={"start": "from", "end": "to"}):
    start: str | None = None
    end: str | None = None


class _End(msgspec.Struct):
    position: str | None = None
    error: str | None = None


class _Wire(msgspec.Struct):
    """Every field any envelope has; unknown ones are ignored, so that servers may say more later."""

    position: str | UnsetType | None = UNSET
    recovered: bool | UnsetType | None = UNSET
    replayed: int | UnsetType = UNSET
    data: Any = UNSET
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    key: str | None = None
    removed: bool = False
    snapshot: bool = False
    gap: _Gap | UnsetType = UNSET
    end: _End | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Wire)


def parse_envelope(frame: str | bytes) -> Envelope:
    """One frame, read; raises ``Garbage``."""
    if isinstance(frame, bytes):
        raise Garbage("it sent a binary frame where JSON text was expected")
    try:
        wire = _decoder.decode(frame)
    except RecursionError:
        raise Garbage("it sent JSON that is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Garbage(f"it sent {_quote(frame)}, which is no message with a position ({error})") from None
    try:
        envelope = _read(wire)
    except BadPosition as error:
        raise Garbage(str(error)) from None
    if envelope is None:
        raise Garbage(f"it sent {_quote(frame)}, which is no message with a position")
    return envelope


def parse_header(frame: str | bytes) -> Header:
    """The first frame of a connection; raises ``Garbage``."""
    header = parse_envelope(frame)
    if not isinstance(header, Header):
        raise Garbage(f"it began with {_quote(frame)} instead of saying its position")
    return header


def _read(wire: _Wire) -> Envelope | None:
    if wire.gap is not UNSET:
        # a loss after "since=-1" begins at no position
        start = None if wire.gap.start in ("-1", "now") else wire.gap.start
        return Lost(_position(start), _position(wire.gap.end))
    if wire.end is not UNSET:
        return Ended(_position(wire.end.position), wire.end.error)
    position = _position(wire.position)
    if wire.recovered is not UNSET:
        replayed = 0 if wire.replayed is UNSET else wire.replayed
        if replayed < 0:
            return None
        return Header(position, wire.recovered, replayed)
    if wire.removed:
        return Item(None, "json", position, wire.key, removed=True)
    return _read_item(wire, position)


def _read_item(wire: _Wire, position: Position | None) -> Item | None:
    data: Any
    kind: Kind
    if wire.data is not UNSET:
        data, kind = wire.data, "json"
    elif wire.text is not UNSET:
        data, kind = wire.text, "text"
    elif wire.base64 is not UNSET:
        data, kind = _unbase64(wire.base64), "bytes"
    else:
        return None
    return Item(data, kind, position, wire.key, snapshot=wire.snapshot)


def _position(text: str | UnsetType | None) -> Position | None:
    return None if text is None or text is UNSET else parse_position(text)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Garbage("it sent bytes that are not base64") from None


def _quote(frame: str | bytes) -> str:
    return ascii(frame[:60]) + ("..." if len(frame) > 60 else "")
