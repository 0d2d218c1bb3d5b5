"""A broker under test, and what checks do with it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tidewire.brokers.base import Broker, Published, Retention
from tidewire.protocol.message import Draft, End, Kind, Message, Terms
from tidewire.protocol.position import START, Position

LOG = Retention(keep=5)
LATEST = Retention(keep=3, keyed=True)
NOTHING = Retention(keep=0)


@dataclass(slots=True)
class BrokerBench:
    """A started broker under test.

    ``delivered`` must be filled by the broker's ``deliver``; ``settle`` waits until what was published has been
    delivered; ``advance`` moves the broker's time by seconds; ``wall_ms`` is that time, since 1970.
    """

    broker: Broker
    settle: Callable[[], Awaitable[None]]
    advance: Callable[[float], Awaitable[None]]
    delivered: list[tuple[str, Message | End]] = field(default_factory=list)
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    async def publish(self, topic: str, text: str, retention: Retention = LOG, **more: object) -> Position | None:
        """Publish ``text``; returns the position."""
        draft = Draft(text.encode(), Kind.TEXT, **more)  # type: ignore[arg-type]
        return (await self.broker.publish(topic, draft, retention)).position

    async def append(self, topic: str, *texts: str, **terms: object) -> Published:
        """Publish ``texts`` in one step, on these ``Terms``."""
        first, *more = [text.encode() for text in texts]
        draft = Draft(first, Kind.TEXT, more=tuple(more), terms=Terms(**terms))  # type: ignore[arg-type]
        return await self.broker.publish(topic, draft, LOG)

    async def kept(self, topic: str) -> list[str]:
        """What history holds of ``topic``, asked without reading."""
        history = await self.broker.history(topic, START, 100)
        return [] if history is None else [message.payload.decode() for message in history.messages]

    def texts(self, topic: str) -> list[str]:
        """What was delivered on ``topic``, ends left out."""
        return [e.payload.decode() for name, e in self.delivered if name == topic and isinstance(e, Message)]


Check = Callable[[BrokerBench], Awaitable[None]]
