"""What the session protocol advises: after a close code, after an error, and about a token's end. Pure."""

from __future__ import annotations

from typing import Final

from tidewire.client.reconnect import Advice, ComeBack
from tidewire.protocol import codes

_WHY: Final = {
    1000: "the server closed",
    1001: "the server is going away",
    1002: "the server saw a protocol error",
    1005: "the server closed without a reason",
    1006: "the line was cut",
    1009: "a frame was larger than the server takes",
    1011: "the server had an internal error",
    1012: "the server is restarting",
    1013: "the server is overloaded",
} | {one.code: one.meaning for one in codes.SESSION_CODES}
_FINAL: Final = (range(3500, 4000), range(4500, 5000))
# It would only happen again at once.
_SLOW: Final = frozenset({1002, 1003, 1007, 1008, 1010, codes.FLOOD.code})
STATE_INVALIDATED: Final = 3014
"""Token and positions are worth nothing any more (centrifugal.dev, "Client protocol", disconnect codes)."""
EXPIRED: Final = codes.EXPIRED.code

RESUBSCRIBE_FROM: Final = codes.SUBSCRIPTION_STATE.code
"""Unsubscribe codes from here on ask to subscribe again; lower ones are final."""
SUBSCRIPTION_EXPIRED: Final = codes.SUBSCRIPTION_EXPIRED.code
SUBSCRIPTION_INVALIDATED: Final = 2502

_REFRESH_MARGIN_MAX_S: Final = 30.0


def advise_close(code: int, reason: str = "") -> Advice:
    """What a client of a session does after a close frame; ``reason`` is the server's word and is quoted.

    No client comes back after 3500 to 3999 and 4500 to 4999, nor after 1009; after all others it does
    (centrifugal.dev, "Client protocol", disconnect codes; the rule of every SDK).
    """
    stops = code == codes.TOO_LARGE.code or any(code in final for final in _FINAL)
    come_back = ComeBack.STOP if stops else ComeBack.SLOW if code in _SLOW else ComeBack.FAST
    why = _WHY.get(code, "the server refuses" if stops else "the server closed")
    said = f", {reason}" if reason else ""
    return Advice(come_back, f"{why} ({code}{said})")


def may_ask_again(code: int, temporary: bool) -> bool:
    """Whether a refused command may be repeated by itself (the rule of every SDK; 109 wants a new token first)."""
    return temporary or code < 100 or code == codes.TOKEN_EXPIRED.code


def refresh_after_s(ttl_s: int) -> float:
    """When to get a new token: before this one ends, so that nobody needs the server's grace."""
    return ttl_s - min(ttl_s * 0.2, _REFRESH_MARGIN_MAX_S)
