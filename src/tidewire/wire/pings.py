"""Pings: those that keep a connection alive, and those that an application has sent and waits for."""

from __future__ import annotations

import asyncio
import random
import struct

from tidewire.errors import closed_error
from tidewire.limits import PINGS_MAX

Waiter = asyncio.Future[float]


class Pings:
    """Oldest first; full (``PINGS_MAX``): another one is an error of who sends it."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # what each carries, who waits, since when
        self._waiting: dict[bytes, tuple[Waiter, float]] = {}

    def add(self, payload: bytes, waiter: Waiter, now: float) -> None:
        """A ping is going to be sent. Raises ``ValueError`` for the data of another one, ``RuntimeError`` when full."""
        if payload in self._waiting:
            raise ValueError("a ping with the same data waits for its pong already")
        if len(self._waiting) >= PINGS_MAX:
            raise RuntimeError(f"{PINGS_MAX} pings wait for their pongs already: await some of them first")
        self._waiting[payload] = (waiter, now)

    def answer(self, payload: bytes, now: float) -> float | None:
        """A pong answers its ping and all before it (RFC 6455 5.5.3); the round trip, None if nobody waits for it."""
        if payload not in self._waiting:
            return None
        latency_s = 0.0
        for sent in list(self._waiting):
            waiter, since = self._waiting.pop(sent)
            latency_s = now - since
            if not waiter.done():
                waiter.set_result(latency_s)
            if sent == payload:
                break
        return latency_s

    def give_up(self) -> None:
        """There will be no pongs."""
        for waiter, _ in self._waiting.values():
            give_up(waiter)
        self._waiting.clear()


def give_up(waiter: Waiter) -> None:
    """No pong will come; nobody has to await a ping."""
    if not waiter.done():
        waiter.set_exception(closed_error(None, None))
        waiter.exception()


class KeepAlive:
    """The pings of one connection, one at a time. ``timeout_s``: None for waiting for ever."""

    __slots__ = ("_payload", "_since", "interval_s", "timeout_s")

    def __init__(self, interval_s: float, timeout_s: float | None) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        # what the one carries that waits for its pong, and since when
        self._payload: bytes | None = None
        self._since = 0.0

    @property
    def has_deadline(self) -> bool:
        """A ping waits for its pong, and not for ever."""
        return self._payload is not None and self.timeout_s is not None

    def begin(self, now: float) -> bytes:
        """What the next ping carries: random, so that no pong is taken for another's (RFC 6455 5.5.3)."""
        self._payload = struct.pack("!I", random.getrandbits(32))
        self._since = now
        return self._payload

    def answer(self, payload: bytes, now: float) -> float | None:
        """The round trip, where ``payload`` is that of the ping that waits."""
        if payload != self._payload:
            return None
        self._payload = None
        return now - self._since
