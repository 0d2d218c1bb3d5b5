"""How a topic behaves: what is kept of it, and what happens to a reader that is too slow (CONTRACTS 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidewire.brokers.base import Retention
from tidewire.errors import BadPayload, DeclarationError
from tidewire.protocol.message import Kind
from tidewire.protocol.payload import format_key, read_field

Key = str | Callable[[Any], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Every message counts: chat, orders, job output.

    ``keep`` messages (1 or more) are kept, for ``ttl_s`` seconds at most (None: no limit), and resumed from.
    A reader whose outbox overflows is closed with the code that says come back; on its return it gets what
    it missed, or is told of the gap. ``durable``: on a broker with a disk, a publish is answered once the message
    outlives a power cut; False: once it outlives the process (docs/brokers.md).
    """

    keep: int = 500
    ttl_s: float | None = None
    durable: bool = True
    retention: Retention = field(init=False, repr=False, compare=False)
    """What the broker keeps."""

    def __post_init__(self) -> None:
        if self.keep < 1 or (self.ttl_s is not None and self.ttl_s <= 0):
            raise DeclarationError("Log(keep=, ttl_s=): keep is 1 or more, ttl_s a positive number of seconds or None")
        object.__setattr__(self, "retention", Retention(keep=self.keep, ttl_s=self.ttl_s, durable=self.durable))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """Only the newest value counts: prices, positions, gauges.

    ``key``: the field of a JSON object, or a function of the published object, that says which value it is;
    None: the topic is one value. ``max_per_s``: at most so many flushes a second to each subscriber, each
    carrying every changed key once. ``max_keys``: beyond it the longest unchanged key is removed, and told.
    A slow reader is conflated: what it has not taken yet is replaced by newer values of the same keys. ``durable`` is
    that of ``Log``.
    """

    key: Key = None
    max_per_s: float | None = None
    max_keys: int = 10_000
    durable: bool = True
    retention: Retention = field(init=False, repr=False, compare=False)
    """What the broker keeps: the newest of each key."""

    def __post_init__(self) -> None:
        if self.max_keys < 1 or (self.max_per_s is not None and self.max_per_s <= 0):
            raise DeclarationError("Latest(max_per_s=, max_keys=): both are positive; leave max_per_s out for no limit")
        object.__setattr__(self, "retention", Retention(keep=self.max_keys, keyed=True, durable=self.durable))

    def key_of(self, value: object, kind: Kind, payload: bytes) -> str | None:
        """The key of a message; raises ``BadPayload`` when it has none."""
        if self.key is None:
            return None
        if callable(self.key):
            return format_key(self.key(value))
        if kind is not Kind.JSON:
            raise BadPayload(f"the topic is keyed by {self.key!a}: publish JSON objects that have this field")
        return read_field(payload, self.key)


@dataclass(frozen=True, slots=True)
class Signal:
    """Only now counts: typing, cursors, pings. Nothing is kept or numbered.

    A reader whose outbox overflows loses the oldest; that is counted in ``live.stats()``.
    """

    retention: Retention = field(init=False, repr=False, compare=False, default=Retention(keep=0))
    """Nothing is kept."""


Policy = Log | Latest | Signal
