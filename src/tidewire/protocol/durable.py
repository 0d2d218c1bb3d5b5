"""Durable Streams: what its headers mean, and what its event stream looks like (PROTOCOL.md 1.0). Pure functions.

Header values come as a server hands them over, decoded from latin-1. What cannot be read raises ``BadPayload`` with
a sentence for the caller.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidewire.errors import BadPayload
from tidewire.protocol.message import Kind, Message, Producer
from tidewire.protocol.position import Position

_json = msgspec.json.Encoder()

NUMBER_MAX = 2**53 - 1
"""The largest integer that JavaScript counts exactly (5.2.1)."""
NAME_MAX = 255
"""Characters in a producer's id, a ``Stream-Seq`` and a content type; ours: brokers keep them."""

CURSOR_BEGIN_MS = 1_728_432_000_000
"""October 9, 2024, where cursors are counted from (10.1)."""
CURSOR_INTERVAL_S = 20
CURSOR_JITTER_MAX_S = 3600

_NUMBER = re.compile(r"0|[1-9][0-9]*")
_DIGITS = re.compile(r"[0-9]{1,20}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+*-]+[\x20-\x7e]*")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


# Headers


def is_true(text: str | None) -> bool:
    """Whether a ``Stream-Closed`` header is there: any other value is as if it were not (4.1)."""
    return text is not None and text.lower() == "true"


def parse_ttl(text: str) -> int:
    """``Stream-TTL`` in seconds: decimal, no sign, no leading zero (5.1)."""
    if not _NUMBER.fullmatch(text) or int(text) > NUMBER_MAX:
        raise BadPayload("Stream-TTL is a number of seconds, written in digits without a leading zero")
    return int(text)


def parse_expiry(text: str) -> int:
    """``Stream-Expires-At`` (RFC 3339) as milliseconds since 1970."""
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(_cut_fraction(text.upper()))
        return int(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadPayload("Stream-Expires-At is a moment as in RFC 3339, such as 2030-01-31T12:00:00Z") from None


def _cut_fraction(text: str) -> str:
    """Python reads microseconds, RFC 3339 allows more digits."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)


def format_expiry(expires_ms: int) -> str:
    """The same moment as text, in UTC."""
    moment = datetime.fromtimestamp(expires_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_producer(headers: Mapping[str, str]) -> Producer | None:
    """The three ``Producer-`` headers, all of them or none (5.2.1)."""
    texts = [headers.get(name) for name in ("producer-id", "producer-epoch", "producer-seq")]
    if texts == [None, None, None]:
        return None
    name, epoch, sequence = texts
    if name is None or epoch is None or sequence is None:
        raise BadPayload("Producer-Id, Producer-Epoch and Producer-Seq belong together: send all three, or none")
    if not 1 <= len(name) <= NAME_MAX:
        raise BadPayload(f"a Producer-Id has 1 to {NAME_MAX} characters")
    return Producer(name, _parse_count("Producer-Epoch", epoch), _parse_count("Producer-Seq", sequence))


def _parse_count(header: str, text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > NUMBER_MAX:
        raise BadPayload(f"{header} is a whole number from 0 to {NUMBER_MAX}, written in digits")
    return int(text)


def parse_order(text: str | None) -> str | None:
    """``Stream-Seq``: any text, compared byte by byte (5.2). Latin-1 sorts as its bytes do."""
    if text is not None and not 1 <= len(text) <= NAME_MAX:
        raise BadPayload(f"a Stream-Seq has 1 to {NAME_MAX} characters")
    return text


# Content types


def check_content_type(text: str) -> str:
    """A content type that a stream may have; it is sent back to every reader as it is."""
    text = text.strip()
    if len(text) > NAME_MAX or not _MEDIA_TYPE.fullmatch(text):
        raise BadPayload(f"a Content-Type is type/subtype, of at most {NAME_MAX} characters")
    return text


def essence(content_type: str) -> str:
    """The media type without parameters, in small letters: what is compared."""
    return content_type.partition(";")[0].strip().lower()


def kind_of(content_type: str) -> Kind:
    """What the messages of such a stream are: JSON, text, or else bytes (5.8, 9)."""
    media_type = essence(content_type)
    if media_type == "application/json":
        return Kind.JSON
    return Kind.TEXT if media_type.startswith("text/") else Kind.BYTES


_CONTENT_TYPES = {
    Kind.JSON: "application/json",
    Kind.TEXT: "text/plain; charset=utf-8",
    Kind.BYTES: "application/octet-stream",
}


def content_type_of(kind: Kind) -> str:
    """The content type of a stream whose creator named none."""
    return _CONTENT_TYPES[kind]


# Reading


def join(messages: Sequence[Message], kind: Kind) -> bytes:
    """The bytes of a stream: JSON messages as one array (9.1), everything else end to end."""
    if kind is Kind.JSON:
        return b"[" + b",".join([as_json(message) for message in messages]) + b"]"
    return b"".join([message.payload for message in messages])


def as_json(message: Message) -> bytes:
    """A message as a JSON value: text as a string, bytes as a base64 string."""
    if message.kind is Kind.JSON:
        return message.payload
    if message.kind is Kind.TEXT:
        return _json.encode(message.payload.decode())
    return _json.encode(base64.b64encode(message.payload).decode())


def matches(etag: str, if_none_match: str | None) -> bool:
    """Whether ``If-None-Match`` names ``etag`` (RFC 9110 13.1.2: weak comparison, a list, or ``*``)."""
    if if_none_match is None:
        return False
    named = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in named or etag in named


def interval_of(now_ms: int) -> int:
    """The number of the interval of ``now_ms``: the cursor of whoever brings none (10.1)."""
    return (now_ms - CURSOR_BEGIN_MS) // (CURSOR_INTERVAL_S * 1000)


def cursor_floor(asked: str | None, now_ms: int, jitter_s: int) -> int:
    """The least cursor that may be given to a reader who brings ``asked``; 0: any.

    Cursors never go back, and a reader that brings the present one gets a later one (``jitter_s`` later, 1 to 3600),
    so that no cache answers it the same for ever. What is no cursor is ignored.
    """
    if asked is None or not _DIGITS.fullmatch(asked) or int(asked) < interval_of(now_ms):
        return 0
    return int(asked) + max(1, jitter_s // CURSOR_INTERVAL_S)


# Event stream


def data_event(messages: Sequence[Message], kind: Kind) -> bytes:
    """``event: data``: text and JSON as they are, bytes as base64 (5.8)."""
    body = join(messages, kind)
    if kind is Kind.BYTES:
        body = base64.b64encode(body)
    elif b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = body.split(b"\n")
    # a reader takes one space off each line
    return b"event: data\n" + b"".join([b"data:%s%s\n" % (b" " if x[:1] == b" " else b"", x) for x in lines]) + b"\n"


def control_event(position: Position, cursor: int | None, *, up_to_date: bool, closed: bool = False) -> bytes:
    """``event: control``: where the reader is. The id lets an ``EventSource`` resume, which cannot change its URL."""
    fields: dict[str, Any] = {"streamNextOffset": str(position)}
    if cursor is not None and not closed:
        fields["streamCursor"] = str(cursor)
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return b"id: %s\nevent: control\ndata:%s\n\n" % (str(position).encode(), _json.encode(fields))
