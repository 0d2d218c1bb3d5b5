"""One reader on one topic, and what the hub says to it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidewire.hub.conflator import Conflator
from tidewire.hub.outbox import Batch, Outbox
from tidewire.protocol.message import End, Message
from tidewire.protocol.position import Position

Encode = Callable[[Sequence[Message]], Batch]
"""What messages look like in one dialect. Readers with the same function (the same object) share its batches."""


class State(enum.Enum):
    """The life of a subscription; it moves only downward."""

    CATCHING_UP = "catching up"
    JOINING = "joining"
    """It has read more of the history than has been delivered here; what it has already is dropped for it."""
    LIVE = "live"
    ENDED = "ended"


class Eviction(enum.Enum):
    """Why the hub gave a reader up."""

    SLOW = "slow"
    """Its outbox was full (``Log``), or it held back more keys than there may be (``Latest``)."""
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Opened:
    """How a subscription begins.

    ``start``: what follows comes after this position (None on a ``Signal``). ``recovered``: whether the position
    that was asked for is continued (None: none was asked for). ``replayed``: messages of the past that follow.
    ``page``: these, where they are few enough to be said at once (``Log`` only).
    """

    start: Position | None
    recovered: bool | None
    replayed: int
    page: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages after ``since`` and up to ``until`` are lost to this reader. ``since`` None: not known from where."""

    since: Position | None
    until: Position


class Reader(Protocol):
    """What a dialect implements for each subscription. Nothing here may block or raise."""

    @property
    def outbox(self) -> Outbox:
        """The queue of the connection."""

    @property
    def encode(self) -> Encode:
        """The dialect; the same object for all who share batches."""

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """The subscription begins; called once, before its first message is queued.

        Returns whether it has said ``how.page`` itself, so that this is not queued any more.
        """

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """Say that something is missing, at this place of the queue."""

    def ended(self, subscription: Subscription, end: End) -> None:
        """The topic is finished; everything before it is queued."""

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The hub has unregistered this reader; end the connection with the matching code."""


class Subscription:
    """One reader on one topic. The hub moves it; readers only look."""

    __slots__ = (
        "at",
        "buffer_full",
        "conflator",
        "outbox",
        "outstanding",
        "rate",
        "reader",
        "sent",
        "state",
        "topic",
    )

    def __init__(self, topic: str, reader: Reader, rate: float | None = None) -> None:
        self.topic = topic
        self.reader = reader
        # the reader's, looked up once
        self.outbox = reader.outbox
        self.state = State.CATCHING_UP
        # flushes per second this reader gets at most; only Latest topics have one
        self.rate = rate
        # everything up to here has been queued for it; only Log topics use it, and only until it is live
        self.at: Position | None = None
        # what was delivered while history is being read became too much to keep
        self.buffer_full = False
        # values held back for this reader alone; only Latest topics use it
        self.conflator: Conflator | None = None
        # batches queued for this subscription and not yet written
        self.outstanding = 0
        # position of the last message handed to the socket
        self.sent: Position | None = None

    def began_in(self, epoch: str) -> bool:
        """Whether this reader's state is of ``epoch`` already (a reader that holds values back knows)."""
        return self.conflator is not None and self.conflator.seen.epoch == epoch

    def offer(self, batch: Batch) -> bool:
        """Queue ``batch``; False when the connection has no room for it."""
        if not self.outbox.offer(batch, self):
            return False
        self.outstanding += 1
        return True

    def put(self, batch: Batch) -> None:
        """Queue ``batch`` on the connection, which has been seen to have room."""
        self.outstanding += 1
        self.outbox.put(batch, self)

    def pull(self) -> Batch | None:
        """Give the outbox the next values that were held back."""
        messages = self.conflator.pull() if self.conflator is not None else []
        if not messages:
            return None
        self.outstanding += 1
        return self.reader.encode(messages)

    def handed_over(self, batch: Batch) -> None:
        """The outbox has written ``batch``."""
        self.outstanding -= 1
        if batch.position is not None:
            self.sent = batch.position
