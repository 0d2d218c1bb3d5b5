"""What an application publishes, before (``Draft``) and after (``Message``) a broker has numbered it."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.Enum):
    """What the payload bytes are; a message stays what it was published as (CONTRACTS 3)."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message on its way to the broker.

    ``payload`` is encoded already; ``key`` is set on keyed ``Latest`` topics; ``removed`` marks the
    word that a key is gone; ``id`` makes the publish idempotent within the broker's window.
    """

    payload: bytes
    kind: Kind
    key: str | None = None
    removed: bool = False
    id: str | None = None


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


class End(msgspec.Struct, frozen=True, gc=False):
    """The word that a topic is finished: nothing follows ``offset``. ``error`` is None when all is well."""

    epoch: str = ""
    offset: int = 0
    error: str | None = None
