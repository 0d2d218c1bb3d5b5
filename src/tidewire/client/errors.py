"""What ``connect``, ``subscribe``, ``publish`` and ``Client`` raise: the client's branch of ``tidewire.errors``.

Each carries the facts as attributes and says in one sentence what happened and what to do. URLs are
shown without their query and password: tokens live there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tidewire.errors import CallError, ClientError

_TEXT_MAX = 500
# A shorter detail ("Not Found", "Not authenticated") is a word, not a sentence that says what to do.
_SENTENCE_MIN = 24

TOPIC_HINTS: Final[Mapping[int, str]] = {
    401: "send credentials with the request (an Authorization header, or a token in the URL)",
    403: "ask with credentials that may, or from an allowed origin",
    404: "check the URL: a router is usually mounted under a prefix such as /live, and the topic must be declared",
    405: "this topic does not allow it: declare it with publish=True",
    410: "the topic is gone for good",
    413: "send smaller messages",
    421: "ask by a host name the server answers to (an open server: localhost or 127.0.0.1)",
    422: "check the parameters in the URL",
    426: "this URL speaks another protocol",
    429: "slow down",
    503: "the server is overloaded or shutting down: try again later",
}
"""What to do about the status of a refusal, where a topic was asked for."""
RAW_HINTS: Final[Mapping[int, str]] = {
    400: "it does not understand the handshake: check the URL, and whether it begins with ws:// or wss://",
    401: "send credentials with the request: headers={'Authorization': ...}, or a token in the URL",
    403: "ask with credentials that may, or from an origin it allows: origin=...",
    404: "check the path of the URL",
    421: "ask by a host name the server answers to (on loopback: localhost or 127.0.0.1)",
    426: "this URL speaks another protocol",
    429: "connect less often",
    500: "it failed; its log says why",
    502: "a proxy in front of it cannot reach it: try again later",
    503: "it is overloaded or shutting down: try again later",
    504: "a proxy in front of it cannot reach it: try again later",
}
"""The same, where a WebSocket was asked for."""


def shorten(text: str, limit: int = _TEXT_MAX) -> str:
    """``text`` on one line and not longer than ``limit``: what a stranger sent is quoted, never poured out."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


class BadURL(ClientError, ValueError):
    """Not a URL that can be asked. Attributes: ``url`` (str, shortened), ``why`` (str)."""

    def __init__(self, url: str, why: str, what: str = "the URL of a topic") -> None:
        self.url = shorten(url, 200)
        self.why = why
        super().__init__(f"{self.url!a} is not {what}: {why}")


class Refused(ClientError):
    """The server said no.

    Attributes: ``url``, ``status`` (int or None, HTTP), ``code`` (int or None, WebSocket close code),
    ``detail`` (str, the server's own sentence, may be empty), ``retry_after_s`` (float or None).
    """

    def __init__(
        self,
        url: str,
        *,
        status: int | None = None,
        code: int | None = None,
        detail: str = "",
        retry_after_s: float | None = None,
        hints: Mapping[int, str] = TOPIC_HINTS,
    ) -> None:
        self.url = url
        self.status = status
        self.code = code
        self.detail = shorten(detail)
        self.retry_after_s = retry_after_s
        number = f"close code {code}" if status is None else str(status)
        said = f": {self.detail}" if self.detail else ""
        hint = hints.get(status or 0, "") if len(self.detail) < _SENTENCE_MIN else ""
        if retry_after_s is not None:
            hint = f"try again in {retry_after_s:g} s"
        super().__init__(f"{url} refused with {number}{said}" + (f" ({hint})" if hint else ""))


class NothingListens(ClientError, ConnectionRefusedError):
    """Nobody answers at the address, or nobody who can be trusted. Also a ``ConnectionRefusedError``.

    Attributes: ``url`` (str), ``why`` (str, empty when it was refused).
    """

    def __init__(self, url: str, why: str = "", what_to_do: str = "check the address and the network") -> None:
        self.url = url
        self.why = shorten(why)
        if self.why:
            sentence = f"cannot reach {url}: {self.why}; {what_to_do}"
        else:
            sentence = f"nothing listens at {url}: start the server first"
        super().__init__(sentence)


class NoAnswer(ClientError, TimeoutError):
    """The server accepted and then kept silent, or hung up. Also a ``TimeoutError``.

    Attributes: ``url`` (str), ``why`` (str).
    """

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = why
        super().__init__(f"{url} gave no answer: {why}")


class NotATopic(ClientError):
    """The URL answers, but not as a Tidewire topic. Attributes: ``url`` (str), ``why`` (str)."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = shorten(why)
        super().__init__(f"{url} is no Tidewire topic: {self.why}")


class NotAWebSocket(ClientError):
    """The URL answers, but opens no WebSocket. Attributes: ``url`` (str), ``why`` (str)."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = shorten(why)
        super().__init__(f"{url} is no WebSocket: {self.why}")


class Disconnected(ClientError):
    """The connection was lost and no further attempt is made (``retry=False``, or it would only happen again).

    Attributes: ``url`` (str), ``code`` (int, WebSocket close code, 1006 for a cut line), ``reason`` (str).
    """

    def __init__(self, url: str, code: int, reason: str) -> None:
        self.url = url
        self.code = code
        self.reason = shorten(reason)
        super().__init__(f"the connection to {url} ended: {self.reason}")


class TopicFailed(ClientError):
    """The topic was finished with an error.

    Attributes: ``url`` (str), ``error`` (str, what the publisher said), ``position`` (str or None).
    """

    def __init__(self, url: str, error: str, position: str | None) -> None:
        self.url = url
        self.error = error
        self.position = position
        super().__init__(f"the topic at {url} failed: {shorten(error)}")


# What a Client raises beside these

COMMAND_HINTS: Final[Mapping[int, str]] = {
    101: "connect with a token: Client(url, token=...)",
    102: "check the name: the topic must be declared with @live.topic",
    103: "ask as somebody who may",
    104: "check the name: the call must be declared with @live.call",
    106: "ask for less at once",
    107: "check what was sent",
    108: "switch it on where the topic is declared",
    109: "give token= as a function, so that a new one can be had",
    111: "try again later",
    112: "begin anew without since=",
}
"""What to do about the code of an error (centrifugal.dev, "Client protocol", error codes)."""


class CommandRefused(ClientError):
    """The server has answered a command of a session with an error.

    Attributes: ``what`` (str, what was asked for), ``code`` (int; 400 to 1999 are an application's own), ``message``
    (str, the server's), ``temporary`` (bool: asking again may help).
    """

    def __init__(self, what: str, code: int, message: str, *, temporary: bool = False) -> None:
        self.what = what
        self.code = code
        self.message = shorten(message)
        self.temporary = temporary
        hint = COMMAND_HINTS.get(code, "") if len(self.message) < _SENTENCE_MIN else ""
        sentence = f"{what} was refused: {self.message or 'no reason given'} ({code})"
        # not super(): in ``CallRefused`` that would be ``CallError``, which wants other arguments
        Exception.__init__(self, sentence + (f"; {hint}" if hint else ""))


class CallRefused(CommandRefused, CallError):
    """A call has failed there; attributes as ``CommandRefused``. Also a ``CallError``, as its function raised it."""


class Unsubscribed(ClientError):
    """The server has ended a subscription for good. Attributes: ``topic`` (str), ``code`` (int), ``reason`` (str)."""

    def __init__(self, topic: str, code: int, reason: str) -> None:
        self.topic = topic
        self.code = code
        self.reason = shorten(reason)
        super().__init__(
            f"the server has ended the subscription to {topic!a}: {self.reason} ({code}); subscribe again if you may"
        )


class AlreadySubscribed(ClientError):
    """One client has one subscription to a topic at a time. Attribute: ``topic`` (str)."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(
            f"this client is subscribed to {topic!a} already: share that subscription, or use another Client"
        )


class ConsumerTooSlow(ClientError):
    """A subscription with ``on_overflow="error"`` was not read in time. Attributes: ``topic`` (str), ``waiting`` (int).

    What was there before it ended can still be read.
    """

    def __init__(self, topic: str, waiting: int) -> None:
        self.topic = topic
        self.waiting = waiting
        super().__init__(
            f"{waiting} messages of {topic!a} waited to be read, and there was no room for the next: read faster, "
            'or let on_overflow="pause" ask for them later'
        )


class TooManyKeys(ClientError):
    """A mirror has more keys than it may. Attributes: ``topic`` (str), ``limit`` (int)."""

    def __init__(self, topic: str, limit: int) -> None:
        self.topic = topic
        self.limit = limit
        super().__init__(f"the mirror of {topic!a} has {limit} keys and there is one more: raise its max_keys")


class WrongType(ClientError):
    """Data that is not of the type that was asked for; what comes after it can be read.

    Attributes: ``where`` (str), ``why`` (str), ``position`` (str or None), ``data`` (bytes, as it came).
    """

    def __init__(self, where: str, why: str, data: bytes, position: str | None = None) -> None:
        self.where = where
        self.why = shorten(why)
        self.data = data
        self.position = position
        super().__init__(f"{where} is not of the type that was asked for: {self.why}")


class NoToken(ClientError):
    """The function that gets tokens has failed, or gave none. Attributes: ``what`` (str), ``why`` (str)."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        self.why = shorten(why)
        super().__init__(f"there is no token for {what}: {self.why}")


class NotASession(ClientError):
    """The URL opens a WebSocket that speaks no session. Attributes: ``url`` (str), ``why`` (str)."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = shorten(why)
        super().__init__(f"{url} speaks no session (Centrifuge protocol): {self.why}")


class TooManyRequests(ClientError):
    """More requests wait in this client than may. Attribute: ``limit`` (int)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{limit} requests wait in this client already: wait for their answers before asking for more")


class ClientClosed(ClientError):
    """The client is closed, or was never opened. Attribute: ``url`` (str)."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"the client of {url} is closed: use it inside of 'async with Client(url) as client'")
