"""Time as an argument: nothing above reads a clock or sets a timer in any other way.

``LoopClock`` is the real one; ``tidewire.testing.ManualClock`` is moved by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None:
        """Forget the call; cancelling twice, or after it ran, is nothing."""


class Clock(Protocol):
    """Monotonic time, wall time and timers."""

    def now(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the next pass of the event loop."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` after ``delay_s`` seconds of this clock."""


class LoopClock:
    """The clock of the running event loop."""

    def now(self) -> float:
        """``time.monotonic()``, which is also what asyncio's loops count in."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970, from the system's clock."""
        return time.time_ns() // 1_000_000

    def call_soon(self, callback: Callable[[], None]) -> None:
        """``loop.call_soon``."""
        asyncio.get_running_loop().call_soon(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """``loop.call_later``."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
