"""The server's pings: who pings is gone when it does not any more. Pure."""

from __future__ import annotations

from collections.abc import Callable

from tidewire.client.session.desk import Desk
from tidewire.protocol.packets import Command

PING_GRACE_S = 10.0
"""How late a ping may be (centrifugal.dev, "Client protocol": ``maxServerPingDelay`` of the SDKs)."""
LATE_S = 1.0
"""When our own timer is later than this, the program has slept, and what has come meanwhile is looked at first."""
_NAME = "ping"


class Pulse:
    """``on_miss`` is told in words that no ping has come in time."""

    def __init__(self, desk: Desk, on_miss: Callable[[str], None]) -> None:
        self._desk = desk
        self._on_miss = on_miss
        # how often the server pings (0: it does not), and whether it wants answers
        self._interval_s = 0
        self._wants_pong = False
        self._due_s = 0.0

    def begin(self, interval_s: int, *, wants_pong: bool) -> None:
        """A connection has begun, and the server has said how it pings."""
        self._interval_s, self._wants_pong = interval_s, wants_pong
        self._expect()

    def beat(self) -> None:
        """A ping has come."""
        if self._wants_pong:
            self._desk.say(Command())
        self._expect()

    def stop(self) -> None:
        """The connection has ended."""
        self._desk.alarms.clear(_NAME)

    def _expect(self) -> None:
        if self._interval_s:
            self._wait(self._interval_s + PING_GRACE_S)
        else:
            self.stop()

    def _wait(self, time_s: float) -> None:
        self._due_s = self._desk.now + time_s
        self._desk.alarms.set(_NAME, self._due_s, self._miss)

    def _miss(self) -> None:
        if self._desk.now - self._due_s > LATE_S:
            self._wait(LATE_S)
        else:
            self._on_miss(f"no ping for {self._interval_s + PING_GRACE_S:g} s")
