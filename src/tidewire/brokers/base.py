"""The interface of a broker: what it keeps, what it carries, and what may be relied on.

Guarantees that every broker gives and ``tidewire.testing.broker_contract`` checks:

* **One step.** Numbering, keeping and carrying a message are one atomic step per topic. When
  ``publish`` returns, the message is in the history and on its way to every attached node.
* **Dense order.** Offsets of a topic within one epoch are 1, 2, 3 ... without holes. An attached node
  sees them in that order, each at most once, its own publishes included, through the same ``deliver``.
* **Attach, then read.** What is published after ``attach`` returned is delivered; so a reader that attaches
  first and reads history then has everything, perhaps twice, never with a hole.
* **Honest history.** ``history`` either continues a position exactly (``complete``) or says that it cannot.
  It never returns a hole and never more than one epoch.
* **Epochs.** The epoch changes only when numbering restarts; trimming keeps it. All epochs of one broker
  have the same length, and a later epoch of a topic sorts after an earlier one as text.
* **Once.** Publishing the same ``Draft.id`` on a topic again within the window appends nothing and
  returns the first position.
* **An end is the end.** After ``finish``, or an append that ``closes``, nothing is appended, and history says where
  the end is.
* **Terms.** What ``Draft.terms`` asks for is checked in the same step as the append, in this order: the topic is
  there (``must_exist``), it is not finished, the content fits, the producer's number is the next, the order ascends.
  An append that is refused changes nothing. All messages of a draft are appended, or none, and the producer's state
  with them. A repetition by a producer appends nothing and says what is there; so does the append that has closed
  the topic. ``brokers.ledger`` is these rules.
* **Creation.** A topic is there once it was created, or has numbered a message, or was finished; one that only has
  readers is not. What it was created as does not change, and says of which kind all its messages are. It is not
  forgotten while it lives, whether or not it has messages.
* **Expiry.** With a ``ttl_s``, it is gone when nobody has published, created or read messages for so long while no
  node was attached; asking (``position``, ``history`` with limit 0) does not count. With ``expires_ms``, it is gone
  then. Gone is told at the latest by the next verb on the topic, as by ``drop``.
* **Gone is gone.** ``drop`` forgets a topic: history, numbering, terms, creation. Attached nodes are told by an end
  that is ``gone`` and stay attached; what is numbered later under that name has a later epoch.
* ``deliver`` is called on the event loop, must not block and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tidewire.protocol.message import Draft, End, Message, Stream, Terms
from tidewire.protocol.position import Position, Since

Deliver = Callable[[str, Message | End], None]
"""``deliver(topic, event)``: the one door through which a broker hands a node what it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a broker keeps of a topic.

    ``keep`` messages at most (0: nothing is kept or numbered), for ``ttl_s`` seconds at most (None: no limit).
    ``keyed``: of each key only the newest message, ``keep`` keys at most. ``durable``: what was acknowledged is to
    outlive a power cut, where the broker can promise that; otherwise a killed process is what it outlives.
    """

    keep: int
    ttl_s: float | None = None
    keyed: bool = False
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """The answer to a publish.

    ``position`` is that of the last message, None where nothing is numbered. ``duplicate``: the id was known, or the
    producer repeats itself; then it is the position of what is there. ``accepted``: the producer's highest number.
    ``closed``: the topic is finished, by this append or by the one that it repeats.
    """

    position: Position | None
    duplicate: bool = False
    accepted: int | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a creation: the topic as it is now. ``is_new``: it was not there before."""

    position: Position
    stream: Stream | None
    end: End | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class History:
    """The answer to a history read.

    ``messages`` ascend and follow ``start`` without a hole. ``complete``: ``start`` is the position that was
    asked for; otherwise something between the two is lost. ``top`` is the topic's newest position; more must
    be asked for when the messages end before it. ``end`` is set when the topic is finished. ``stream`` is what it was
    created as, where somebody has created it.
    """

    messages: list[Message]
    start: Position
    top: Position
    complete: bool
    end: End | None = None
    stream: Stream | None = None

    @property
    def exists(self) -> bool:
        """Whether the topic is there, and not only its readers."""
        return self.stream is not None or self.top.offset > 0 or self.end is not None


class Broker(Protocol):
    """Eight verbs, and two for its own life."""

    shared: bool
    """Whether other processes see the same topics."""

    async def start(self, deliver: Deliver) -> None:
        """Begin; called once, before anything else."""

    async def close(self) -> None:
        """End; nothing is delivered afterwards."""

    async def publish(self, topic: str, draft: Draft, retention: Retention) -> Published:
        """Append, number and carry ``draft``; end the topic where its terms say so.

        Raises ``TopicFinished``, ``TooManyTopics``, ``UnknownStream`` and ``AppendConflict`` (with its kinds).
        """

    async def position(self, topic: str) -> Position | None:
        """The newest position, or None when the topic has no state (then everything that comes is new)."""

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """Up to ``limit`` messages after ``since``; None when the topic has no state. Limit 0 only asks."""

    async def finish(self, topic: str, error: str | None, retention: Retention, terms: Terms | None = None) -> End:
        """End the topic and carry the word. Finishing again returns the first end.

        ``terms`` are those of an append without messages; a producer that was not the one to finish it is told
        ``TopicFinished``. Raises what ``publish`` raises.
        """

    async def create(
        self, topic: str, stream: Stream, first: Draft | None, retention: Retention, *, closed: bool = False
    ) -> Created:
        """Make the topic as ``stream``, with its first messages, finished where ``closed`` says so: one step.

        Where it is there already nothing changes. Raises ``TooManyTopics``.
        """

    async def drop(self, topic: str) -> bool:
        """Forget the topic and tell its readers; whether it was there."""

    async def attach(self, topic: str, retention: Retention) -> None:
        """This node has readers: deliver the topic from now on. Raises ``TooManyTopics``."""

    async def detach(self, topic: str) -> None:
        """This node has no reader left."""


@runtime_checkable
class PatternBroker(Protocol):
    """A power that a broker may have beside its verbs: carrying by pattern (``protocol.patterns``).

    What is published after ``attach_pattern`` returned on any topic that matches is delivered to this node, once, in
    the order of each topic, whether or not the topic itself is attached.
    """

    async def attach_pattern(self, pattern: str) -> None:
        """This node has readers of ``pattern``."""

    async def detach_pattern(self, pattern: str) -> None:
        """This node has no reader of it left."""

    async def topics(self, pattern: str) -> list[str]:
        """The topics with messages that match."""
