"""How long readers of the plain dialect may stay: until who they are has ended, or was made void.

Sessions look after themselves, as their clients can renew a token. A bare socket or an event stream cannot: it is
ended, and who comes back with a new token loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tidewire.clock import Clock, Timer
from tidewire.protocol.codes import EXPIRED, Code
from tidewire.server.connection import Connection, Verdict
from tidewire.server.identity import Identity


class Tenures:
    """The open connections whose callers were asked who they are; as many as there are connections."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._all: dict[Connection, tuple[Identity, Timer | None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, connection: Connection, identity: Identity, *, leeway_s: float) -> None:
        """``connection`` is there for ``identity``, and ends ``leeway_s`` after that has expired."""
        timer = None
        if identity.expires_at is not None:
            delay_s = identity.expires_at + leeway_s - self.clock.wall_ms() / 1000
            timer = self.clock.call_later(max(0.0, delay_s), lambda: expire(connection, "who you are has expired"))
        self._all[connection] = (identity, timer)

    def end(self, connection: Connection) -> None:
        """It is gone; twice is nothing."""
        _, timer = self._all.pop(connection, (None, None))
        if timer is not None:
            timer.cancel()

    def end_revoked(self, is_revoked: Callable[[Identity], bool]) -> int:
        """End every connection whose caller's token is void; returns how many there were."""
        ended = self._of(is_revoked)
        for connection in ended:
            expire(connection, "the token was revoked")
        return len(ended)

    def disconnect(self, user: str, code: Code) -> int:
        """End every connection of ``user``; returns how many there were."""
        ended = self._of(lambda identity: identity.user == user)
        for connection in ended:
            connection.end(Verdict(code.code, code.name))
        return len(ended)

    def _of(self, is_meant: Callable[[Identity], bool]) -> list[Connection]:
        return [one for one, (identity, _) in self._all.items() if one.verdict is None and is_meant(identity)]


def expire(connection: Connection, reason: str) -> None:
    """End ``connection``; nothing more leaves for it, not even what is queued."""
    connection.end(Verdict(EXPIRED.code, f"{reason}: come back with a new token"))
