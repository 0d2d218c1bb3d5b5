"""What a ``Client`` hands to its user: messages, members, states. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tidewire.client.resume import Gap
from tidewire.errors import ClientError

T = TypeVar("T")
_NO_TAGS: Mapping[str, str] = {}

ClientStateName = Literal["disconnected", "connecting", "connected", "closed"]
SubscriptionStateName = Literal["subscribing", "subscribed", "unsubscribed"]


@dataclass(frozen=True, slots=True)
class Member:
    """One connection of somebody.

    ``client``: the id of the connection. ``user``: whose it is, empty for somebody unknown. ``info`` and
    ``topic_info``: what is told of the connection, and of it on this topic (JSON values; None: nothing).
    """

    client: str
    user: str = ""
    info: Any = None
    topic_info: Any = None


@dataclass(frozen=True, slots=True)
class MemberChange:
    """Who came or went.

    ``kind``: "join", "leave", or "missed": changes before this one are not known (the line was cut, or nobody read
    them); ask ``client.presence(topic)`` who is there. ``member``: None when ``kind`` is "missed".
    """

    kind: Literal["join", "leave", "missed"]
    member: Member | None


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """One message.

    ``data``: the value, of the type that was asked for; None when ``removed``. ``topic``: where it was published; empty
    for what the server sends to this user alone. ``position``: where it stands; give it as ``since`` to go on after
    it. None on topics that number nothing. ``gap``: what was lost before this message; None: nothing.

    ``key`` and ``removed``: on keyed topics, that this key is gone. ``snapshot``: the state as it stands, told at the
    start, not a publish. ``publisher``: whose connection published it, where the server says so. ``tags``: what else
    the server says.
    """

    data: T
    topic: str = ""
    position: str | None = None
    gap: Gap | None = None
    key: str | None = None
    removed: bool = False
    snapshot: bool = False
    publisher: Member | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: _NO_TAGS)


@dataclass(frozen=True, slots=True)
class History(Generic[T]):
    """What is kept of a topic. ``position``: the topic's present end; None: it has none yet."""

    messages: list[Message[T]]
    position: str | None


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """How many are on a topic."""

    connections: int
    users: int


@dataclass(frozen=True, slots=True)
class ClientState:
    """How a client stands, told whenever it changes.

    ``name``: "disconnected" (there is no connection, and the next attempt waits), "connecting", "connected" or "closed"
    (for good). ``reason`` says why in words. ``attempt`` and ``retry_in_s``: on "disconnected", which attempt comes
    next, and when. ``error``: on "closed", what ended it; None: its user did.
    """

    name: ClientStateName
    reason: str = ""
    attempt: int = 0
    retry_in_s: float | None = None
    error: ClientError | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """How a subscription stands, told whenever it changes.

    ``name``: "subscribing", "subscribed" or "unsubscribed" (for good). ``reason`` says why in words.
    ``recovered``: on "subscribed", whether everything since the position that it had follows; None: it had none.
    ``lost``: on "subscribed", what is lost just now; on "unsubscribed", a loss that no message carried.
    ``error``: on "unsubscribed", what ended it; None: its user, or the end of the topic.
    """

    name: SubscriptionStateName
    reason: str = ""
    recovered: bool | None = None
    lost: Gap | None = None
    error: ClientError | None = None
