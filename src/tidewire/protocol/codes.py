"""Close codes of the plain dialect and what each advises, in one table (CONTRACTS 12)."""

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

ALL = (FINISHED, UNSUPPORTED_DATA, BAD_PAYLOAD, DENIED, TOO_LARGE, BROKEN, SHUTDOWN, TRY_LATER, SLOW, GAP)


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 7.4.1, 7.4.2, and the IANA registry)."""
    return code in _REGISTERED or 3000 <= code <= 4999


def shorten_reason(reason: str) -> str:
    """``reason`` cut to what a close frame carries, on a character boundary."""
    data = reason.encode()
    if len(data) <= CLOSE_REASON_BYTES_MAX:
        return reason
    return data[: CLOSE_REASON_BYTES_MAX - 3].decode(errors="ignore") + "..."
