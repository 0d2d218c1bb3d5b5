"""What the machine of a client asks its shell to do, and what it tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tidewire.client.session.messages import ClientState, SubscriptionState
from tidewire.errors import ClientError
from tidewire.protocol.packets import Packet

if TYPE_CHECKING:
    from tidewire.client.session.track import Track


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection; ``attempt`` is its name."""

    attempt: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """End it: with a close frame of that code, or at once where there is none."""

    attempt: int
    code: int | None = None


@dataclass(frozen=True, slots=True)
class WantToken:
    """Get a token: of the subscription to ``topic``, or of the connection."""

    topic: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """A request is answered, or will not be. ``result``: None for what has no answer."""

    handle: int
    result: Packet | ClientError | None


@dataclass(frozen=True, slots=True)
class Changed:
    """The client's state has changed."""

    state: ClientState


@dataclass(frozen=True, slots=True)
class TrackChanged:
    """A subscription's state has changed."""

    track: Track
    state: SubscriptionState


@dataclass(frozen=True, slots=True)
class Arrived:
    """Something is there to be read: of a subscription, or (None) what the server sends to this user."""

    track: Track | None


Event: TypeAlias = Dial | HangUp | WantToken | Settled | Changed | TrackChanged | Arrived
