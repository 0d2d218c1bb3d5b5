"""A session and time: connect in time, pings and pongs, how fast commands may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidewire.protocol import codes
from tidewire.protocol.packets import Reply

if TYPE_CHECKING:
    from tidewire.server.session.session import Session


class Credit:
    """Commands that may come: ``per_s`` are earned, ``most`` can be saved, and as many taken in advance."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: float, most: int) -> None:
        self._per_s = per_s
        self._most = most
        self._left = float(most)
        # when that was counted
        self._at = float("-inf")

    def spend(self, now: float) -> bool:
        """Take one; False when so many were taken too early that this is a flood."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s) - 1
        self._at = now
        return self._left >= -self._most

    @property
    def debt_s(self) -> float:
        """How long to take no more until what was taken is earned; 0 or less: there is some left."""
        return -self._left / self._per_s


class Heart:
    """Pings of the protocol, which the server sends, and what must come in time (``wire.wheel.Timed``)."""

    __slots__ = ("_is_beating", "_is_pong_due", "_session", "spoke")

    def __init__(self, session: Session) -> None:
        self._session = session
        # the wheel's
        self.spoke = 0
        # a ping waits for its pong
        self._is_pong_due = False
        # the time of a ping's pong runs
        self._is_beating = False

    def wait_for_connect(self) -> None:
        """The connect command has to come in time."""
        site = self._session.site
        site.wheel.set(self, site.limits.session_connect_s)

    def begin(self, *, is_pinged: bool) -> None:
        """It has come. The first ping is at a moment of its own, so that a crowd is not pinged at once."""
        site = self._session.site
        if is_pinged:
            site.wheel.set(self, site.limits.session_ping_s * site.rng.uniform(0.5, 1.0))
        else:
            site.wheel.clear(self)

    def stop(self) -> None:
        """The session is over."""
        self._session.site.wheel.clear(self)

    def take_pong(self) -> bool:
        """A pong has come; False when no ping waits for it."""
        was_due, self._is_pong_due = self._is_pong_due, False
        return was_due

    def on_time(self) -> None:
        """No connect came, a ping is due, or its pong was."""
        session = self._session
        site, limits = session.site, session.site.limits
        if not session.is_connected:
            session.end(codes.STALE)
        elif self._is_pong_due:
            session.end(codes.NO_PONG, abrupt=True)
        elif self._is_beating:
            self._is_beating = False
            site.wheel.set(self, max(0.0, limits.session_ping_s - limits.session_pong_s))
        else:
            self._is_pong_due = self._is_beating = True
            framing = session.framing
            session.connection.outbox.put_ahead(framing.batch(framing.codec.join([framing.codec.write(Reply())])))
            site.wheel.set(self, limits.session_pong_s)
