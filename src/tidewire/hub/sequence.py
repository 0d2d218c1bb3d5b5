"""How far a topic has been delivered to this process, and what of it is missing."""

from __future__ import annotations

from tidewire.hub.subscription import Gap
from tidewire.protocol.message import Message
from tidewire.protocol.position import Position, follows, position_of


class Delivered:
    """Brokers deliver densely; where one did not, what was seen is dropped and what was missed is told."""

    __slots__ = ("_epoch", "_offset", "_read_up_to")

    def __init__(self) -> None:
        # newest position delivered, in parts: compared for each message; no epoch until the first
        self._epoch = ""
        self._offset = 0
        # oldest position that a reader of a Latest topic began with, to see a loss before anything was delivered
        self._read_up_to: Position | None = None

    def began(self, seen: Position) -> None:
        """A reader has begun with the state at ``seen``."""
        self._read_up_to = min(seen, self._read_up_to or seen)

    def take(self, message: Message) -> bool | Gap:
        """Whether ``message`` is new; the gap before it, where there is one."""
        if not message.offset:
            return True
        if message.offset == self._offset + 1 and message.epoch == self._epoch:
            self._offset = message.offset
            return True
        here = position_of(message)
        last = Position(self._epoch, self._offset) if self._epoch else None
        if last is not None and here <= last:
            return False
        self._epoch, self._offset = here
        if last is None and self._read_up_to is not None and here > self._read_up_to:
            last = self._read_up_to
        if last is None or follows(last, message):
            return True
        return Gap(last, Position(here.epoch, here.offset - 1))
