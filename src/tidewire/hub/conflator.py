"""Values held back for one slow or new reader of a ``Latest`` topic: of each key only the newest."""

from __future__ import annotations

from collections.abc import Iterable

from tidewire.protocol.message import Message
from tidewire.protocol.position import Position, position_of

PULL_BYTES_MAX = 64 * 1024
PULL_MESSAGES_MAX = 256
_NOTHING = Position("", 0)


class Conflator:
    """Memory is the number of keys. Two stages: ``held`` waits for the next permitted flush, ``released`` may go.

    Messages leave in the order of their offsets, so that the last one received is a position to resume from.
    """

    __slots__ = ("_held", "_released", "seen")

    def __init__(self) -> None:
        self._held: dict[str | None, Message] = {}
        self._released: dict[str | None, Message] = {}
        # position up to which the reader has everything already
        self.seen = _NOTHING

    def __len__(self) -> int:
        return len(self._held) + len(self._released)

    def hold(self, messages: Iterable[Message]) -> None:
        """Replace what is waiting by newer values; what the reader has seen is left out."""
        for message in messages:
            here = position_of(message)
            if here > self.seen:
                self._released.pop(message.key, None)
                self._held.pop(message.key, None)
                self._held[message.key] = message
                self.seen = here

    def load(self, snapshot: Iterable[Message], seen: Position) -> None:
        """Begin with ``snapshot`` (ascending), which is the state at ``seen``; it may go at once."""
        for message in snapshot:
            self._released[message.key] = message
        self.seen = seen

    def release(self) -> None:
        """Let go what was held: the moment of a flush."""
        self._released.update(self._held)
        self._held.clear()

    def clear(self) -> None:
        """Forget what waits."""
        self._held.clear()
        self._released.clear()

    def pull(self) -> list[Message]:
        """The next few released messages, oldest first; empty when none is released."""
        taken: list[Message] = []
        size = 0
        for message in self._released.values():
            if taken and (size + len(message.payload) > PULL_BYTES_MAX or len(taken) == PULL_MESSAGES_MAX):
                break
            taken.append(message)
            size += len(message.payload)
        for message in taken:
            del self._released[message.key]
        return taken


def newest_of_each_key(messages: Iterable[Message]) -> list[Message]:
    """Only the newest of each key, in the order of positions; ``messages`` ascend."""
    newest: dict[str | None, Message] = {}
    for message in messages:
        newest.pop(message.key, None)
        newest[message.key] = message
    return list(newest.values())
