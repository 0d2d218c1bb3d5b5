"""Whether to come back, and when. Pure: time and chance are arguments.

The library below retries only failed handshakes, and a server that accepts and closes at once is
redialled without any delay; here every attempt counts until a connection has been healthy for a while.
"""

from __future__ import annotations

import email.utils
import random
from dataclasses import dataclass
from enum import Enum
from typing import Final


class ComeBack(Enum):
    """What an ending asks of the client."""

    END = "end"
    """Nothing more will come: the topic has ended."""
    STOP = "stop"
    """Asking again would be answered the same: raise."""
    SLOW = "slow"
    """Come back, but leave the server in peace for a while."""
    FAST = "fast"
    """Come back soon, with jitter."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do after an ending, why in words, and how long the server asked to be left alone."""

    come_back: ComeBack
    reason: str
    after_s: float | None = None


_CLOSE: Final[dict[int, tuple[ComeBack, str]]] = {
    1000: (ComeBack.END, "the topic has ended"),
    1001: (ComeBack.FAST, "the server is going away"),
    1002: (ComeBack.SLOW, "the server saw a protocol error"),
    1003: (ComeBack.STOP, "the server takes no such messages"),
    1005: (ComeBack.FAST, "the server closed without a reason"),
    1006: (ComeBack.FAST, "the line was cut"),
    1007: (ComeBack.STOP, "invalid data was sent"),
    1008: (ComeBack.STOP, "the server's policy does not allow it"),
    1009: (ComeBack.STOP, "a message was too large"),
    1010: (ComeBack.STOP, "the server lacks an extension"),
    1011: (ComeBack.FAST, "the server had an internal error"),
    1012: (ComeBack.FAST, "the server is restarting"),
    1013: (ComeBack.FAST, "the server is overloaded"),
    1014: (ComeBack.FAST, "a gateway lost the server"),
    1015: (ComeBack.SLOW, "the TLS handshake failed"),
    3001: (ComeBack.FAST, "the server is shutting down"),
    3008: (ComeBack.FAST, "this reader was too slow"),
    3010: (ComeBack.FAST, "the history has moved on"),
    3013: (ComeBack.SLOW, "too many messages were sent"),
    4001: (ComeBack.FAST, "messages were lost on the way"),
}

_STOP_RANGES: Final = (range(3500, 4000), range(4500, 5000))
_STOP_STATUS: Final = frozenset({400, 401, 402, 403, 404, 405, 406, 410, 413, 414, 421, 422, 426, 431, 451})
_AFTER_MAX_S: Final = 3600.0


def advise_close(code: int, reason: str = "") -> Advice:
    """What a WebSocket close code advises; ``reason`` is the server's own word and is quoted."""
    come_back, why = _CLOSE.get(code, (ComeBack.SLOW, "the server closed"))
    if code not in _CLOSE and 3000 <= code <= 4999:
        stops = any(code in codes for codes in _STOP_RANGES)
        come_back, why = (ComeBack.STOP, "the server refuses") if stops else (ComeBack.FAST, "the server closed")
    said = f", {reason}" if reason else ""
    return Advice(come_back, f"{why} ({code}{said})")


def advise_status(status: int, retry_after: str | None = None, wall_s: float | None = None) -> Advice:
    """What the HTTP status of a refused handshake advises.

    ``retry_after`` is the header as it came (seconds, or a date that is read against ``wall_s``, seconds since
    1970).
    """
    after_s = parse_retry_after(retry_after, wall_s)
    if status in (408, 425, 429):
        return Advice(ComeBack.SLOW, f"too many requests ({status})" if status == 429 else f"HTTP {status}", after_s)
    if status >= 500:
        return Advice(ComeBack.FAST, f"the server is not ready ({status})", after_s)
    if status in _STOP_STATUS or 400 <= status < 500:
        return Advice(ComeBack.STOP, f"the server refuses ({status})", after_s)
    return Advice(ComeBack.STOP, f"the URL answers plain HTTP ({status})")


def parse_retry_after(text: str | None, wall_s: float | None = None) -> float | None:
    """Seconds from a ``Retry-After`` header (RFC 9110 10.2.3), at most an hour; None when it says nothing usable."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _AFTER_MAX_S)
    if wall_s is None:
        return None
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return min(max(0.0, date.timestamp() - wall_s), _AFTER_MAX_S)


class Backoff:
    """Exponential backoff with full jitter: tell it what happened, it says how long to wait.

    The ceiling of the delay grows from ``initial_s`` by ``factor`` to ``maximum_s`` with every ending, also
    when a server accepts and closes at once; it falls back only after a connection that was healthy for
    ``healthy_after_s``.
    """

    def __init__(
        self,
        *,
        initial_s: float = 0.5,
        maximum_s: float = 20.0,
        factor: float = 2.0,
        healthy_after_s: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self.initial_s = initial_s
        self.maximum_s = maximum_s
        self.factor = factor
        self.healthy_after_s = healthy_after_s
        self._rng = rng or random.Random()
        # endings since the last healthy connection
        self.attempt = 0
        # when the present connection became live, None while there is none
        self._live_since_s: float | None = None

    def connected(self, now_s: float) -> None:
        """A connection became live at ``now_s``."""
        self._live_since_s = now_s

    def failed(self, now_s: float, advice: Advice) -> float:
        """A connection ended or could not be made; returns the seconds to wait before the next attempt."""
        if self._live_since_s is not None and now_s - self._live_since_s >= self.healthy_after_s:
            self.attempt = 0
        self._live_since_s = None
        # the exponent is capped so that a year of attempts does not overflow a float
        ceiling_s = min(self.maximum_s, self.initial_s * self.factor ** min(self.attempt, 64))
        self.attempt += 1
        if advice.after_s is not None:
            return advice.after_s + self._rng.uniform(0, ceiling_s)
        if advice.come_back is ComeBack.SLOW:
            return self._rng.uniform(self.maximum_s / 2, self.maximum_s)
        return self._rng.uniform(0, ceiling_s)
