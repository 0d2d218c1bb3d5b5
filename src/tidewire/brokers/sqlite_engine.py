"""The sqlite broker's verbs on its file: what one thread does with one connection, many calls in one transaction."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewire.brokers import sqlite_tables as tables
from tidewire.brokers.base import Created, History, Published, Retention
from tidewire.brokers.sqlite_tables import Rows, StoredTopic
from tidewire.brokers.topic import Emit
from tidewire.clock import Clock
from tidewire.errors import BrokerFailed, TidewireError, TooManyTopics, TopicFinished, UnknownStream
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.patterns import PatternIndex, matches, parse_pattern
from tidewire.protocol.position import Position, Since

logger = logging.getLogger("tidewire.broker")

# topics that are held ready; others are read from the file when they are needed
_READY_MAX = 10_000
_HOUSEKEEPING_S = 60.0
_SWEPT = 64


@dataclass(slots=True)
class Job:
    """One call of a verb. ``writes``: it needs a transaction; ``durable``: which is on disk before it is answered."""

    verb: Callable[[Engine], Any]
    writes: bool = False
    durable: bool = False
    value: Any = None
    error: Exception | None = None


class _NeedsTransaction(Exception):
    """A call that only asks has found something to be written."""


class Engine:
    """Use it from one thread. ``events`` are to be delivered once a batch has returned.

    ``path``: the file; it is made where there is none.
    """

    def __init__(self, path: Path, limits: Limits, clock: Clock, rng: random.Random) -> None:
        self.events: list[tuple[str, Message | End]] = []
        self._path = path
        self._limits = limits
        self.clock = clock
        self._rng = rng
        self._connection: sqlite3.Connection
        self._rows: Rows
        # as they are in the file, least recently used first
        self._ready: OrderedDict[str, StoredTopic] = OrderedDict()
        # of these, those whose rows are to be written
        self._dirty: dict[str, StoredTopic] = {}
        self._count = 0
        self._last_epoch_ms = self._saved_epoch_ms = 0
        # sqlite's word that somebody else has written
        self._version = -1
        self._is_synchronous = True
        self._tidied_at = 0.0
        # what this process has readers of
        self._attached: set[str] = set()
        self._patterns: PatternIndex[str] = PatternIndex()

    # Life

    def open(self) -> None:
        """Open the file. Raises ``BrokerFailed``."""
        self._connection = tables.open_tables(self._path)
        self._rows = Rows(self._connection)

    def close(self) -> None:
        """The file is whole; nothing is done any more."""
        self._connection.close()

    # Batches

    def run(self, jobs: list[Job]) -> None:
        """Do them in order, in one transaction where they write; each gets its value or its error."""
        committed = len(self.events)
        try:
            try:
                self._run(jobs, writes=any(job.writes for job in jobs))
            except _NeedsTransaction:
                self._forget(committed)
                self._run(jobs, writes=True)
        except Exception as error:  # noqa: BLE001 - each call gets it as its answer
            self._forget(committed)
            if len(jobs) > 1:
                # one of them may have broken it: each by itself
                for job in jobs:
                    self.run([job])
                return
            jobs[0].value = None
            jobs[0].error = _failure(error)

    def _run(self, jobs: list[Job], *, writes: bool) -> None:
        if not writes:
            self._notice_others()
            self._do(jobs)
            if self._dirty:
                # read, which some count as use
                with tables.transaction(self._connection):
                    self._save()
            return
        is_synchronous = any(job.durable for job in jobs)
        if is_synchronous is not self._is_synchronous:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_synchronous else 'NORMAL'}")
            self._is_synchronous = is_synchronous
        with tables.transaction(self._connection):
            self._notice_others()
            self._do(jobs)
            self._tidy()
            self._save()
        while len(self._ready) > _READY_MAX:
            self._ready.popitem(last=False)

    def _do(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.value = job.error = None
            try:
                job.value = job.verb(self)
            except TidewireError as error:
                job.error = error

    def _save(self) -> None:
        self._rows.flush()
        if self._dirty:
            tables.save_topics(self._connection, self._dirty.values(), self._now())
            self._dirty.clear()
        if self._saved_epoch_ms != self._last_epoch_ms:
            self._connection.execute("REPLACE INTO meta VALUES ('last_epoch_ms', ?)", (self._last_epoch_ms,))
            self._saved_epoch_ms = self._last_epoch_ms

    def _forget(self, committed: int) -> None:
        """A transaction has failed: what is held ready may not be what the file has. ``committed``: good events."""
        self._rows.forget()
        self._ready.clear()
        self._dirty.clear()
        del self.events[committed:]
        self._version = -1

    def _notice_others(self) -> None:
        """Somebody else may have written: then everything is read anew."""
        execute = self._connection.execute
        version = execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._version = version
        self._ready.clear()
        self._count = execute("SELECT count(*) FROM topics").fetchone()[0]
        self._saved_epoch_ms = execute("SELECT value FROM meta WHERE name = 'last_epoch_ms'").fetchone()[0]
        self._last_epoch_ms = max(self._last_epoch_ms, self._saved_epoch_ms)

    def _now(self) -> float:
        return self.clock.wall_ms() / 1000

    # Verbs

    def publish(self, name: str, draft: Draft, retention: Retention) -> Published:
        """``Broker.publish``."""
        if not retention.keep:
            return self._carry_unnumbered(name, draft)
        topic = self._touch_where_there(name, retention, draft.terms)
        return topic.publish(draft, topic.used_at, self._emit_of(name))

    def _carry_unnumbered(self, name: str, draft: Draft) -> Published:
        topic = self._load(name)
        if topic is not None and topic.end is not None:
            raise TopicFinished(name)
        emit = self._emit_of(name)
        if emit is not None:
            emit(Message(draft.payload, draft.kind, key=draft.key, removed=draft.removed, publisher=draft.publisher))
        return Published(None)

    def position(self, name: str) -> Position | None:
        """``Broker.position``."""
        topic = self._find(name)
        return None if topic is None else topic.position

    def history(self, name: str, since: Since, limit: int) -> History | None:
        """``Broker.history``."""
        topic = self._find(name)
        if topic is None:
            return None
        if topic.retention.ttl_s is not None and not self._connection.in_transaction:
            # reading trims
            raise _NeedsTransaction
        used_at, floor = topic.used_at, topic.history.floor
        found = topic.read(since, limit, self._now())
        counts_as_use = topic.stream is not None and topic.stream.ttl_s is not None
        if topic.history.floor != floor or (counts_as_use and topic.used_at != used_at):
            self._dirty[name] = topic
        return found

    def finish(self, name: str, error: str | None, retention: Retention, terms: Terms | None) -> End:
        """``Broker.finish``."""
        topic = self._touch_where_there(name, retention, terms)
        # those who follow a pattern hear messages only
        emit = self._emit_of(name) if name in self._attached else None
        return topic.finish(error, terms, topic.used_at, emit)

    def create(self, name: str, stream: Stream, first: Draft | None, retention: Retention, closed: bool) -> Created:
        """``Broker.create``."""
        topic = self._find(name)
        if topic is None or not topic.exists:
            topic = self._touch(name, retention)
        self._dirty[name] = topic
        return topic.create(stream, first, self._now(), self._emit_of(name), closed=closed)

    def drop(self, name: str) -> bool:
        """``Broker.drop``."""
        topic = self._find(name)
        if topic is None or not topic.exists:
            return False
        self._drop(topic, "the stream was deleted")
        return True

    def _drop(self, topic: StoredTopic, why: str) -> None:
        name = topic.name
        self._delete(topic)
        if name in self._attached:
            self._touch(name, topic.retention)
            self.events.append((name, topic.gone(why)))

    def _delete(self, topic: StoredTopic) -> None:
        tables.delete_topic(self._rows, topic.number)
        self._ready.pop(topic.name, None)
        self._dirty.pop(topic.name, None)
        self._count -= 1

    def attach(self, name: str, retention: Retention) -> None:
        """``Broker.attach``."""
        self._touch(name, retention)
        self._attached.add(name)

    def detach(self, name: str) -> None:
        """``Broker.detach``."""
        if name in self._attached:
            self._attached.discard(name)
            topic = self._load(name)
            if topic is not None:
                topic.used_at = self._now()
                self._dirty[name] = topic

    def attach_pattern(self, pattern: str) -> None:
        """``PatternBroker.attach_pattern``."""
        self._patterns.set(parse_pattern(pattern), pattern)

    def detach_pattern(self, pattern: str) -> None:
        """``PatternBroker.detach_pattern``."""
        self._patterns.remove(parse_pattern(pattern))

    def topics(self, pattern: str) -> list[str]:
        """``PatternBroker.topics``."""
        segments = parse_pattern(pattern)
        found = self._connection.execute("SELECT name FROM topics WHERE top > 0")
        return [name for (name,) in found if matches(segments, name)]

    # Topics

    def _emit_of(self, name: str) -> Emit | None:
        if name in self._attached or (len(self._patterns) and self._patterns.find(name)):
            events = self.events
            return lambda event: events.append((name, event))
        return None

    def _load(self, name: str) -> StoredTopic | None:
        topic = self._ready.get(name)
        if topic is not None:
            self._ready.move_to_end(name)
            return topic
        self._rows.flush()
        topic = tables.load_topic(self._rows, self._limits, name)
        if topic is not None:
            self._ready[name] = topic
        return topic

    def _find(self, name: str) -> StoredTopic | None:
        """The topic; what has expired is dropped first."""
        topic = self._load(name)
        if topic is None or not self._is_expired(topic):
            return topic
        if not self._connection.in_transaction:
            raise _NeedsTransaction
        self._drop(topic, "the stream has expired")
        return self._load(name)

    def _is_expired(self, topic: StoredTopic) -> bool:
        return topic.is_expired(self._now(), self.clock.wall_ms(), attached=topic.name in self._attached)

    def _touch_where_there(self, name: str, retention: Retention, terms: Terms | None) -> StoredTopic:
        if terms is not None and terms.must_exist and self._find(name) is None:
            raise UnknownStream(name)
        return self._touch(name, retention)

    def _touch(self, name: str, retention: Retention) -> StoredTopic:
        topic = self._find(name)
        now = self._now()
        if topic is None:
            topic = self._make(name, retention, now)
        topic.used_at = now
        topic.history.trim(now)
        self._dirty[name] = topic
        return topic

    def _make(self, name: str, retention: Retention, now: float) -> StoredTopic:
        limits = self._limits
        if self._count >= limits.topics_max:
            self._sweep(idle_s=0.0)
        if self._count >= limits.topics_max:
            raise TooManyTopics(limits.topics_max)
        epoch = self._next_epoch()
        number = self._connection.execute(
            "INSERT INTO topics VALUES (NULL, ?, ?, 0, 0, ?, ?, ?, NULL, NULL, NULL, NULL, 0, ?, ?)",
            (name, epoch, retention.keep, retention.keyed, retention.ttl_s, now, now),
        ).lastrowid
        assert number is not None, "a row was made"
        self._count += 1
        topic = self._ready[name] = tables.make_topic(self._rows, limits, number, name, epoch, retention)
        return topic

    def _next_epoch(self) -> str:
        """Sixteen hex digits: milliseconds, so that later sorts after earlier, and chance against twins."""
        self._last_epoch_ms = max(self.clock.wall_ms(), self._last_epoch_ms + 1)
        return f"{self._last_epoch_ms:011x}{self._rng.getrandbits(20):05x}"

    # Tidying

    def _tidy(self) -> None:
        """Now and then: ids whose window is over, and topics that nobody has used for long."""
        now = self._now()
        if now - self._tidied_at < _HOUSEKEEPING_S:
            return
        self._tidied_at = now
        self._connection.execute("DELETE FROM ids WHERE at <= ?", (now - self._limits.dedup_window_s,))
        self._sweep(idle_s=self._limits.topic_idle_s)

    def _sweep(self, idle_s: float) -> None:
        """Look at the longest untouched topics; drop those expired, or empty and idle for ``idle_s``."""
        self._save()
        now = self._now()
        names = self._connection.execute("SELECT name, touched_at FROM topics ORDER BY touched_at LIMIT ?", (_SWEPT,))
        for name, touched_at in names.fetchall():
            topic = self._load(name)
            if topic is None or name in self._attached:
                continue
            topic.history.trim(now)
            is_idle = topic.stream is None and not len(topic.history) and now - touched_at >= idle_s
            if is_idle or (topic.stream is not None and self._is_expired(topic)):
                self._delete(topic)
            else:
                # the next sweep looks at others
                self._dirty[name] = topic


def _failure(error: Exception) -> Exception:
    if isinstance(error, TidewireError):
        return error
    if isinstance(error, sqlite3.Error | OSError):
        return BrokerFailed(f"the sqlite broker could not write, and nothing was acknowledged: {error}")
    logger.error("a verb of the sqlite broker failed", exc_info=error)
    return BrokerFailed("the sqlite broker failed; the log has the error")
