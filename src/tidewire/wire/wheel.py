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

    __slots__ = ("_armed", "_clock", "_n", "_order", "_spokes", "_timer")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spokes: dict[int, dict[Timed, None]] = {}
        # a heap of the spokes, those that nobody stands at any more among them
        self._order: list[int] = []
        # how many stand somewhere
        self._n = 0
        self._timer: Timer | None = None
        # the spoke that the timer is set for; 0: none
        self._armed = 0

    def __len__(self) -> int:
        return self._n

    def set(self, one: Timed, delay_s: float) -> None:
        """Call ``one.on_time`` in ``delay_s`` seconds, and not at the deadline it had before."""
        spoke = max(1, math.ceil((self._clock.now() + delay_s) / SPOKE_S))
        if one.spoke == spoke:
            return
        self._leave(one)
        one.spoke = spoke
        here = self._spokes.get(spoke)
        if here is None:
            here = self._spokes[spoke] = {}
            heapq.heappush(self._order, spoke)
        here[one] = None
        self._n += 1
        if not self._armed or spoke < self._armed:
            self._arm(spoke)

    def clear(self, one: Timed) -> None:
        """``one`` has no deadline any more; twice is nothing."""
        self._leave(one)
        if not self._n:
            self._stop()

    def _leave(self, one: Timed) -> None:
        if one.spoke:
            del self._spokes[one.spoke][one]
            one.spoke = 0
            self._n -= 1

    def _arm(self, spoke: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = spoke
        self._timer = self._clock.call_later(max(0.0, spoke * SPOKE_S - self._clock.now()), self._turn)

    def _stop(self) -> None:
        """Nobody is here."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, 0
        self._spokes.clear()
        self._order.clear()

    def _turn(self) -> None:
        is_done = True
        try:
            is_done = self._call_due()
        finally:
            # also when somebody has raised: the others have their turn
            if not is_done:
                self._clock.call_soon(self._turn)
            elif self._n:
                self._arm(self._order[0])
            else:
                self._stop()

    def _call_due(self) -> bool:
        """Call those whose time has come; False when there are more than one pass may call."""
        now = self._clock.now()
        calls = 0
        # not by division: 4.3 / 0.1 is less than 43
        while self._order and self._order[0] * SPOKE_S <= now:
            here = self._spokes[self._order[0]]
            if not here:
                del self._spokes[heapq.heappop(self._order)]
                continue
            if calls == _CALLS_PER_PASS:
                return False
            calls += 1
            one = next(reversed(here))
            self._leave(one)
            one.on_time()
        return True
