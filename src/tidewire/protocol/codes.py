"""Codes and what each advises, in tables (CONTRACTS 12): close codes of both dialects, and what sessions say.

Those of sessions are the protocol's (centrifugal.dev, "Client protocol", error and disconnect codes). Its clients come
back after a close with 3000 to 3499 and 4000 to 4499, and with everything below 3000 but 1009.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOSE_REASON_BYTES_MAX = 123
"""RFC 6455 section 5.5: a control frame carries 125 bytes, two of them the code."""

# 1005, 1006 and 1015 are for programs to talk about, never on the wire
_REGISTERED = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


@dataclass(frozen=True, slots=True)
class Code:
    """A WebSocket close code; ``come_back`` is what a client does."""

    code: int
    name: str
    come_back: bool
    meaning: str


FINISHED = Code(1000, "finished", False, "the topic is finished, everything has been sent")
UNSUPPORTED_DATA = Code(1003, "unsupported data", False, "a kind of frame that this topic does not take")
BAD_PAYLOAD = Code(1007, "bad payload", False, "text where JSON was promised, or text that is not UTF-8")
DENIED = Code(1008, "denied", False, "this caller may not do that")
TOO_LARGE = Code(1009, "too large", False, "a message over the limit; the reason names both numbers")
BROKEN = Code(1011, "broken", True, "the application raised an error; the server's log has it")
SHUTDOWN = Code(1012, "shutdown", True, "the server stops or restarts")
TRY_LATER = Code(1013, "try later", True, "a limit of the server is reached")
SLOW = Code(3008, "slow", True, "the reader did not keep up; with positions it is told the gap on its return")
GAP = Code(4001, "gap", True, "a bare reader lost messages; the reason is 'gap <position to resume from>'")

# Sessions. SLOW is theirs too.
SESSION_SHUTDOWN = Code(3001, "shutdown", True, "the server stops or restarts")
EXPIRED = Code(3005, "connection expired", True, "the token has expired and was not refreshed: get a new one")
INSUFFICIENT_STATE = Code(3010, "insufficient state", True, "a subscription the server has made lost messages")
RECONNECT = Code(3011, "reconnect", True, "the application wants this client to connect again")
NO_PONG = Code(3012, "no pong", True, "a ping was not answered in time")
FLOOD = Code(3013, "too many requests", True, "commands come faster than they may")
INVALID_TOKEN = Code(3500, "invalid token", False, "the token of the connection cannot be trusted")
BAD_REQUEST = Code(3501, "bad request", False, "a packet that makes no sense; the reason says which")
STALE = Code(3502, "stale", False, "no connect command came in time")
FORCED = Code(3503, "disconnected", False, "the application has ended the connection")
SESSION_DENIED = Code(3507, "permission denied", False, "this caller may not connect")
NOT_OFFERED = Code(3508, "not available", False, "messages were sent and the application takes none")
REPLACED = Code(4500, "replaced", False, "the same session was opened again: the newer connection goes on")
SESSION_TOO_LARGE = Code(4413, "too large", True, "a frame over the limit; the reason names both numbers")

SESSION_CODES = (
    SLOW,
    SESSION_SHUTDOWN,
    EXPIRED,
    INSUFFICIENT_STATE,
    RECONNECT,
    NO_PONG,
    FLOOD,
    REPLACED,
    INVALID_TOKEN,
    BAD_REQUEST,
    STALE,
    FORCED,
    SESSION_DENIED,
    NOT_OFFERED,
    SESSION_TOO_LARGE,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a command of a session is refused. ``temporary``: the client asks again by itself."""

    code: int
    name: str
    temporary: bool
    meaning: str


INTERNAL = Fault(100, "internal server error", True, "the application failed; its log has the error")
UNAUTHORIZED = Fault(101, "unauthorized", False, "nobody is known to be asking: present a token")
UNKNOWN_CHANNEL = Fault(102, "unknown channel", False, "no declaration matches the topic")
PERMISSION_DENIED = Fault(103, "permission denied", False, "this caller may not do that")
METHOD_NOT_FOUND = Fault(104, "method not found", False, "no call of this name")
ALREADY_SUBSCRIBED = Fault(105, "already subscribed", False, "the connection has this subscription")
LIMIT_EXCEEDED = Fault(106, "limit exceeded", False, "more, or more at once, than there may be")
BAD_COMMAND = Fault(107, "bad request", False, "a command that makes no sense")
NOT_AVAILABLE = Fault(108, "not available", False, "not spoken here, or not switched on for this topic")
TOKEN_EXPIRED = Fault(109, "token expired", False, "the client gets a new token and asks again")
TOO_MANY_REQUESTS = Fault(111, "too many requests", True, "ask again later")
UNRECOVERABLE = Fault(112, "unrecoverable position", False, "what came after that position is not kept")

FAULTS = (
    INTERNAL,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_COMMAND,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE,
)

# Why the server has ended one subscription: from 2500 on the client subscribes again.
UNSUBSCRIBED = Code(2000, "unsubscribed", False, "the application has ended the subscription")
TOPIC_FINISHED = Code(2001, "finished", False, "the topic is finished, everything has been sent")
SUBSCRIPTION_STATE = Code(2500, "insufficient state", True, "messages were lost; the client recovers them if it can")
SUBSCRIPTION_EXPIRED = Code(2501, "subscription expired", True, "its token has expired and was not refreshed")

UNSUBSCRIBE_CODES = (UNSUBSCRIBED, TOPIC_FINISHED, SUBSCRIPTION_STATE, SUBSCRIPTION_EXPIRED)

ALL = (
    FINISHED,
    UNSUPPORTED_DATA,
    BAD_PAYLOAD,
    DENIED,
    TOO_LARGE,
    BROKEN,
    SHUTDOWN,
    TRY_LATER,
    EXPIRED,
    SLOW,
    RECONNECT,
    FORCED,
    GAP,
)


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 7.4.1, 7.4.2, and the IANA registry)."""
    return code in _REGISTERED or 3000 <= code <= 4999


def shorten_reason(reason: str) -> str:
    """``reason`` cut to what a close frame carries, on a character boundary."""
    data = reason.encode()
    if len(data) <= CLOSE_REASON_BYTES_MAX:
        return reason
    return data[: CLOSE_REASON_BYTES_MAX - 3].decode(errors="ignore") + "..."
