"""A token and its end: of the connection, or of one subscription. Pure; the shell gets new ones."""

from __future__ import annotations

from tidewire.client.session.advice import refresh_after_s
from tidewire.client.session.desk import Desk
from tidewire.client.session.events import WantToken

# after a token could not be had, or was refused for the moment
_AGAIN_S = (5.0, 10.0)


class Token:
    """``value``: the token as it is, empty for none. ``is_renewable``: whether a function gets new ones."""

    def __init__(self, desk: Desk, topic: str | None, value: str, *, is_renewable: bool) -> None:
        self.value = value
        self.is_renewable = is_renewable
        self._desk = desk
        self._topic = topic
        # a new one is being got
        self._is_wanted = False

    @property
    def is_missing(self) -> bool:
        """Whether one has to be got first."""
        return self.is_renewable and not self.value

    def want(self) -> None:
        """Let one be got; while that goes on, twice is nothing."""
        if not self._is_wanted:
            self._is_wanted = True
            self._desk.events.append(WantToken(self._topic))

    def take(self, value: str) -> None:
        """Here it is."""
        self._is_wanted = False
        self.value = value

    def failed(self) -> None:
        """None could be got."""
        self._is_wanted = False

    def drop(self) -> None:
        """The present one is worth nothing any more; one that cannot be renewed stays, for lack of a better."""
        if self.is_renewable:
            self.value = ""

    def renew_in(self, *, expires: bool, ttl_s: int) -> None:
        """The server has said when the present one ends."""
        if not expires or not self.is_renewable:
            self.rest()
            return
        self._set(refresh_after_s(ttl_s))

    def renew_later(self) -> None:
        """Try again after a while."""
        self._set(self._desk.rng.uniform(*_AGAIN_S))

    def _set(self, delay_s: float) -> None:
        self._desk.alarms.set(("token", self._topic), self._desk.now + delay_s, self.want)

    def rest(self) -> None:
        """There is nothing to renew for now."""
        self._desk.alarms.clear(("token", self._topic))
