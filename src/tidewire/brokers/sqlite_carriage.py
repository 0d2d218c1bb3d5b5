"""How processes on one file hear of one another: a table that is written to only while somebody else listens.

A process that has readers is a *node*, with a lease. Whoever commits looks for others in the same transaction, so that
nothing after a node's first word is missed; a node reads on from the last row it has seen. One that was silent for
longer than its lease (a process that was stopped) is forgotten, and has to read what it missed in the histories.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from tidewire.protocol.message import End, Message

LEASE_S: Final = 30.0
BEAT_S: Final = 10.0

SCHEMA: Final = """
CREATE TABLE nodes (id INTEGER PRIMARY KEY AUTOINCREMENT, seen_at REAL NOT NULL);

CREATE TABLE carried (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    node INTEGER NOT NULL,
    name TEXT NOT NULL,
    event BLOB NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX carried_at ON carried (at)"""

_pack = msgspec.msgpack.Encoder().encode
_messages = msgspec.msgpack.Decoder(Message)
_ends = msgspec.msgpack.Decoder(End)

Carried = tuple[str, Message | End]


class Carriage:
    """This process's side of it. Every method runs within a transaction, but ``hear`` and ``look``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # this node, while it listens; 0: it does not
        self.node = 0
        # somebody else listens
        self.has_others = False
        # the last row that was heard; and as it was before this transaction, with the node
        self._heard = 0
        self._before = (0, 0)
        self._beat_at = 0.0
        self._going: list[Carried] = []

    def listen(self, now: float) -> None:
        """From now on everything that is carried is heard. Twice is nothing."""
        if not self.node:
            added = self._connection.execute("INSERT INTO nodes (seen_at) VALUES (?)", (now,)).lastrowid
            assert added is not None, "a row was made"
            self.node = added
            self._beat_at = now
            self._heard = self._last()

    def leave(self) -> None:
        """It does not any more."""
        if self.node:
            self._connection.execute("DELETE FROM nodes WHERE id = ?", (self.node,))
            self.node = 0

    def is_beat_due(self, now: float) -> bool:
        """Whether the lease is to be renewed."""
        return self.node > 0 and now - self._beat_at >= BEAT_S

    def beat(self, now: float) -> bool:
        """Renew it; False when it had run out: something may have been missed since."""
        renewed = self._connection.execute("UPDATE nodes SET seen_at = ? WHERE id = ?", (now, self.node)).rowcount
        self._beat_at = now
        if not renewed:
            self.node = 0
            self.listen(now)
        return renewed > 0

    def look(self, now: float) -> None:
        """See whether somebody else listens."""
        found = self._connection.execute(
            "SELECT 1 FROM nodes WHERE id != ? AND seen_at > ? LIMIT 1", (self.node, now - LEASE_S)
        )
        self.has_others = found.fetchone() is not None

    def hear(self) -> list[Carried]:
        """What others have said since the last time."""
        if not self.node:
            return []
        rows = self._connection.execute(
            "SELECT seq, node, name, event FROM carried WHERE seq > ? ORDER BY seq", (self._heard,)
        ).fetchall()
        if rows:
            self._heard = rows[-1][0]
        return [
            (name, (_ends if event[:1] == b"e" else _messages).decode(event[1:]))
            for _, node, name, event in rows
            if node != self.node
        ]

    def add(self, name: str, event: Message | End) -> None:
        """Say this to the others, with the next ``send``."""
        self._going.append((name, event))

    def send(self, now: float) -> None:
        """Write what was added."""
        if self._going:
            going, self._going = self._going, []
            self._connection.executemany(
                "INSERT INTO carried (node, name, event, at) VALUES (?, ?, ?, ?)",
                [
                    (self.node, name, (b"e" if isinstance(event, End) else b"m") + _pack(event), now)
                    for name, event in going
                ],
            )

    def forget(self) -> None:
        """The transaction has failed: what was heard in it is heard again."""
        self._going.clear()
        self.node, self._heard = self._before

    def settled(self) -> None:
        """What was heard is handed over."""
        self._before = (self.node, self._heard)

    def tidy(self, now: float) -> None:
        """Delete what every node with a lease has heard, and nodes without one."""
        self._connection.execute("DELETE FROM carried WHERE at <= ?", (now - LEASE_S,))
        self._connection.execute("DELETE FROM nodes WHERE seen_at <= ?", (now - LEASE_S,))

    def _last(self) -> int:
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'carried'").fetchone()
        return 0 if found is None else int(found[0])
