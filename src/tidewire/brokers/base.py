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
* **An end is the end.** After ``finish`` nothing is appended, and history says where the end is.
* ``deliver`` is called on the event loop, must not block and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidewire.protocol.message import Draft, End, Message
from tidewire.protocol.position import Position, Since

Deliver = Callable[[str, Message | End], None]
"""``deliver(topic, event)``: the one door through which a broker hands a node what it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a broker keeps of a topic.

    ``keep`` messages at most (0: nothing is kept or numbered), for ``ttl_s`` seconds at most (None: no limit).
    ``keyed``: of each key only the newest message, ``keep`` keys at most.
    """

    keep: int
    ttl_s: float | None = None
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """The answer to a publish. ``position`` is None where nothing is numbered; ``duplicate``: the id was known."""

    position: Position | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """The answer to a history read.

    ``messages`` ascend and follow ``start`` without a hole. ``complete``: ``start`` is the position that was
    asked for; otherwise something between the two is lost. ``top`` is the topic's newest position; more must
    be asked for when the messages end before it. ``end`` is set when the topic is finished.
    """

    messages: list[Message]
    start: Position
    top: Position
    complete: bool
    end: End | None = None


class Broker(Protocol):
    """Seven verbs, and two for its own life."""

    shared: bool
    """Whether other processes see the same topics."""

    async def start(self, deliver: Deliver) -> None:
        """Begin; called once, before anything else."""

    async def close(self) -> None:
        """End; nothing is delivered afterwards."""

    async def publish(self, topic: str, draft: Draft, retention: Retention) -> Published:
        """Append, number and carry ``draft``. Raises ``TopicFinished`` and ``TooManyTopics``."""

    async def position(self, topic: str) -> Position | None:
        """The newest position, or None when the topic has no state (then everything that comes is new)."""

    async def history(self, topic: str, since: Since, limit: int) -> History | None:
        """Up to ``limit`` messages after ``since``; None when the topic has no state."""

    async def finish(self, topic: str, error: str | None, retention: Retention) -> End:
        """End the topic and carry the word. Finishing again returns the first end."""

    async def attach(self, topic: str, retention: Retention) -> None:
        """This node has readers: deliver the topic from now on. Raises ``TooManyTopics``."""

    async def detach(self, topic: str) -> None:
        """This node has no reader left."""
