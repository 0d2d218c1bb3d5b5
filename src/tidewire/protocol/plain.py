"""The plain dialect: one URL is one topic. What its messages look like on a WebSocket and in an event stream.

Bare WebSocket: payloads only (CONTRACTS 5). With ``?positions=1`` every frame is one JSON object. The event
stream is that of the HTML standard (section 9.2, server-sent events). Pure functions from messages to bytes.
"""

from __future__ import annotations

import base64

import msgspec

from tidewire.protocol.durable import as_json, content_type_of
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.position import Position

_json = msgspec.json.Encoder()


def position_of(message: Message) -> Position | None:
    """Where ``message`` stands, or None when nothing is numbered."""
    return Position(message.epoch, message.offset) if message.offset else None


# WebSocket


def bare_frame(message: Message) -> str | bytes:
    """The payload as a text frame (json, text) or a binary frame (bytes)."""
    return message.payload if message.kind is Kind.BYTES else message.payload.decode()


def positions_frame(message: Message, topic: str | None = None) -> str:
    """One JSON object: ``position`` and ``data`` (or ``text``, ``base64``), and ``key``, ``removed``, ``snapshot``.

    ``topic`` comes first where a stream has several (``server.many``), in all of these frames.
    """
    frame = _frame(topic, position=_text(position_of(message)))
    if message.key is not None:
        frame["key"] = message.key
    if message.removed:
        frame["removed"] = True
        return _json.encode(frame).decode()
    if message.snapshot:
        frame["snapshot"] = True
    if message.kind is Kind.JSON:
        frame["data"] = msgspec.Raw(message.payload)
    elif message.kind is Kind.TEXT:
        frame["text"] = message.payload.decode()
    else:
        frame["base64"] = base64.b64encode(message.payload).decode()
    return _json.encode(frame).decode()


def opened_frame(position: Position | None, recovered: bool | None, replayed: int, topic: str | None = None) -> str:
    """The first frame with ``?positions=1``: what follows comes after ``position``."""
    frame = _frame(topic, position=_text(position), recovered=recovered, replayed=replayed)
    return _json.encode(frame).decode()


def gap_frame(since: Position | None, until: Position, topic: str | None = None) -> str:
    """Messages after ``from`` and up to ``to`` are lost to this reader."""
    return _json.encode(_frame(topic, gap={"from": _text(since), "to": str(until)})).decode()


def end_frame(position: Position | None, error: str | None, topic: str | None = None) -> str:
    """The topic is finished."""
    return _json.encode(_frame(topic, end={"position": _text(position), "error": error})).decode()


def _frame(topic: str | None, **fields: object) -> dict[str, object]:
    return fields if topic is None else {"topic": topic, **fields}


def _text(position: Position | None) -> str | None:
    return None if position is None else str(position)


# Event stream


def _event(name: str | None, position: Position | None, lines: list[bytes]) -> bytes:
    head = b"" if name is None else b"event: %s\n" % name.encode()
    if position is not None:
        head += b"id: %s\n" % str(position).encode()
    return head + b"".join(b"data: %s\n" % line for line in lines) + b"\n"


def _lines(payload: bytes) -> list[bytes]:
    """One ``data`` line per line: the stream's own line ends are LF, CR and CRLF alike (HTML 9.2.6)."""
    return payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def message_event(message: Message) -> bytes:
    """A message: unnamed for json and text, ``binary`` (base64) for bytes, ``removed`` for a key that is gone."""
    position = position_of(message)
    if message.removed:
        return _event("removed", position, [_json.encode({"key": message.key})])
    if message.kind is Kind.BYTES:
        return _event("binary", position, [base64.b64encode(message.payload)])
    if message.kind is Kind.JSON and b"\n" not in message.payload:
        return _event(None, position, [message.payload])
    return _event(None, position, _lines(message.payload))


def opened_event(position: Position | None, recovered: bool | None, replayed: int, retry_ms: int) -> bytes:
    """The first event, named ``position``; its id makes a reader resume that is cut before the first message."""
    data = {"position": _text(position), "recovered": recovered, "replayed": replayed}
    return b"retry: %d\n" % retry_ms + _event("position", position, [_json.encode(data)])


def gap_event(since: Position | None, until: Position) -> bytes:
    """Something is lost; the id moves the reader past it."""
    return _event("gap", until, [_json.encode({"from": _text(since), "to": str(until)})])


def end_event(position: Position | None, error: str | None) -> bytes:
    """The topic is finished. The reader asks once more with this id and is answered 204."""
    return _event("end", position, [_json.encode({"error": error})])


def retry_event(retry_ms: int) -> bytes:
    """Tell the reader when to come back; sent before the server ends a stream itself."""
    return b"retry: %d\n\n" % retry_ms


HEARTBEAT = b": alive\n\n"
"""A comment: readers ignore it, proxies and peers see that the stream lives."""
EVENT_STREAM = "text/event-stream"


# Plain reads (what is kept, then the response ends)


def join_payloads(messages: list[Message], declared: Kind | None, *, exact: bool) -> tuple[str, bytes]:
    """Media type and body of kept messages.

    JSON is an array (Durable Streams 9.1). Text is one message per line, or the bytes as they are when
    ``exact``; bytes are joined. What is mixed becomes a JSON array: text as strings, bytes as base64 strings.
    ``declared`` decides where the topic promises one kind; otherwise the messages do.
    """
    values = [message for message in messages if not message.removed]
    kinds = {message.kind for message in values}
    kind = declared or (kinds.pop() if len(kinds) == 1 else Kind.JSON)
    if kind is Kind.JSON:
        return content_type_of(kind), b"[" + b",".join(as_json(m) for m in values) + b"]"
    line_end = b"\n" if kind is Kind.TEXT and not exact else b""
    return content_type_of(kind), b"".join(m.payload + line_end for m in values)
