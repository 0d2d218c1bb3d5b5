"""One timer for the deadlines of all connections: pings, pongs, closing handshakes.

Deadlines are rounded up to the next spoke; whoever stands at a spoke is called when its time has come.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

from tidewire.clock import Clock, Timer

SPOKE_S = 0.1
"""How far apart spokes are: a deadline is met at most so much later."""
_CALLS_PER_PASS = 256


class Timed(Protocol):
    """What stands on a wheel, at one spoke at most."""

    spoke: int
    """Where it stands; the wheel's own, 0: nowhere."""

    def on_time(self) -> None:
        """The deadline is over. It may set another."""


class Wheel:
    """Deadlines of many. Thousands due at one spoke are called in several passes of the loop."""

    __slots__ = ("_armed", "_clock", "_order", "_spokes", "_timer")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spokes: dict[int, dict[Timed, None]] = {}
        # a heap of the spokes; those that nobody stands at any more are still in it
        self._order: list[int] = []
        self._timer: Timer | None = None
        # the spoke that the timer is set for; 0: none
        self._armed = 0

    def __len__(self) -> int:
        return sum(map(len, self._spokes.values()))

    def set(self, one: Timed, delay_s: float) -> None:
        """Call ``one.on_time`` in ``delay_s`` seconds, and not at the deadline it had before."""
        spoke = max(1, math.ceil((self._clock.now() + delay_s) / SPOKE_S))
        if one.spoke == spoke:
            return
        self.clear(one)
        one.spoke = spoke
        here = self._spokes.get(spoke)
        if here is None:
            here = self._spokes[spoke] = {}
            heapq.heappush(self._order, spoke)
        here[one] = None
        if not self._armed or spoke < self._armed:
            self._arm(spoke)

    def clear(self, one: Timed) -> None:
        """``one`` has no deadline any more; twice is nothing."""
        if one.spoke:
            here = self._spokes[one.spoke]
            del here[one]
            if not here:
                del self._spokes[one.spoke]
            one.spoke = 0

    def _arm(self, spoke: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = spoke
        self._timer = self._clock.call_later(max(0.0, spoke * SPOKE_S - self._clock.now()), self._turn)

    def _turn(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, 0
        now = math.floor(self._clock.now() / SPOKE_S)
        calls = 0
        while self._order and self._order[0] <= now:
            here = self._spokes.get(self._order[0])
            if not here:
                heapq.heappop(self._order)
                continue
            if calls == _CALLS_PER_PASS:
                self._clock.call_soon(self._turn)
                return
            calls += 1
            one = next(reversed(here))
            self.clear(one)
            one.on_time()
        while self._order and self._order[0] not in self._spokes:
            heapq.heappop(self._order)
        if self._order:
            self._arm(self._order[0])
