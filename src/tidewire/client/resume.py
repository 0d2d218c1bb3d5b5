"""Where a subscription stands across connections: what to ask for next, what to drop, what was lost. Pure.

One rule decides everything: positions. A connection that resumed drops what lies at or before the position it
resumed from; within a connection the server's order is taken as it comes. A loss is remembered until
a message can carry it, so nobody can miss the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidewire.client.envelope import Header, Item, Kind, Lost
from tidewire.errors import BadPosition
from tidewire.protocol.position import Position, parse_position


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages between two positions are lost. None where a position is not known (``Signal`` numbers nothing)."""

    from_position: str | None
    to_position: str | None

    @property
    def missing(self) -> int | None:
        """How many are lost, where both positions are of one numbering; None when it is not known."""
        start, end = _read(self.from_position), _read(self.to_position)
        if start is None or end is None or start.epoch != end.epoch or end.offset < start.offset:
            return None
        return end.offset - start.offset

    @property
    def is_history_lost(self) -> bool:
        """Whether the server began a new numbering: its history is gone, not only a part of it trimmed."""
        start, end = _read(self.from_position), _read(self.to_position)
        return start is not None and end is not None and start.epoch != end.epoch


@dataclass(frozen=True, slots=True)
class Received:
    """One message of a topic.

    ``data``: the JSON value, str or bytes, as ``kind`` ("json", "text", "bytes") says; None when ``removed``.
    ``position``: pass it as ``since`` to go on after this message; None on topics that number nothing.
    ``gap``: set on the first message after a loss. ``key``: on keyed topics, which value this is;
    ``removed``: the key is gone. ``snapshot``: the state at this position, told at the start, not a publish.
    """

    data: Any
    position: str | None = None
    gap: Gap | None = None
    key: str | None = None
    removed: bool = False
    kind: Kind = "json"
    snapshot: bool = False


class Tracker:
    """Feed it what connections say, in order; it answers what the user gets."""

    def __init__(self, since: str | None = None) -> None:
        # what the next connection asks for: a position, -1, now, or nothing
        self.since = since
        # a loss that no message has carried yet
        self.lost: Gap | None = None
        # the place up to which everything is delivered already, on a connection that resumed
        self._floor: Position | None = None
        # where this connection's header began, reached when its replay is complete
        self._start: Position | None = None
        # how many messages of the replay are still to come
        self._replaying = 0
        # whether the last connection numbered nothing, so that what passed between two cannot be known
        self._was_unnumbered = False

    def begin(self, header: Header) -> None:
        """A connection is live. Afterwards ``lost`` says whether something is missing before it."""
        asked = _read(self.since)
        self._floor = None
        self._start = header.position
        self._replaying = header.replayed
        is_broken = header.recovered is False or (asked is not None and header.recovered is None)
        if self._was_unnumbered or is_broken:
            self._lose(asked, header.position)
        else:
            self._floor = asked
        self._was_unnumbered = header.position is None
        if self._was_unnumbered:
            self.since = None
        elif header.replayed == 0:
            self.since = str(header.position)

    def lose(self, lost: Lost) -> bool:
        """The server told of a loss; returns whether that is news (the header tells of some already)."""
        before = self.lost
        self._lose(lost.start, lost.end)
        self._floor = None
        if lost.end is not None and self._replaying == 0:
            self.since = str(lost.end)
        return self.lost != before

    def _lose(self, start: Position | None, end: Position | None) -> None:
        first = _say(start) if self.lost is None else self.lost.from_position
        self.lost = Gap(first, _say(end))

    def take(self, item: Item) -> Received | None:
        """One message; None when it was delivered before the connection was cut."""
        self._advance(item)
        if self._is_known(item):
            return None
        gap, self.lost = self.lost, None
        return Received(item.data, _say(item.position), gap, item.key, item.removed, item.kind, item.snapshot)

    def _advance(self, item: Item) -> None:
        """Move ``since``, never back to what a server repeats.

        The parts of a snapshot share a position: it counts when the last of them is here.
        """
        position = item.position
        if self._replaying > 0:
            self._replaying -= 1
            if self._replaying == 0:
                position = max((p for p in (position, self._start) if p is not None), default=None)
            elif item.snapshot:
                return
        if position is not None and (self._floor is None or position > self._floor):
            self.since = str(position)

    def _is_known(self, item: Item) -> bool:
        if self._floor is None or item.position is None:
            return False
        # a snapshot at the floor is a statement of the state as it is, and only an older one is stale
        return item.position < self._floor if item.snapshot else item.position <= self._floor


def _say(position: Position | None) -> str | None:
    return None if position is None else str(position)


def _read(text: str | None) -> Position | None:
    """A position to compare with; None for ``-1``, ``now`` and what only the server can judge."""
    try:
        return None if text is None else parse_position(text)
    except BadPosition:
        return None
