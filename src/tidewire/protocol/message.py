"""What an application publishes, before (``Draft``) and after (``Message``) a broker has numbered it."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.Enum):
    """What the payload bytes are; a message stays what it was published as (CONTRACTS 3)."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Producer(msgspec.Struct, frozen=True, gc=False):
    """Who appends, and which of its appends this is (Durable Streams 5.2.1).

    ``id`` names the producer across restarts, ``epoch`` its incarnation, ``sequence`` counts the appends of one
    incarnation from 0.
    """

    id: str
    epoch: int
    sequence: int


class Stream(msgspec.Struct, frozen=True, gc=False):
    """What a topic was created as; it never changes (Durable Streams 5.1).

    ``content_type`` is what readers are told. ``ttl_s``: it expires when nobody has read or written for so long.
    ``expires_ms``: milliseconds since 1970 when it expires.
    """

    content_type: str
    ttl_s: int | None = None
    expires_ms: int | None = None


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What an append, or an end, asks for; checked in the same step.

    ``must_exist``: the topic must be there. ``content_type``: that of the stream must be the same.
    ``producer`` makes a repetition harmless; ``order`` must sort after that of the append before (``Stream-Seq``).
    ``closes``: the topic is finished with this append. ``creates`` is the publisher's word to itself: where the topic
    is not there, it may be created.
    """

    must_exist: bool = False
    content_type: str | None = None
    producer: Producer | None = None
    order: str | None = None
    closes: bool = False
    creates: bool = False


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message on its way to the broker, or several of one kind.

    ``payload`` is encoded already; ``key`` is set on keyed ``Latest`` topics; ``removed`` marks the
    word that a key is gone; ``id`` makes the publish idempotent within the broker's window. ``more`` are the
    messages that follow the first in the same step; ``terms`` what is asked for. ``publisher`` says which client
    publishes (``Message.publisher``).
    """

    payload: bytes
    kind: Kind
    key: str | None = None
    removed: bool = False
    id: str | None = None
    more: tuple[bytes, ...] = ()
    terms: Terms | None = None
    publisher: bytes = b""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message with its place. ``offset`` is 0 and ``epoch`` empty where nothing is numbered (``Signal``)."""

    payload: bytes
    kind: Kind
    epoch: str = ""
    offset: int = 0
    key: str | None = None
    removed: bool = False
    snapshot: bool = False
    """A value that the topic function returned: the state at this position, not something published."""
    topic: str = ""
    """On its way to readers of a pattern: which topic it is of. Empty elsewhere."""
    publisher: bytes = b""
    """The connection that has published it, as JSON for who asks in sessions; empty where the application did."""


class End(msgspec.Struct, frozen=True, gc=False):
    """The word that a topic is finished: nothing follows ``offset``. ``error`` is None when all is well.

    ``gone``: the topic was deleted or has expired; what comes under its name is another.
    """

    epoch: str = ""
    offset: int = 0
    error: str | None = None
    gone: bool = False
