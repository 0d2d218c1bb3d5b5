"""What has come for a consumer and is not read yet: bounded, and what is dropped is told. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Literal, Protocol, TypeVar

from tidewire.client.errors import ConsumerTooSlow
from tidewire.client.resume import Gap
from tidewire.errors import ClientError
from tidewire.protocol.packets import ClientInfo
from tidewire.protocol.position import Position

OnOverflow = Literal["pause", "drop", "error"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as it came. ``gap``: what is lost before it."""

    topic: str
    data: bytes
    tags: Mapping[str, str]
    position: Position | None = None
    gap: Gap | None = None
    publisher: ClientInfo | None = None


class Put(Enum):
    """What became of an entry."""

    TAKEN = "taken"
    PAUSE = "pause"
    """It was not taken: there is no room, and what comes can be asked for again."""
    FAIL = "fail"
    """It cannot be taken; ``refusal`` says why."""


class Sink(Protocol):
    """Where the messages of a subscription go."""

    def begin(self, position: Position | None, *, is_new: bool) -> None:
        """What comes follows after ``position``. ``is_new``: it does not continue what came before."""

    def put(self, entry: Entry, *, may_pause: bool) -> Put:
        """Take ``entry``, in the order of the topic. ``may_pause``: what is not taken now can be had later."""

    def refusal(self, topic: str) -> ClientError:
        """What ends a subscription whose entry was not taken (``Put.FAIL``)."""


def say(position: Position | None) -> str | None:
    """A position as users see it."""
    return None if position is None else str(position)


def join_gaps(first: Gap | None, second: Gap | None) -> Gap | None:
    """Both as one: lost from where the first begins up to where the second ends."""
    if first is None or second is None:
        return first or second
    return Gap(first.from_position, second.to_position)


class Inbox:
    """A queue of entries for one consumer; ``messages_max`` and ``bytes_max`` bound it, with room for one always.

    Full, it follows ``on_overflow``. "pause": nothing more is taken, and the subscription asks for the rest when there
    is room (where the topic has positions; else as "drop"). "drop": the oldest goes, counted in ``dropped``, and is
    told as the gap of the next one read. "error": the subscription ends.
    """

    def __init__(self, *, messages_max: int, bytes_max: int, on_overflow: OnOverflow) -> None:
        self.dropped = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._on_overflow = on_overflow
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        # the position of the last one read or dropped
        self._at: Position | None = None
        # dropped before the first one here
        self._lost: Gap | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def refusal(self, topic: str) -> ClientError:
        """See ``Sink``."""
        return ConsumerTooSlow(topic, len(self._entries))

    @property
    def is_low(self) -> bool:
        """Whether there is room for many again."""
        return len(self._entries) <= self._messages_max // 4 and self._bytes <= self._bytes_max // 4

    def begin(self, position: Position | None, *, is_new: bool) -> None:
        """See ``Sink``: from there on it is lost if it is dropped; gaps are said by the messages themselves."""
        if not self._entries:
            self._at = position

    def put(self, entry: Entry, *, may_pause: bool) -> Put:
        """See ``Sink``."""
        size = len(entry.data)
        while self._entries and (len(self._entries) >= self._messages_max or self._bytes + size > self._bytes_max):
            if self._on_overflow == "error":
                return Put.FAIL
            if self._on_overflow == "pause" and may_pause:
                return Put.PAUSE
            self._drop_oldest()
        self._entries.append(entry)
        self._bytes += size
        return Put.TAKEN

    def take(self) -> Entry | None:
        """The oldest, with everything that is lost before it; None: nothing is here."""
        if not self._entries:
            return None
        entry = self._pop()
        lost, self._lost = self._lost, None
        if lost is None:
            return entry
        gap = join_gaps(lost, entry.gap)
        return Entry(entry.topic, entry.data, entry.tags, entry.position, gap, entry.publisher)

    def _drop_oldest(self) -> None:
        before = self._at
        entry = self._pop()
        self.dropped += 1
        lost = Gap(say(before), say(entry.position))
        self._lost = join_gaps(join_gaps(self._lost, entry.gap), lost)

    def _pop(self) -> Entry:
        entry = self._entries.popleft()
        self._bytes -= len(entry.data)
        self._at = entry.position or self._at
        return entry


class Notes(Generic[T]):
    """A bounded queue of notes for one consumer; of more, the oldest goes, and that is told before the next one.

    ``missed`` is what tells it.
    """

    def __init__(self, messages_max: int, missed: T) -> None:
        self._notes: deque[T] = deque(maxlen=messages_max)
        self._missed = missed
        self._is_missing = False

    def __len__(self) -> int:
        return len(self._notes) + self._is_missing

    def put(self, note: T) -> None:
        """Keep it."""
        self._is_missing |= len(self._notes) == self._notes.maxlen
        self._notes.append(note)

    def miss(self) -> None:
        """From here on back, nobody knows everything: what waits is forgotten too, it would mislead."""
        self._notes.clear()
        self._is_missing = True

    def take(self) -> T | None:
        """The oldest, or that some are missing; None: nothing is here."""
        if self._is_missing:
            self._is_missing = False
            return self._missed
        return self._notes.popleft() if self._notes else None
