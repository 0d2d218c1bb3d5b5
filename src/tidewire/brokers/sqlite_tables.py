"""The tables of the sqlite broker, and the parts of a topic that are kept in them.

Everything here runs on one connection, in one thread, and within the transaction of whoever calls it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tidewire.brokers import sqlite_carriage as carriage
from tidewire.brokers.base import Retention
from tidewire.brokers.history import KeyedHistory
from tidewire.brokers.ledger import Ledger
from tidewire.brokers.topic import Topic
from tidewire.errors import BrokerFailed
from tidewire.limits import Limits
from tidewire.protocol.message import End, Kind, Message, Producer, Stream, Terms

# "tide" as a number: what ``file`` shows, and what a foreign file does not have
APPLICATION_ID: Final = 0x74696465
VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('last_epoch_ms', 0);

CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    top INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    keyed INTEGER NOT NULL,
    ttl_s REAL,
    ending BLOB,
    stream BLOB,
    last_order TEXT,
    closer BLOB,
    has_ledger INTEGER NOT NULL,
    used_at REAL NOT NULL,
    touched_at REAL NOT NULL
);

CREATE TABLE messages (
    topic INTEGER NOT NULL,
    at_offset INTEGER NOT NULL,
    at REAL NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT,
    removed INTEGER NOT NULL,
    publisher BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (topic, at_offset)
) WITHOUT ROWID;

CREATE TABLE ids (
    topic INTEGER NOT NULL,
    id TEXT NOT NULL,
    at_offset INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (topic, id)
) WITHOUT ROWID;
CREATE INDEX ids_at ON ids (at);

CREATE TABLE producers (
    topic INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    at_offset INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (topic, id)
) WITHOUT ROWID;
"""

_KINDS: Final = (Kind.JSON, Kind.TEXT, Kind.BYTES)
_MESSAGE = "at_offset, kind, key, removed, publisher, payload"
# sqlite's own limit of what one statement takes is 32,766 values
_ROWS_PER_STATEMENT = 500
# messages beyond what is kept wait until there are so many of them
_SLACK = 256

# how long a file may be locked by somebody else
_BUSY_S = 5.0
_AGAIN_S = 0.01
_CHECKPOINT_PAGES = 4000
_JOURNAL_BYTES_MAX = 64 * 1024 * 1024

_pack = msgspec.msgpack.Encoder().encode


def open_tables(path: Path) -> sqlite3.Connection:
    """The file at ``path``, made where there is none. Raises ``BrokerFailed``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _BUSY_S
        while True:
            connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, cached_statements=256)
            try:
                _prepare(connection, path)
                return connection
            except BaseException as error:
                connection.close()
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
            # several switch a new file to write-ahead at once, for which sqlite does not wait by itself
            time.sleep(_AGAIN_S)
    except (sqlite3.Error, OSError) as error:
        raise BrokerFailed(f"the sqlite broker cannot use {str(path)!a}: {error}") from None


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    execute = connection.execute
    # before anything of a foreign file is changed; as one look, for another process may be making the tables
    execute("BEGIN")
    is_empty = execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    owner = execute("PRAGMA application_id").fetchone()[0]
    execute("ROLLBACK")
    if owner != APPLICATION_ID and not is_empty:
        raise BrokerFailed(f"{str(path)!a} is a database of something else: choose another file")
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES_MAX}")
    with transaction(connection):
        if execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in f"{SCHEMA}{carriage.SCHEMA}".split(";"):
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise BrokerFailed(
                f"{str(path)!a} was written by another version of Tidewire (tables {version}, here {VERSION}): use "
                "that one, or another file"
            )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write, and commit at the end; after an error nothing was written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


class Rows:
    """Messages of a transaction that are not written yet: many in one statement cost a third of one each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._rows: list[tuple[Any, ...]] = []

    def add(self, topic: int, message: Message, now: float) -> None:
        """Write ``message`` before anything is read, and at the end at the latest."""
        self._rows.append(
            (
                topic,
                message.offset,
                now,
                _KINDS.index(message.kind),
                message.key,
                message.removed,
                message.publisher,
                message.payload,
            )
        )

    def flush(self) -> None:
        """Write them now."""
        rows, self._rows = self._rows, []
        for begin in range(0, len(rows), _ROWS_PER_STATEMENT):
            some = rows[begin : begin + _ROWS_PER_STATEMENT]
            values = ",".join(["(?,?,?,?,?,?,?,?)"] * len(some))
            self.connection.execute(f"INSERT INTO messages VALUES {values}", [cell for row in some for cell in row])  # noqa: S608 - question marks only

    def forget(self) -> None:
        """The transaction has failed."""
        self._rows.clear()


def read_messages(
    rows: Rows, topic: int, epoch: str, after: int, limit: int, *, without_removed: bool = False
) -> list[Message]:
    """Up to ``limit`` messages of a topic with larger offsets."""
    rows.flush()
    where = " AND removed = 0" if without_removed else ""
    found = rows.connection.execute(
        f"SELECT {_MESSAGE} FROM messages WHERE topic = ? AND at_offset > ?{where} ORDER BY at_offset LIMIT ?",  # noqa: S608 - constants
        (topic, after, limit),
    )
    return [
        Message(payload, _KINDS[kind], epoch, offset, key, bool(removed), publisher=publisher)
        for offset, kind, key, removed, publisher, payload in found
    ]


class LogTable:
    """The last ``keep`` messages (``history.Kept``). Older ones are deleted some at a time."""

    def __init__(self, rows: Rows, topic: int, epoch: str, retention: Retention, *, floor: int, top: int) -> None:
        self.floor = floor
        self._rows = rows
        self._topic = topic
        self._epoch = epoch
        self._retention = retention
        self._top = top
        self._deleted_to = floor
        # when the oldest that is kept was appended; None: it has to be looked up
        self._oldest_at: float | None = None

    def append(self, message: Message, now: float) -> list[Message]:
        """``Kept.append``."""
        self._rows.add(self._topic, message, now)
        if self._top == self.floor:
            self._oldest_at = now
        self._top = message.offset
        beyond = self._top - self._retention.keep
        if beyond > self.floor:
            self.floor, self._oldest_at = beyond, None
            if self.floor - self._deleted_to >= _SLACK:
                self._delete()
        return []

    def _delete(self) -> None:
        self._rows.flush()
        self._rows.connection.execute(
            "DELETE FROM messages WHERE topic = ? AND at_offset <= ?", (self._topic, self.floor)
        )
        self._deleted_to = self.floor

    def trim(self, now: float) -> None:
        """``Kept.trim``."""
        ttl_s = self._retention.ttl_s
        if ttl_s is None or self._top == self.floor:
            return
        if self._oldest_at is None:
            self._oldest_at = self._ask("SELECT at FROM messages WHERE topic = ? AND at_offset = ?", self.floor + 1)
        if self._oldest_at is None or now - self._oldest_at < ttl_s:
            return
        young = self._ask(
            "SELECT min(at_offset) FROM messages WHERE topic = ? AND at_offset > ? AND at > ?", self.floor, now - ttl_s
        )
        self.floor, self._oldest_at = (self._top if young is None else young - 1), None
        self._delete()

    def _ask(self, question: str, *values: Any) -> Any:
        self._rows.flush()
        found = self._rows.connection.execute(question, (self._topic, *values)).fetchone()
        return None if found is None else found[0]

    def after(self, offset: int, limit: int) -> list[Message]:
        """``Kept.after``."""
        if not limit:
            return []
        return read_messages(self._rows, self._topic, self._epoch, max(offset, self.floor), limit)

    def __len__(self) -> int:
        return self._top - self.floor


class KeyedTable(KeyedHistory):
    """The newest of each key: in memory, as they are bounded, and every change in the table too."""

    def __init__(self, rows: Rows, topic: int, epoch: str, retention: Retention, *, floor: int) -> None:
        super().__init__(retention)
        self._rows = rows
        self._topic = topic
        self.floor = floor
        rows.flush()
        found = rows.connection.execute(
            f"SELECT at, {_MESSAGE} FROM messages WHERE topic = ? ORDER BY at_offset",  # noqa: S608 - constants
            (topic,),
        )
        for at, offset, kind, key, removed, publisher, payload in found:
            self._newest[key] = Message(payload, _KINDS[kind], epoch, offset, key, bool(removed), publisher=publisher)
            self._times[key] = at
            self._tombstones += removed

    def append(self, message: Message, now: float) -> list[Message]:
        """``Kept.append``."""
        dropped = super().append(message, now)
        self._rows.add(self._topic, message, now)
        return dropped

    def _forget(self, key: str | None) -> None:
        old = self._newest.get(key)
        super()._forget(key)
        if old is not None:
            self._rows.flush()
            self._rows.connection.execute(
                "DELETE FROM messages WHERE topic = ? AND at_offset = ?", (self._topic, old.offset)
            )


class IdsTable:
    """Publish ids (``topic.Ids``), bounded by their window."""

    def __init__(self, connection: sqlite3.Connection, topic: int, window_s: float) -> None:
        self._connection = connection
        self._topic = topic
        self._window_s = window_s

    def find(self, publish_id: str | None, now: float) -> int | None:
        """``Ids.find``."""
        if publish_id is None:
            return None
        found = self._connection.execute(
            "SELECT at_offset FROM ids WHERE topic = ? AND id = ? AND at > ?",
            (self._topic, publish_id, now - self._window_s),
        ).fetchone()
        return None if found is None else int(found[0])

    def note(self, publish_id: str, offset: int, now: float) -> None:
        """``Ids.note``."""
        self._connection.execute("REPLACE INTO ids VALUES (?, ?, ?, ?)", (self._topic, publish_id, offset, now))


class LedgerTable(Ledger):
    """What a topic remembers of its writers; every change is in the table too."""

    def __init__(self, connection: sqlite3.Connection, topic: int, limits: Limits) -> None:
        super().__init__(producers_max=limits.producers_max, remembered_s=limits.producer_remembered_s)
        self._connection = connection
        self._topic = topic
        self._most = limits.producers_max
        found = connection.execute(
            "SELECT id, epoch, sequence, at_offset, at FROM producers WHERE topic = ? ORDER BY at, at_offset", (topic,)
        )
        for name, epoch, sequence, offset, at in found:
            self._producers[name] = (Producer(name, epoch, sequence), offset, at)

    def restore(self, order: str | None, closer: bytes | None) -> None:
        """What stands in the topic's own row."""
        self._order = order
        self._closer = None if closer is None else msgspec.msgpack.decode(closer, type=Producer)

    @property
    def cells(self) -> tuple[str | None, bytes | None]:
        """The same, to be written."""
        return self._order, None if self._closer is None else _pack(self._closer)

    def note(self, terms: Terms, offset: int, now: float) -> None:
        """Also in the table; who was forgotten is deleted."""
        before = len(self._producers)
        super().note(terms, offset, now)
        producer = terms.producer
        if producer is None:
            return
        self._connection.execute(
            "REPLACE INTO producers VALUES (?, ?, ?, ?, ?, ?)",
            (self._topic, producer.id, producer.epoch, producer.sequence, offset, now),
        )
        if len(self._producers) <= before and before >= self._most:
            self._delete_forgotten()

    def _forget(self, now: float) -> None:
        before = len(self._producers)
        super()._forget(now)
        if len(self._producers) < before:
            self._delete_forgotten()

    def _delete_forgotten(self) -> None:
        there = self._connection.execute("SELECT id FROM producers WHERE topic = ?", (self._topic,)).fetchall()
        gone = [(self._topic, name) for (name,) in there if name not in self._producers]
        self._connection.executemany("DELETE FROM producers WHERE topic = ? AND id = ?", gone)


_TOPIC = "id, name, epoch, top, floor, keep, keyed, ttl_s, ending, stream, last_order, closer, has_ledger, used_at"


class StoredTopic(Topic):
    """A topic whose parts are in tables; ``number`` is what they know it by."""

    __slots__ = ("number",)

    number: int


def load_topic(rows: Rows, limits: Limits, name: str) -> StoredTopic | None:
    """The topic as it is in the file; None: it is not there."""
    found = rows.connection.execute(f"SELECT {_TOPIC} FROM topics WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constants
    if found is None:
        return None
    number, _, epoch, top, floor, keep, keyed, ttl_s, ending, stream, order, closer, has_ledger, used_at = found
    retention = Retention(keep=keep, keyed=bool(keyed), ttl_s=ttl_s)
    topic = make_topic(rows, limits, number, name, epoch, retention, floor=floor, top=top)
    topic.used_at = used_at
    topic.end = None if ending is None else msgspec.msgpack.decode(ending, type=End)
    topic.stream = None if stream is None else msgspec.msgpack.decode(stream, type=Stream)
    if has_ledger:
        topic.ledger = ledger = LedgerTable(rows.connection, number, limits)
        ledger.restore(order, closer)
    return topic


def make_topic(
    rows: Rows,
    limits: Limits,
    number: int,
    name: str,
    epoch: str,
    retention: Retention,
    *,
    floor: int = 0,
    top: int = 0,
) -> StoredTopic:
    """A topic over the tables; its own row is written by ``save_topics``."""
    topic = StoredTopic(
        name,
        epoch,
        retention,
        history=(
            KeyedTable(rows, number, epoch, retention, floor=floor)
            if retention.keyed
            else LogTable(rows, number, epoch, retention, floor=floor, top=top)
        ),
        ids=IdsTable(rows.connection, number, limits.dedup_window_s),
        new_ledger=lambda: LedgerTable(rows.connection, number, limits),
    )
    topic.number = number
    topic.top = top
    return topic


def save_topics(connection: sqlite3.Connection, topics: Iterable[StoredTopic], now: float) -> None:
    """Write the rows of topics that have changed."""
    connection.executemany(
        "UPDATE topics SET top = ?, floor = ?, ending = ?, stream = ?, last_order = ?, closer = ?, has_ledger = ?, "
        "used_at = ?, touched_at = ? WHERE id = ?",
        [_cells(topic, now) for topic in topics],
    )


def _cells(topic: StoredTopic, now: float) -> Sequence[Any]:
    ledger = topic.ledger
    order, closer = ledger.cells if isinstance(ledger, LedgerTable) else (None, None)
    return (
        topic.top,
        topic.history.floor,
        None if topic.end is None else _pack(topic.end),
        None if topic.stream is None else _pack(topic.stream),
        order,
        closer,
        ledger is not None,
        topic.used_at,
        now,
        topic.number,
    )


def delete_topic(rows: Rows, number: int) -> None:
    """Nothing is left of it."""
    rows.flush()
    for table, column in (("messages", "topic"), ("ids", "topic"), ("producers", "topic"), ("topics", "id")):
        rows.connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608 - constants
