"""The readers of the plain dialect: how a subscription speaks on a bare socket, with positions, as events."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.subscription import Encode, Eviction, Gap, Opened, Subscription
from tidewire.protocol import codes, plain
from tidewire.protocol.message import End, Kind, Message
from tidewire.protocol.position import Position
from tidewire.server.connection import Connection, Verdict
from tidewire.wire import frames


@dataclass(frozen=True, slots=True)
class Wording:
    """What the plain dialect's WebSocket messages are for one kind of link."""

    bare: Encode
    """Payloads only."""
    positions: Encode
    """One JSON object per message."""
    words: Callable[[str], Batch]
    """What the dialect itself says."""


def _batch(items: tuple[Any, ...], size_bytes: int, messages: Sequence[Message]) -> Batch:
    return Batch(items, size_bytes, len(messages), plain.position_of(messages[-1]))


def _bare_events(messages: Sequence[Message]) -> Batch:
    items = tuple(_websocket_event(plain.bare_frame(message)) for message in messages)
    return _batch(items, sum(len(message.payload) for message in messages), messages)


def _positions_events(messages: Sequence[Message]) -> Batch:
    texts = [plain.positions_frame(message) for message in messages]
    return _batch(tuple(_websocket_event(text) for text in texts), sum(map(len, texts)), messages)


def _event_words(text: str) -> Batch:
    return Batch((_websocket_event(text),), len(text), 0)


def _websocket_event(frame: str | bytes) -> dict[str, Any]:
    return {"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}


AS_EVENTS = Wording(_bare_events, _positions_events, _event_words)
"""For plain ASGI: items are ``websocket.send`` events, one for each message."""


def _bare_frames(messages: Sequence[Message]) -> Batch:
    parts: list[bytes] = []
    for message in messages:
        first = frames.WHOLE_BINARY if message.kind is Kind.BYTES else frames.WHOLE_TEXT
        parts += (frames.head(first, len(message.payload)), message.payload)
    return _joined(parts, messages)


def _positions_frames(messages: Sequence[Message]) -> Batch:
    parts: list[bytes] = []
    for message in messages:
        payload = plain.positions_frame(message).encode()
        parts += (frames.head(frames.WHOLE_TEXT, len(payload)), payload)
    return _joined(parts, messages)


def _joined(parts: list[bytes], messages: Sequence[Message]) -> Batch:
    blob = b"".join(parts)
    return _batch((blob,), len(blob), messages)


def _frame_words(text: str) -> Batch:
    frame = frames.message_frame(text)
    return Batch((frame,), len(frame), 0)


AS_FRAMES = Wording(_bare_frames, _positions_frames, _frame_words)
"""For sockets of our own wire: the one item is the frames of all messages, joined once for all readers."""


def encode_events(messages: Sequence[Message]) -> Batch:
    """Server-sent events, joined once for all readers of the batch."""
    blob = b"".join([plain.message_event(message) for message in messages])
    return _batch((blob,), len(blob), messages)


def _words(event: bytes) -> Batch:
    return Batch((event,), len(event), 0)


def _end_position(end: End) -> Position | None:
    return Position(end.epoch, end.offset) if end.epoch else None


class BareReader:
    """A WebSocket that sees payloads. Where every message counts (``Log``), a loss is told by closing with 4001."""

    # a server holds thousands of these
    __slots__ = ("_connection", "_every_message_counts", "_start", "encode")

    def __init__(self, connection: Connection, wording: Wording, *, every_message_counts: bool) -> None:
        self.encode = wording.bare
        self._connection = connection
        self._every_message_counts = every_message_counts
        # where the subscription began, until something has been sent
        self._start: Position | None = None

    @property
    def outbox(self) -> Outbox:
        """The connection's."""
        return self._connection.outbox

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """Nothing is said; ``lost`` follows when something is."""
        self._start = how.start
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """The close is the word; the reason names where to resume."""
        if self._every_message_counts:
            self._connection.end(Verdict(codes.GAP.code, f"gap {gap.until}", abrupt=False))

    def ended(self, subscription: Subscription, end: End) -> None:
        """Everything has been queued: close when it is sent."""
        self._connection.end(Verdict(codes.FINISHED.code, end.error or "", abrupt=False))

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """Too slow, or the server stops."""
        if why is Eviction.SHUTDOWN:
            self._connection.end(Verdict(codes.SHUTDOWN.code, "the server stops", abrupt=False))
        elif self._every_message_counts:
            self._connection.end(Verdict(codes.GAP.code, f"gap {subscription.sent or self._start}"))
        else:
            self._connection.end(Verdict(codes.SLOW.code, "too slow"))


class PositionsReader:
    """A WebSocket with ``?positions=1``: every frame says where it stands, losses are told in band."""

    __slots__ = ("_connection", "_wording", "encode")

    def __init__(self, connection: Connection, wording: Wording) -> None:
        self.encode = wording.positions
        self._connection = connection
        self._wording = wording

    @property
    def outbox(self) -> Outbox:
        """The connection's."""
        return self._connection.outbox

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """The first frame."""
        self.outbox.put(self._wording.words(plain.opened_frame(how.start, how.recovered, how.replayed)))
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """A gap frame."""
        self.outbox.put(self._wording.words(plain.gap_frame(gap.since, gap.until)))

    def ended(self, subscription: Subscription, end: End) -> None:
        """An end frame, then the close."""
        words = self._wording.words(plain.end_frame(_end_position(end), end.error))
        self._connection.end(Verdict(codes.FINISHED.code, end.error or "", abrupt=False, last_words=words))

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The gap message comes on return."""
        if why is Eviction.SHUTDOWN:
            self._connection.end(Verdict(codes.SHUTDOWN.code, "the server stops", abrupt=False))
        else:
            self._connection.end(Verdict(codes.SLOW.code, "too slow"))


class EventReader:
    """An event stream. ``retry_ms`` between 1 and 2 s, so that readers do not all come back at once."""

    encode = staticmethod(encode_events)

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self.outbox = connection.outbox
        self._connection = connection
        self._retry_ms = rng.randrange(1000, 2000)

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """The first event carries the position as its id."""
        self.outbox.put(_words(plain.opened_event(how.start, how.recovered, how.replayed, self._retry_ms)))
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """A gap event."""
        self.outbox.put(_words(plain.gap_event(gap.since, gap.until)))

    def ended(self, subscription: Subscription, end: End) -> None:
        """An end event, then the end of the stream."""
        words = _words(plain.end_event(_end_position(end), end.error))
        self._connection.end(Verdict(codes.FINISHED.code, abrupt=False, last_words=words))

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The stream ends; the reader comes back with its last id."""
        if why is Eviction.SHUTDOWN:
            words = _words(plain.retry_event(self._retry_ms // 2))
            self._connection.end(Verdict(codes.SHUTDOWN.code, abrupt=False, last_words=words))
        else:
            self._connection.end(Verdict(codes.SLOW.code))
