"""Pure: what a topic remembers of who wrote to it, and what an append may do. Time is an argument.

Every broker that keeps topics in Python uses it; one that does not (a script in a database) does the same steps.
"""

from __future__ import annotations

from collections import OrderedDict

from tidewire.errors import AppendConflict, ProducerFenced, ProducerGap
from tidewire.protocol.durable import essence, kind_of
from tidewire.protocol.message import Kind, Producer, Stream, Terms


class Ledger:
    """The producers of one topic, the last ``Stream-Seq``, and whose append closed it.

    A producer is forgotten when it was silent for ``remembered_s``, or as the longest silent one when there are more
    than ``producers_max``: it is then told to begin with number 0 again, and a repetition of that would be new.
    """

    __slots__ = ("_closer", "_order", "_producers", "_producers_max", "_remembered_s")

    def __init__(self, *, producers_max: int, remembered_s: float) -> None:
        self._producers_max = producers_max
        self._remembered_s = remembered_s
        # id -> its newest append, the offset that has, and when; longest silent first
        self._producers: OrderedDict[str, tuple[Producer, int, float]] = OrderedDict()
        self._order: str | None = None
        # the producer and the number of the append that finished the topic
        self._closer: Producer | None = None

    def has_closed(self, producer: Producer | None) -> bool:
        """Whether this very append has finished the topic, and is now repeated."""
        return producer is not None and producer == self._closer

    def check(self, terms: Terms, now: float) -> bool:
        """Whether an append with these terms is new; False: it is there already (``known`` says where).

        Changes nothing. Raises ``ProducerFenced``, ``ProducerGap`` and ``AppendConflict``; a repetition is known by
        its producer before its ``Stream-Seq`` is looked at (Durable Streams 5.2.1).
        """
        if terms.producer is not None and not self._is_next(terms.producer, now):
            return False
        if terms.order is not None and self._order is not None and terms.order <= self._order:
            raise AppendConflict(
                f"Stream-Seq has to ascend: {terms.order!a} does not sort after {self._order!a}, the last one"
            )
        return True

    def _is_next(self, producer: Producer, now: float) -> bool:
        self._forget(now)
        known = self._producers.get(producer.id)
        if known is None:
            if producer.sequence:
                raise ProducerGap(0, producer.sequence)
            return True
        newest = known[0]
        if producer.epoch < newest.epoch:
            raise ProducerFenced(newest.epoch)
        if producer.epoch > newest.epoch:
            if producer.sequence:
                raise ProducerGap(0, producer.sequence, is_new_epoch=True)
            return True
        if producer.sequence > newest.sequence + 1:
            raise ProducerGap(newest.sequence + 1, producer.sequence)
        return producer.sequence > newest.sequence

    def known(self, producer: Producer) -> tuple[int, int]:
        """The newest append of a producer that ``check`` knew: its sequence number and its offset."""
        newest, offset, _ = self._producers[producer.id]
        return newest.sequence, offset

    def note(self, terms: Terms, offset: int, now: float) -> None:
        """An append with these terms was made; its last message is at ``offset``."""
        if terms.order is not None:
            self._order = terms.order
        if terms.producer is not None:
            self._producers[terms.producer.id] = (terms.producer, offset, now)
            self._producers.move_to_end(terms.producer.id)
            while len(self._producers) > self._producers_max:
                self._producers.popitem(last=False)
        if terms.closes:
            self._closer = terms.producer

    def _forget(self, now: float) -> None:
        while self._producers:
            name, (_, _, at) = next(iter(self._producers.items()))
            if now - at < self._remembered_s:
                return
            del self._producers[name]


def check_content(stream: Stream | None, kind: Kind, terms: Terms | None) -> None:
    """Raise ``AppendConflict`` where messages of ``kind`` do not belong into ``stream``.

    So all messages of a stream are of the kind that its content type says, whoever publishes.
    """
    if stream is None:
        return
    asked = terms.content_type if terms is not None else None
    if asked is not None and essence(asked) != essence(stream.content_type):
        raise AppendConflict(f"the stream's Content-Type is {stream.content_type}, and this is {asked}")
    if kind_of(stream.content_type) is not kind:
        raise AppendConflict(
            f"the stream's Content-Type is {stream.content_type}, and a message that is {kind.value} does not fit it"
        )


def is_expired(stream: Stream | None, *, idle_s: float, wall_ms: int) -> bool:
    """Whether a topic that was created as ``stream`` and last used ``idle_s`` ago is no more."""
    if stream is None:
        return False
    if stream.expires_ms is not None and wall_ms >= stream.expires_ms:
        return True
    return stream.ttl_s is not None and idle_s >= stream.ttl_s
