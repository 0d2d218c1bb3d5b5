"""Who is on a topic, in this process: members, join and leave, and a grace for those who come back.

A *member* is one connection of somebody, under an id that outlives its socket for a while: who comes back within the
grace under the same id has neither left nor joined. It knows no socket: who wants to hear is told through a function.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from tidewire.clock import Clock, Timer


@dataclass(frozen=True, slots=True)
class Member:
    """One connection on one topic.

    ``client``: the id of the connection. ``user``: whose it is; empty for somebody unknown. ``info`` and
    ``topic_info``: what others may know of the connection, and of it on this topic (JSON text; empty: nothing).
    """

    client: str
    user: str = ""
    info: bytes = b""
    topic_info: bytes = b""


Told = Callable[[str, Member, bool], None]
"""``told(topic, member, joined)``: somebody has joined (True) or left. Must not block or raise."""


@dataclass(slots=True)
class _Roster:
    """Who is on one topic, and who hears of it."""

    members: dict[str, Member] = field(default_factory=dict)
    # those whose connection is lost, until the grace is over
    away: dict[str, Timer] = field(default_factory=dict)
    listeners: dict[Hashable, Told] = field(default_factory=dict)


class Presence:
    """The rosters of one process. ``grace_s``: how long a lost connection is still there.

    Its size is bounded by the connections and their subscriptions; who is away counts for ``grace_s`` longer.
    """

    def __init__(self, clock: Clock, *, grace_s: float) -> None:
        self.clock = clock
        self._grace_s = grace_s
        self._rosters: dict[str, _Roster] = {}

    def join(self, topic: str, member: Member) -> bool:
        """``member`` is on ``topic``; those who listen are told, unless it was only away. Returns whether they were."""
        roster = self._rosters.setdefault(topic, _Roster())
        timer = roster.away.pop(member.client, None)
        if timer is not None:
            timer.cancel()
        was_there = member.client in roster.members
        roster.members[member.client] = member
        if not was_there:
            self._tell(topic, roster, member, joined=True)
        return not was_there

    def leave(self, topic: str, client: str) -> None:
        """It has left for good, and those who listen are told. Twice is nothing."""
        roster = self._rosters.get(topic)
        if roster is None:
            return
        timer = roster.away.pop(client, None)
        if timer is not None:
            timer.cancel()
        member = roster.members.pop(client, None)
        if member is not None:
            self._tell(topic, roster, member, joined=False)
        self._forget_if_empty(topic, roster)

    def lose(self, topic: str, client: str) -> None:
        """Its connection is lost: it leaves when the grace is over and it has not come back."""
        roster = self._rosters.get(topic)
        if roster is None or client not in roster.members or client in roster.away:
            return
        roster.away[client] = self.clock.call_later(self._grace_s, lambda: self.leave(topic, client))

    def listen(self, topic: str, key: Hashable, told: Told) -> None:
        """Tell ``told`` of every join and leave of ``topic`` from now on."""
        self._rosters.setdefault(topic, _Roster()).listeners[key] = told

    def unlisten(self, topic: str, key: Hashable) -> None:
        """No longer; twice is nothing."""
        roster = self._rosters.get(topic)
        if roster is not None:
            roster.listeners.pop(key, None)
            self._forget_if_empty(topic, roster)

    def _tell(self, topic: str, roster: _Roster, member: Member, *, joined: bool) -> None:
        for told in list(roster.listeners.values()):
            told(topic, member, joined)

    def _forget_if_empty(self, topic: str, roster: _Roster) -> None:
        if not roster.members and not roster.listeners and self._rosters.get(topic) is roster:
            del self._rosters[topic]

    def members(self, topic: str) -> list[Member]:
        """Who is on ``topic``, in the order they came, those who are away for a moment among them."""
        roster = self._rosters.get(topic)
        return [] if roster is None else list(roster.members.values())

    def count(self, topic: str) -> tuple[int, int]:
        """How many connections are on ``topic``, and of how many users."""
        roster = self._rosters.get(topic)
        if roster is None:
            return 0, 0
        # nobody knows who is unknown: each counts as one
        unknown = sum(not member.user for member in roster.members.values())
        return len(roster.members), len({member.user for member in roster.members.values() if member.user}) + unknown

    def close(self) -> None:
        """Forget everybody; nobody is told."""
        for roster in self._rosters.values():
            for timer in roster.away.values():
                timer.cancel()
        self._rosters.clear()
