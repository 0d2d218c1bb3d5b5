"""Pings that an application has sent and that wait for their pongs."""

from __future__ import annotations

import asyncio

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
