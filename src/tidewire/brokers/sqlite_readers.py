"""What one process has readers of, what they were given, and what they are to be given next.

Pure. A transaction that fails is undone here too: what was heard in it comes again.
"""

from __future__ import annotations

from tidewire.protocol.message import End, Message
from tidewire.protocol.patterns import PatternIndex, parse_pattern
from tidewire.protocol.position import Position, position_of


class Readers:
    """Of one process. ``events`` are to be delivered once the transaction is committed, and then taken away."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Message | End]] = []
        # topics with readers, and the newest that they were given
        self.attached: dict[str, Position] = {}
        self._patterns: PatternIndex[str] = PatternIndex()
        # the ends that were told: the epoch, and whether the topic is gone
        self._told: dict[str, tuple[str, bool]] = {}
        # where topics were before this transaction (None: not attached), and how many events were good
        self._before: dict[str, Position | None] = {}
        self._good = 0

    def attach(self, name: str, at: Position) -> None:
        """There are readers, who have everything up to ``at``."""
        self._told.pop(name, None)
        self._move(name, at)

    def detach(self, name: str) -> None:
        """There are none."""
        self.attached.pop(name, None)
        self._told.pop(name, None)

    def attach_pattern(self, pattern: str) -> None:
        """There are readers of every topic that matches."""
        self._patterns.set(parse_pattern(pattern), pattern)

    def detach_pattern(self, pattern: str) -> None:
        """There are none for its sake."""
        self._patterns.remove(parse_pattern(pattern))

    def follow(self, name: str) -> bool:
        """Whether some pattern with readers matches."""
        return len(self._patterns) > 0 and bool(self._patterns.find(name))

    def want(self, name: str) -> bool:
        """Whether somebody here hears ``name``."""
        return name in self.attached or self.follow(name)

    def take(self, name: str, event: Message | End) -> None:
        """This was said: keep it for the readers, unless they have it. Those of patterns hear messages only."""
        at = self.attached.get(name)
        if at is None and (isinstance(event, End) or not self.follow(name)):
            return
        if isinstance(event, End):
            if self._told.get(name) == (event.epoch, event.gone):
                return
            self._told[name] = (event.epoch, event.gone)
            self._before.setdefault(name, at)
        elif event.offset and at is not None:
            if position_of(event) <= at:
                return
            self._move(name, position_of(event))
        self.events.append((name, event))

    def _move(self, name: str, to: Position) -> None:
        self._before.setdefault(name, self.attached.get(name))
        self.attached[name] = to

    def settled(self) -> None:
        """The transaction is committed."""
        self._before.clear()
        self._good = len(self.events)

    def forget(self) -> None:
        """The transaction has failed."""
        del self.events[self._good :]
        for name, at in self._before.items():
            # better told twice than not at all
            self._told.pop(name, None)
            if at is None:
                self.attached.pop(name, None)
            else:
                self.attached[name] = at
        self._before.clear()

    def take_away(self) -> list[tuple[str, Message | End]]:
        """What is to be delivered."""
        events, self.events, self._good = self.events, [], 0
        return events
