"""Pure history of one topic: a ring of messages, or the newest of each key. Time is an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import Protocol

from tidewire.brokers.base import Retention
from tidewire.protocol.message import Message


class Kept(Protocol):
    """What both kinds of history offer. Offsets ascend; ``floor`` is the offset after which all is kept."""

    floor: int

    def append(self, message: Message, now: float) -> list[Message]:
        """Keep ``message``; returns keys that had to go for it (only keyed histories lose any this way)."""

    def trim(self, now: float) -> None:
        """Forget what is older than the time to live."""

    def after(self, offset: int, limit: int) -> list[Message]:
        """Up to ``limit`` kept messages with a larger offset."""

    def __len__(self) -> int: ...


def make_history(retention: Retention) -> Kept:
    """The history that ``retention`` asks for."""
    return KeyedHistory(retention) if retention.keyed else RingHistory(retention)


class RingHistory:
    """The last ``keep`` messages, dense: after ``floor`` nothing is missing."""

    __slots__ = ("_messages", "_retention", "_times", "floor")

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._messages: deque[Message] = deque()
        # when each was appended, in step with _messages; only used where there is a time to live
        self._times: deque[float] = deque()
        self.floor = 0

    def append(self, message: Message, now: float) -> list[Message]:
        """Keep ``message``, dropping the oldest beyond ``keep``."""
        self._messages.append(message)
        self._times.append(now)
        while len(self._messages) > self._retention.keep:
            self._drop_oldest()
        return []

    def trim(self, now: float) -> None:
        """Drop what is older than ``ttl_s``."""
        ttl_s = self._retention.ttl_s
        if ttl_s is not None:
            while self._times and now - self._times[0] >= ttl_s:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.floor = self._messages.popleft().offset
        self._times.popleft()

    def after(self, offset: int, limit: int) -> list[Message]:
        """Messages numbered above ``offset``; dense offsets make the place a subtraction."""
        skip = max(0, offset - self.floor)
        return list(islice(self._messages, skip, skip + limit))

    def __len__(self) -> int:
        return len(self._messages)


class KeyedHistory:
    """The newest message of each key, in the order of their offsets.

    Removed keys are remembered as tombstones, as many as there may be keys, so that who comes back hears
    of them; ``floor`` is the offset before which a tombstone may be lost.
    """

    __slots__ = ("_newest", "_retention", "_times", "_tombstones", "floor")

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        # key -> newest message, oldest offset first, tombstones among them
        self._newest: OrderedDict[str | None, Message] = OrderedDict()
        # key -> when it was published; kept only where there is a time to live
        self._times: dict[str | None, float] = {}
        self._tombstones = 0
        self.floor = 0

    def append(self, message: Message, now: float) -> list[Message]:
        """Keep ``message`` as its key's newest; returns the values dropped because there are too many keys."""
        self._forget(message.key)
        self._newest[message.key] = message
        self._times[message.key] = now
        self._tombstones += message.removed
        self._trim_tombstones()
        dropped = []
        while len(self._newest) - self._tombstones > self._retention.keep:
            oldest = next(kept for kept in self._newest.values() if not kept.removed)
            self._forget(oldest.key)
            dropped.append(oldest)
        return dropped

    def _forget(self, key: str | None) -> None:
        old = self._newest.pop(key, None)
        if old is not None:
            self._times.pop(key)
            self._tombstones -= old.removed

    def _trim_tombstones(self) -> None:
        while self._tombstones > self._retention.keep:
            oldest = next(kept for kept in self._newest.values() if kept.removed)
            self._forget(oldest.key)
            self.floor = max(self.floor, oldest.offset)

    def trim(self, now: float) -> None:
        """Drop values older than ``ttl_s``; who was away meanwhile is told that something is lost."""
        ttl_s = self._retention.ttl_s
        while ttl_s is not None and self._newest:
            key, oldest = next(iter(self._newest.items()))
            if now - self._times[key] < ttl_s:
                return
            self._forget(key)
            self.floor = max(self.floor, oldest.offset)

    def after(self, offset: int, limit: int) -> list[Message]:
        """Newest messages numbered above ``offset``; from the very start, tombstones say nothing and are left out."""
        found = (m for m in self._newest.values() if m.offset > offset and not (m.removed and offset == 0))
        return list(islice(found, limit))

    def __len__(self) -> int:
        return len(self._newest)
