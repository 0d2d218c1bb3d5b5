"""Time that stands still until it is moved."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from tidewire.clock import Timer


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A ``tidewire.clock.Clock`` moved by hand.

    ``advance`` runs what has come due, in order, each at its own time. ``call_soon`` is the event loop's.
    """

    def __init__(self, *, now: float = 1000.0, wall_ms: int = 1_800_000_000_000) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds, where the clock stands."""
        return self._now

    def wall_ms(self) -> int:
        """Milliseconds since 1970, where the clock stands."""
        return self._wall_ms

    def call_soon(self, callback: Callable[[], None]) -> None:
        """On the next pass of the running event loop."""
        asyncio.get_running_loop().call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """When the clock has been moved by ``delay_s``."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._now + delay_s, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move time, running every timer that comes due on the way."""
        target = self._now + seconds
        while self._timers and self._timers[0][0] <= target:
            due, _, timer = heapq.heappop(self._timers)
            self._move_to(max(due, self._now))
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._move_to(target)

    def _move_to(self, now: float) -> None:
        self._wall_ms += round((now - self._now) * 1000)
        self._now = now
