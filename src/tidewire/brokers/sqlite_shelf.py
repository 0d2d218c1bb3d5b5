"""Topics of the file that are held ready, and what of them is still to be written.

What is held ready is what the file has: it is read anew when somebody else has written, and when a transaction fails.
"""

from __future__ import annotations

import random
import sqlite3
from collections import OrderedDict
from collections.abc import Callable

from tidewire.brokers import sqlite_tables as tables
from tidewire.brokers.base import Retention
from tidewire.brokers.sqlite_tables import Rows, StoredTopic
from tidewire.limits import Limits

# others are read from the file when they are needed
_READY_MAX = 10_000


class Shelf:
    """Every method runs within a transaction, but ``load``. ``wall_ms``: the time, for epochs."""

    def __init__(
        self, connection: sqlite3.Connection, limits: Limits, wall_ms: Callable[[], int], rng: random.Random
    ) -> None:
        # topics in the file
        self.count = 0
        self._connection = connection
        self._limits = limits
        self._wall_ms = wall_ms
        self._rng = rng
        self._rows = Rows(connection)
        # least recently used first
        self._ready: OrderedDict[str, StoredTopic] = OrderedDict()
        # of these, those whose rows are to be written
        self._dirty: dict[str, StoredTopic] = {}
        self._last_epoch_ms = self._saved_epoch_ms = 0

    def load(self, name: str) -> StoredTopic | None:
        """The topic; None: the file has none of this name."""
        topic = self._ready.get(name)
        if topic is not None:
            self._ready.move_to_end(name)
            return topic
        self._rows.flush()
        topic = tables.load_topic(self._rows, self._limits, name)
        if topic is not None:
            self._ready[name] = topic
        return topic

    def make(self, name: str, retention: Retention, now: float) -> StoredTopic:
        """A new one."""
        epoch = self._next_epoch()
        number = self._connection.execute(
            "INSERT INTO topics VALUES (NULL, ?, ?, 0, 0, ?, ?, ?, NULL, NULL, NULL, NULL, 0, ?, ?)",
            (name, epoch, retention.keep, retention.keyed, retention.ttl_s, now, now),
        ).lastrowid
        assert number is not None, "a row was made"
        self.count += 1
        topic = self._ready[name] = tables.make_topic(self._rows, self._limits, number, name, epoch, retention)
        return topic

    def _next_epoch(self) -> str:
        """Sixteen hex digits: milliseconds, so that later sorts after earlier, and chance against twins."""
        self._last_epoch_ms = max(self._wall_ms(), self._last_epoch_ms + 1)
        return f"{self._last_epoch_ms:011x}{self._rng.getrandbits(20):05x}"

    def delete(self, topic: StoredTopic) -> None:
        """Nothing is left of it."""
        tables.delete_topic(self._rows, topic.number)
        self._ready.pop(topic.name, None)
        self._dirty.pop(topic.name, None)
        self.count -= 1

    def mark(self, topic: StoredTopic) -> None:
        """It has changed: its row is to be written."""
        self._dirty[topic.name] = topic

    @property
    def is_marked(self) -> bool:
        """Something is to be written."""
        return bool(self._dirty)

    def save(self, now: float) -> None:
        """Write everything."""
        self._rows.flush()
        if self._dirty:
            tables.save_topics(self._connection, self._dirty.values(), now)
            self._dirty.clear()
        if self._saved_epoch_ms != self._last_epoch_ms:
            self._connection.execute("REPLACE INTO meta VALUES ('last_epoch_ms', ?)", (self._last_epoch_ms,))
            self._saved_epoch_ms = self._last_epoch_ms
        while len(self._ready) > _READY_MAX:
            self._ready.popitem(last=False)

    def forget(self) -> None:
        """The transaction has failed."""
        self._rows.forget()
        self._ready.clear()
        self._dirty.clear()

    def read_anew(self) -> None:
        """Somebody else has written."""
        execute = self._connection.execute
        self._ready.clear()
        self.count = execute("SELECT count(*) FROM topics").fetchone()[0]
        self._saved_epoch_ms = execute("SELECT value FROM meta WHERE name = 'last_epoch_ms'").fetchone()[0]
        self._last_epoch_ms = max(self._last_epoch_ms, self._saved_epoch_ms)
