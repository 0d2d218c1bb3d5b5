"""The sqlite broker's verbs on its file: what one thread does with one connection, many calls in one transaction."""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewire.brokers import sqlite_tables as tables
from tidewire.brokers.base import Created, History, Published, Retention
from tidewire.brokers.sqlite_carriage import Carriage
from tidewire.brokers.sqlite_readers import Readers
from tidewire.brokers.sqlite_shelf import Shelf
from tidewire.brokers.sqlite_tables import StoredTopic
from tidewire.brokers.topic import Emit
from tidewire.clock import Clock
from tidewire.errors import BrokerFailed, TidewireError, TooManyTopics, TopicFinished, UnknownStream
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.patterns import matches, parse_pattern
from tidewire.protocol.position import Position, Since

logger = logging.getLogger("tidewire.broker")

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
    """Use it from one thread. What ``readers`` have is to be delivered once a batch has returned.

    ``path``: the file; it is made where there is none.
    """

    def __init__(self, path: Path, limits: Limits, clock: Clock, rng: random.Random) -> None:
        self.readers = Readers()
        self._path = path
        self._limits = limits
        self.clock = clock
        self._rng = rng
        self._connection: sqlite3.Connection
        self._shelf: Shelf
        self._carriage: Carriage
        # sqlite's word that somebody else has written
        self._version = -1
        self._is_synchronous = True
        self._tidied_at = 0.0

    # Life

    def open(self) -> None:
        """Open the file. Raises ``BrokerFailed``."""
        self._connection = tables.open_tables(self._path)
        self._shelf = Shelf(self._connection, self._limits, self._wall_ms, self._rng)
        self._carriage = Carriage(self._connection)
        # it may have been open before
        self.readers = Readers()
        self._version, self._is_synchronous, self._tidied_at = -1, True, 0.0

    def close(self) -> None:
        """The file is whole; nothing is done any more."""
        with contextlib.suppress(sqlite3.Error), tables.transaction(self._connection):
            self._carriage.leave()
        self._connection.close()

    @property
    def is_listening(self) -> bool:
        """There are readers here: others may have something for them."""
        return self._carriage.node > 0

    def poll(self) -> None:
        """Hear what others have committed, and say that this process is still there."""
        is_beat_due = self._carriage.is_beat_due(self._now())
        self.run([Job(lambda engine: None, writes=is_beat_due)])

    # Batches

    def run(self, jobs: list[Job]) -> None:
        """Do them in order, in one transaction where they write; each gets its value or its error."""
        try:
            try:
                self._run(jobs, writes=any(job.writes for job in jobs))
            except _NeedsTransaction:
                self._forget()
                self._run(jobs, writes=True)
        except Exception as error:  # noqa: BLE001 - each call gets it as its answer
            self._forget()
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
            self._settled()
            if self._shelf.is_marked:
                # read, which some count as use
                with tables.transaction(self._connection):
                    self._shelf.save(self._now())
            return
        is_synchronous = any(job.durable for job in jobs)
        if is_synchronous is not self._is_synchronous:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_synchronous else 'NORMAL'}")
            self._is_synchronous = is_synchronous
        with tables.transaction(self._connection):
            self._notice_others()
            self._do(jobs)
            self._tidy()
            self._shelf.save(self._now())
            self._carriage.send(self._now())
        self._settled()

    def _settled(self) -> None:
        self._carriage.settled()
        self.readers.settled()

    def _do(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.value = job.error = None
            try:
                job.value = job.verb(self)
            except TidewireError as error:
                job.error = error

    def _forget(self) -> None:
        """A transaction has failed: what is held ready may not be what the file has."""
        self._shelf.forget()
        self._carriage.forget()
        self.readers.forget()
        self._version = -1

    def _notice_others(self) -> None:
        """Somebody else may have written: then everything is read anew."""
        execute = self._connection.execute
        version = execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._version = version
        self._shelf.read_anew()
        self._carriage.look(self._now())
        for name, event in self._carriage.hear():
            self.readers.take(name, event)

    def _catch_up(self) -> None:
        """This process was silent for longer than its lease: what it may have missed is in the histories."""
        for name, at in list(self.readers.attached.items()):
            topic = self._shelf.load(name)
            if topic is None:
                self.readers.take(name, End(at.epoch, at.offset, "the stream was deleted", gone=True))
                continue
            for message in topic.history.after(at.offset if at.epoch == topic.epoch else 0, topic.retention.keep):
                self.readers.take(name, message)
            if topic.end is not None:
                self.readers.take(name, topic.end)

    def _wall_ms(self) -> int:
        return self.clock.wall_ms()

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
        topic = self._shelf.load(name)
        if topic is not None and topic.end is not None:
            raise TopicFinished(name)
        emit = self._emit_of(name)
        if emit is not None:
            if self._carriage.has_others and not self._connection.in_transaction:
                raise _NeedsTransaction
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
            self._shelf.mark(topic)
        return found

    def finish(self, name: str, error: str | None, retention: Retention, terms: Terms | None) -> End:
        """``Broker.finish``."""
        topic = self._touch_where_there(name, retention, terms)
        return topic.finish(error, terms, topic.used_at, self._emit_of(name))

    def create(self, name: str, stream: Stream, first: Draft | None, retention: Retention, closed: bool) -> Created:
        """``Broker.create``."""
        topic = self._find(name)
        if topic is None or not topic.exists:
            topic = self._touch(name, retention)
        self._shelf.mark(topic)
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
        self._shelf.delete(topic)
        if name in self.readers.attached:
            self._touch(name, topic.retention)
        emit = self._emit_of(name)
        if emit is not None:
            emit(topic.gone(why))

    def attach(self, name: str, retention: Retention) -> None:
        """``Broker.attach``."""
        self._carriage.listen(self._now())
        self.readers.attach(name, self._touch(name, retention).position)

    def detach(self, name: str) -> None:
        """``Broker.detach``."""
        if name in self.readers.attached:
            self.readers.detach(name)
            topic = self._shelf.load(name)
            if topic is not None:
                topic.used_at = self._now()
                self._shelf.mark(topic)

    def attach_pattern(self, pattern: str) -> None:
        """``PatternBroker.attach_pattern``."""
        self._carriage.listen(self._now())
        self.readers.attach_pattern(pattern)

    def detach_pattern(self, pattern: str) -> None:
        """``PatternBroker.detach_pattern``."""
        self.readers.detach_pattern(pattern)

    def topics(self, pattern: str) -> list[str]:
        """``PatternBroker.topics``."""
        segments = parse_pattern(pattern)
        found = self._connection.execute("SELECT name FROM topics WHERE top > 0")
        return [name for (name,) in found if matches(segments, name)]

    # Topics

    def _emit_of(self, name: str) -> Emit | None:
        if not (self._carriage.has_others or self.readers.want(name)):
            return None

        def emit(event: Message | End) -> None:
            self.readers.take(name, event)
            if self._carriage.has_others:
                self._carriage.add(name, event)

        return emit

    def _find(self, name: str) -> StoredTopic | None:
        """The topic; what has expired is dropped first."""
        topic = self._shelf.load(name)
        if topic is None or not self._is_expired(topic):
            return topic
        if not self._connection.in_transaction:
            raise _NeedsTransaction
        self._drop(topic, "the stream has expired")
        return self._shelf.load(name)

    def _is_expired(self, topic: StoredTopic) -> bool:
        return topic.is_expired(self._now(), self.clock.wall_ms(), attached=topic.name in self.readers.attached)

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
        self._shelf.mark(topic)
        return topic

    def _make(self, name: str, retention: Retention, now: float) -> StoredTopic:
        limits = self._limits
        if self._shelf.count >= limits.topics_max:
            self._sweep(idle_s=0.0)
        if self._shelf.count >= limits.topics_max:
            raise TooManyTopics(limits.topics_max)
        return self._shelf.make(name, retention, now)

    # Tidying

    def _tidy(self) -> None:
        """Now and then: ids whose window is over, and topics that nobody has used for long."""
        now = self._now()
        if self._carriage.is_beat_due(now):
            self._use_streams(now)
            if not self._carriage.beat(now):
                self._catch_up()
        if now - self._tidied_at < _HOUSEKEEPING_S:
            return
        self._tidied_at = now
        self._connection.execute("DELETE FROM ids WHERE at <= ?", (now - self._limits.dedup_window_s,))
        self._carriage.tidy(now)
        self._sweep(idle_s=self._limits.topic_idle_s)

    def _use_streams(self, now: float) -> None:
        """Streams that have readers here are in use, which the other processes cannot know."""
        self._shelf.save(now)
        self._connection.executemany(
            "UPDATE topics SET used_at = ? WHERE stream IS NOT NULL AND name = ?",
            [(now, name) for name in self.readers.attached],
        )

    def _sweep(self, idle_s: float) -> None:
        """Look at the longest untouched topics; drop those expired, or empty and idle for ``idle_s``."""
        self._shelf.save(self._now())
        now = self._now()
        names = self._connection.execute("SELECT name, touched_at FROM topics ORDER BY touched_at LIMIT ?", (_SWEPT,))
        for name, touched_at in names.fetchall():
            topic = self._shelf.load(name)
            if topic is None or name in self.readers.attached:
                continue
            topic.history.trim(now)
            is_idle = topic.stream is None and not len(topic.history) and now - touched_at >= idle_s
            if is_idle or (topic.stream is not None and self._is_expired(topic)):
                self._shelf.delete(topic)
            else:
                # the next sweep looks at others
                self._shelf.mark(topic)


def _failure(error: Exception) -> Exception:
    if isinstance(error, TidewireError):
        return error
    if isinstance(error, sqlite3.Error | OSError):
        return BrokerFailed(f"the sqlite broker could not write, and nothing was acknowledged: {error}")
    logger.error("a verb of the sqlite broker failed", exc_info=error)
    return BrokerFailed("the sqlite broker failed; the log has the error")
