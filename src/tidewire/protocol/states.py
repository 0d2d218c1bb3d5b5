"""The life of a raw connection as one table, the same for both sides (RFC 6455 sections 4, 5.5.1 and 7).

The table does not know whether it is a client's or a server's: "we" is this side, "the peer" the other, and "the line"
is TCP with everything in between. Its figure is docs/life-of-a-connection.svg.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from tidewire.errors import TidewireError


class State(Enum):
    """Where a connection is in its life; the names are those of RFC 6455."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Event(Enum):
    """What can happen to it; the value says who does what."""

    ACCEPTED = "the server accepts"
    REFUSED = "the server refuses"
    WE_GIVE_UP = "we give up waiting"
    WE_SEND = "we send"
    PEER_SENDS = "the peer sends"
    WE_CLOSE = "we close"
    PEER_CLOSES = "the peer closes"
    LINE_ENDS = "the line ends"


class Code(Enum):
    """The close code that this side sees afterwards; what it is when none was in a close frame is RFC 6455 7.1.5."""

    NONE = ""
    """There is none: not yet, or an HTTP status says what was wrong."""
    PEERS = "the peer's code"
    """1005 where its close frame named none."""
    OURS = "our code"
    """The peer never answered."""
    EITHER = "the peer's code, or ours"
    """The peer's where it has said goodbye, ours where it never answered."""
    LOST = "1006"
    """Nobody has said goodbye."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the table: in ``state``, ``event`` leads to ``to``; ``code`` is seen then, ``why`` is the rule."""

    state: State
    event: Event
    to: State
    code: Code
    why: str


TABLE: Final = (
    Transition(State.CONNECTING, Event.ACCEPTED, State.OPEN, Code.NONE, "RFC 6455 4.1, 4.2.2: status 101"),
    Transition(State.CONNECTING, Event.REFUSED, State.CLOSED, Code.NONE, "RFC 6455 4.1, 4.2.2: any other status"),
    Transition(State.CONNECTING, Event.WE_GIVE_UP, State.CLOSED, Code.NONE, "RFC 6455 7.1.7: the handshake's deadline"),
    Transition(State.CONNECTING, Event.LINE_ENDS, State.CLOSED, Code.NONE, "RFC 6455 4.1: there was no connection"),
    Transition(State.OPEN, Event.WE_SEND, State.OPEN, Code.NONE, "RFC 6455 6.1: only while it is open"),
    Transition(State.OPEN, Event.PEER_SENDS, State.OPEN, Code.NONE, "RFC 6455 6.2"),
    Transition(State.OPEN, Event.WE_CLOSE, State.CLOSING, Code.NONE, "RFC 6455 7.1.2, 7.1.3: a close frame is sent"),
    Transition(State.OPEN, Event.PEER_CLOSES, State.CLOSING, Code.PEERS, "RFC 6455 5.5.1: it is answered at once"),
    Transition(State.OPEN, Event.LINE_ENDS, State.CLOSED, Code.LOST, "RFC 6455 7.1.5"),
    Transition(State.CLOSING, Event.PEER_SENDS, State.CLOSING, Code.NONE, "RFC 6455 1.4: what was under way, ignored"),
    Transition(State.CLOSING, Event.PEER_CLOSES, State.CLOSING, Code.PEERS, "RFC 6455 7.1.4: both have said goodbye"),
    Transition(State.CLOSING, Event.LINE_ENDS, State.CLOSED, Code.EITHER, "RFC 6455 7.1.1, 7.1.4"),
    Transition(State.CLOSING, Event.WE_GIVE_UP, State.CLOSED, Code.OURS, "RFC 6455 7.1.1: nobody waits for ever"),
)
"""Every transition there is. Nothing leads out of ``CLOSED``: who wants to go on connects anew."""

_NEXT: Final = MappingProxyType({(one.state, one.event): one for one in TABLE})


class ImpossibleEvent(TidewireError):
    """The table knows no such transition. Attributes: ``state`` (``State``), ``event`` (``Event``)."""

    def __init__(self, state: State, event: Event) -> None:
        self.state = state
        self.event = event
        possible = ", ".join(one.event.value for one in TABLE if one.state is state) or "nothing any more"
        super().__init__(f"{event.value!r} cannot happen to a connection that is {state.value}; possible: {possible}")


def transition(state: State, event: Event) -> Transition:
    """The line of the table for ``event`` in ``state``. Raises ``ImpossibleEvent``."""
    found = _NEXT.get((state, event))
    if found is None:
        raise ImpossibleEvent(state, event)
    return found


def next_state(state: State, event: Event) -> State:
    """Where ``event`` leads from ``state``. Raises ``ImpossibleEvent``."""
    return transition(state, event).to
