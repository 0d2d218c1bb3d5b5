"""Pure: one topic's rules, whatever keeps its parts. Time is an argument, and what is to be carried goes to ``emit``.

A broker that keeps topics in Python holds one of these for each; one that does not (a script in a database) does the
same steps.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from tidewire.brokers.base import Created, History, Published, Retention
from tidewire.brokers.history import Kept
from tidewire.brokers.ledger import Ledger, check_content, is_expired
from tidewire.errors import ProducerGap, TopicFinished, UnknownStream
from tidewire.protocol.message import Draft, End, Kind, Message, Stream, Terms
from tidewire.protocol.payload import removal
from tidewire.protocol.position import START, Position, Since

logger = logging.getLogger("tidewire.broker")

Emit = Callable[[Message | End], None]


class Ids(Protocol):
    """Publish ids of one topic and the offsets they got, within a window of time and number."""

    def find(self, publish_id: str | None, now: float) -> int | None:
        """The offset that ``publish_id`` has; ids that are too old are forgotten first, also where None is asked."""

    def note(self, publish_id: str, offset: int, now: float) -> None:
        """It has that one."""


class RecentIds:
    """In memory, oldest first. Full: the oldest go."""

    __slots__ = ("_ids", "_most", "_window_s")

    def __init__(self, *, window_s: float, most: int) -> None:
        self._ids: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._window_s = window_s
        self._most = most

    def find(self, publish_id: str | None, now: float) -> int | None:
        """``Ids.find``."""
        while self._ids:
            oldest, (_, at) = next(iter(self._ids.items()))
            if at > now - self._window_s and len(self._ids) < self._most:
                break
            del self._ids[oldest]
        found = None if publish_id is None else self._ids.get(publish_id)
        return None if found is None else found[0]

    def note(self, publish_id: str, offset: int, now: float) -> None:
        """``Ids.note``."""
        self._ids[publish_id] = (offset, now)


class Topic:
    """One topic: numbering, history, ids, writers, end.

    ``new_ledger`` makes what remembers its writers, once one says who it is.
    """

    __slots__ = (
        "_new_ledger",
        "_overflow",
        "_warned",
        "end",
        "epoch",
        "history",
        "ids",
        "ledger",
        "name",
        "retention",
        "stream",
        "top",
        "used_at",
    )

    def __init__(
        self, name: str, epoch: str, retention: Retention, *, history: Kept, ids: Ids, new_ledger: Callable[[], Ledger]
    ) -> None:
        self.name = name
        self.epoch = epoch
        self.retention = retention
        # number of the newest message, kept or trimmed
        self.top = 0
        self.history = history
        self.ids = ids
        self.end: End | None = None
        # what it was created as, and what is remembered of its writers, where they said who they are
        self.stream: Stream | None = None
        self.ledger: Ledger | None = None
        # when somebody last wrote or read, which is what a time to live counts from
        self.used_at = 0.0
        self._new_ledger = new_ledger
        # values that the message appended last pushed out
        self._overflow: list[Message] = []
        # whether the log has been told that keys had to go
        self._warned = False

    @property
    def exists(self) -> bool:
        """Whether the topic is there, and not only its readers."""
        return self.stream is not None or self.top > 0 or self.end is not None

    @property
    def position(self) -> Position:
        """The newest."""
        return Position(self.epoch, self.top)

    def is_expired(self, now: float, wall_ms: int, *, attached: bool) -> bool:
        """Whether it is no more; who is attached uses it."""
        if self.stream is None:
            return False
        return is_expired(self.stream, idle_s=0.0 if attached else now - self.used_at, wall_ms=wall_ms)

    # Writing

    def publish(self, draft: Draft, now: float, emit: Emit | None) -> Published:
        """Append ``draft``, or say what is there already; ``emit`` None: nobody listens. Raises as ``Broker`` says."""
        terms = draft.terms
        if terms is not None:
            self.check_there(terms)
        if self.end is not None:
            return self._refuse_after_end(terms)
        if self.stream is not None:
            check_content(self.stream, draft.kind, terms)
        known = self.ids.find(draft.id, now)
        if known is not None:
            return Published(Position(self.epoch, known), duplicate=True)
        if terms is not None:
            there = self._check_terms(terms, now)
            if there is not None:
                return there
        offset = self._append(draft, now, emit)
        if terms is None:
            return Published(Position(self.epoch, offset))
        return self._note_terms(terms, offset, now, emit)

    def check_there(self, terms: Terms | None) -> None:
        """Raise ``UnknownStream`` where it has to be there and is not."""
        if terms is not None and terms.must_exist and not self.exists:
            raise UnknownStream(self.name)

    def _refuse_after_end(self, terms: Terms | None) -> Published:
        producer = None if terms is None else terms.producer
        if producer is not None and self.ledger is not None and self.ledger.has_closed(producer):
            return Published(self.position, duplicate=True, accepted=producer.sequence, closed=True)
        raise TopicFinished(self.name, str(self.position))

    def _check_terms(self, terms: Terms, now: float) -> Published | None:
        """What is there already, when the append is a repetition."""
        if terms.producer is None and terms.order is None:
            return None
        if self.ledger is None:
            self.ledger = self._new_ledger()
        if self.ledger.check(terms, now):
            return None
        assert terms.producer is not None, "only a producer repeats itself"
        accepted, offset = self.ledger.known(terms.producer)
        return Published(Position(self.epoch, offset), duplicate=True, accepted=accepted)

    def _note_terms(self, terms: Terms, offset: int, now: float, emit: Emit | None) -> Published:
        if self.ledger is not None:
            self.ledger.note(terms, offset, now)
        if terms.closes:
            self._finish(None, emit)
        accepted = None if terms.producer is None else terms.producer.sequence
        return Published(Position(self.epoch, offset), accepted=accepted, closed=terms.closes)

    def _append(self, draft: Draft, now: float, emit: Emit | None) -> int:
        """Number and keep ``draft``, then the removal of keys that had to go for it; returns its number."""
        offset = self._append_one(draft, now, emit)
        for payload in draft.more:
            offset = self._append_one(Draft(payload, draft.kind), now, emit)
        if self._overflow:
            overflow, self._overflow = self._overflow, []
            for dropped in overflow:
                self._append_one(Draft(removal(dropped.key), Kind.JSON, dropped.key, removed=True), now, emit)
        if draft.id is not None:
            self.ids.note(draft.id, offset, now)
        return offset

    def _append_one(self, draft: Draft, now: float, emit: Emit | None) -> int:
        self.top += 1
        message = Message(
            draft.payload, draft.kind, self.epoch, self.top, draft.key, draft.removed, publisher=draft.publisher
        )
        self._overflow = self.history.append(message, now)
        if self._overflow and not self._warned:
            self._warned = True
            most = self.retention.keep
            logger.warning("topic %r has more than max_keys=%d keys: the longest unchanged go", self.name, most)
        if emit is not None:
            emit(message)
        return message.offset

    def finish(self, error: str | None, terms: Terms | None, now: float, emit: Emit | None) -> End:
        """Nothing is appended afterwards."""
        self.check_there(terms)
        if self.end is not None:
            if terms is not None and terms.producer is not None:
                self._refuse_after_end(terms)
            return self.end
        if terms is None:
            return self._finish(error, emit)
        repeated = self._check_terms(terms, now)
        if repeated is not None:
            # an append of before, which has not closed anything
            assert terms.producer is not None
            assert repeated.accepted is not None
            raise ProducerGap(repeated.accepted + 1, terms.producer.sequence)
        if self.ledger is not None:
            self.ledger.note(terms, self.top, now)
        return self._finish(error, emit)

    def _finish(self, error: str | None, emit: Emit | None) -> End:
        self.end = End(self.epoch if self.retention.keep else "", self.top, error)
        if emit is not None:
            emit(self.end)
        return self.end

    def create(self, stream: Stream, first: Draft | None, now: float, emit: Emit | None, *, closed: bool) -> Created:
        """Make it, fill it and close it; where it is there already nothing changes."""
        if self.exists:
            return Created(self.position, self.stream, self.end, is_new=False)
        self.stream = stream
        if first is not None:
            self._append(first, now, emit)
        if closed:
            self._finish(None, emit)
        return Created(self.position, stream, self.end, is_new=True)

    # Reading

    def read(self, since: Since, limit: int, now: float) -> History:
        """Continue ``since`` exactly, or start at the oldest kept and say so."""
        if limit:
            self.used_at = now
        self.history.trim(now)
        floor = self.history.floor
        # for a keyed history the start is its very beginning: it holds the newest of everything
        start = Position(self.epoch, 0 if self.retention.keyed else floor)
        complete = True
        if since is START:
            begin = start
        elif isinstance(since, Position):
            complete = since.epoch == self.epoch and floor <= since.offset <= self.top
            begin = since if complete else start
        else:
            begin = self.position
        return History(self.history.after(begin.offset, limit), begin, self.position, complete, self.end, self.stream)

    def gone(self, why: str) -> End:
        """The word that it was dropped."""
        return End(self.epoch, self.top, why, gone=True)
