"""Several topics in one stream: the text that carries all their positions, and what the events look like. Pure.

A browser opens six HTTP/1.1 connections to a host, and an ``EventSource`` brings back one id: it has to say where the
reader was in each topic. The text is ``key.epoch:offset`` for each, joined by commas; the key is short and made from
the name, so that a reader may ask for more topics, or fewer, when it comes back. ``key.-1`` is the start of a topic
that was followed from its start and had not got anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping

from tidewire.errors import BadPosition
from tidewire.protocol.message import Message
from tidewire.protocol.plain import positions_frame
from tidewire.protocol.position import Position, Since, parse_since

_ENTRY = re.compile(r"([A-Za-z0-9_-]{8})\.(-1|[A-Za-z0-9_-]{1,32}:[0-9]{1,20})")


def key_of(topic: str) -> str:
    """A name in eight characters: 48 bits, among the topics of one stream."""
    return base64.urlsafe_b64encode(hashlib.blake2b(topic.encode(), digest_size=6).digest()).decode()


def entry(topic_key: str, place: Since) -> str:
    """One topic's part of the text; offsets are not padded here, nobody sorts these."""
    if isinstance(place, Position):
        return f"{topic_key}.{place.epoch}:{place.offset}"
    return f"{topic_key}.-1"


def format_places(places: Mapping[str, Since]) -> str:
    """All positions, by the keys of their topics."""
    return ",".join([entry(name, place) for name, place in places.items()])


def parse_places(text: str) -> dict[str, Since]:
    """The positions by the keys of their topics; raises ``BadPosition``."""
    places: dict[str, Since] = {}
    for part in text.split(","):
        found = _ENTRY.fullmatch(part)
        if found is None:
            raise BadPosition(part)
        places[found.group(1)] = parse_since(found.group(2))
    return places


class Places:
    """Where a reader of several topics is in each, as the text for its next event."""

    __slots__ = ("_entries", "_text")

    def __init__(self, places: Mapping[str, Since]) -> None:
        self._entries = {name: entry(name, place) for name, place in places.items()}
        # the joined text, until something changes
        self._text: str | None = None

    def move(self, topic_key: str, place: Position) -> None:
        """The reader has everything of this topic up to ``place``."""
        self._entries[topic_key] = entry(topic_key, place)
        self._text = None

    @property
    def text(self) -> str:
        """All of them; empty when there are none."""
        if self._text is None:
            self._text = ",".join(self._entries.values())
        return self._text


def message_data(message: Message, topic: str) -> bytes:
    """The ``data`` line of a message: the frame that a WebSocket gets."""
    return b"data: %s\n" % positions_frame(message, topic).encode()


def said_data(name: str, frame: str) -> bytes:
    """A word about a topic (``position``, ``gap``, ``end``) as a named event, without its id."""
    return b"event: %s\ndata: %s\n" % (name.encode(), frame.encode())
