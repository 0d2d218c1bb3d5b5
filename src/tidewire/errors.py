"""Every error Tidewire raises, as one tree.

::

    TidewireError
    ├── BadTopic            a name no topic can have
    ├── UnknownTopic        no declaration covers the name
    ├── TopicFinished       the topic has ended; nothing more can be published
    ├── UnknownStream       nobody has created this stream, or it is deleted or expired
    ├── AppendConflict      the stream does not take this append
    │   ├── ProducerFenced      a newer incarnation of the producer has taken over
    │   └── ProducerGap         appends of this producer are missing before it
    ├── TooManyTopics       the cap of topics in one process is reached
    ├── NotCarried          a pattern, where the broker carries single topics only
    ├── BadPosition         a text that is no position
    ├── BadPayload          bytes that are not what was promised
    │   ├── TooLarge        more bytes than the limit
    │   └── BadPacket       a packet of a session that cannot be read
    ├── BadToken            a token that cannot be trusted, or is not for this
    ├── TokenExpired        a token that was good and is not any more
    │   └── TokenRevoked        it was revoked
    ├── KeysUnavailable     the keys that tokens are signed with cannot be had at the moment
    ├── TooManyRevocations  as many tokens are revoked as can be remembered
    ├── Deny                raised by a topic function: this caller may not
    ├── CallError           a call has failed, or is to fail
    ├── DeclarationError    a declaration that cannot work, told when it is made
    │   └── BadBrokerURL        no broker is meant by this URL
    ├── BrokerFailed        what keeps the messages could not do it; nothing of the call was acknowledged
    ├── NotRunning          the event loop that is needed has not started
    ├── PublishQueueFull    publish_soon was called faster than the loop can publish
    ├── TooManyRuns         the cap of publish_from runs at once is reached
    ├── RunIdTaken          the id of a run is that of a run for another topic
    ├── RunCancelled        the run that was waited for did not get to its end
    ├── DrainTimeout        readers did not catch up in the time given
    ├── AddressInUse        the port is taken by another program
    ├── BadAddress          this machine cannot listen there
    ├── SeveralProcesses    one memory broker, more than one process
    ├── NotOffered          the server below offers no such thing to applications
    ├── ConnectionClosed    a raw connection has ended
    │   ├── ConnectionClosedOK      with 1000, 1001 or no code at all
    │   └── ConnectionClosedError   with any other code, or without a close frame
    └── ClientError         raised by tidewire.connect, subscribe and publish
        ├── BadURL              not a URL that can be asked
        ├── Refused             the server said no, with a status or a close code
        ├── NothingListens      nobody answers at the address
        ├── NoAnswer            the server accepted and then kept silent
        ├── NotATopic           the URL answers, but not as a Tidewire topic
        ├── NotAWebSocket       the URL answers, but opens no WebSocket
        ├── Disconnected        the line was lost and no further attempt is made
        └── TopicFailed         the topic was finished with an error

Each says in one sentence what happened and what to do; facts are attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class TidewireError(Exception):
    """The root of the tree: catch this to catch everything of ours."""


class BadTopic(TidewireError):
    """A topic name that is not allowed.

    Attributes: ``name`` (str, shortened for display), ``why`` (str).
    """

    def __init__(self, name: str, why: str) -> None:
        self.name = name if len(name) <= 80 else name[:77] + "..."
        self.why = why
        super().__init__(f"{self.name!a} is not a topic name: {why}")


class UnknownTopic(TidewireError):
    """No ``@live.topic`` declaration matches. Attribute: ``topic`` (str)."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(
            f"no declaration matches the topic {topic!a}: declare it with @live.topic({topic!a}) or a pattern"
        )


class TopicFinished(TidewireError):
    """The topic has ended. Attributes: ``topic`` (str), ``position`` (str or None)."""

    def __init__(self, topic: str, position: str | None = None) -> None:
        self.topic = topic
        self.position = position
        super().__init__(f"the topic {topic!a} is finished: publish to another topic, a finished one stays finished")


class UnknownStream(TidewireError):
    """Nobody has created this stream, or it is deleted or expired. Attribute: ``topic`` (str)."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(f"there is no stream {topic!a}: create it first, with PUT")


class AppendConflict(TidewireError):
    """The stream does not take this append: another content type, or a ``Stream-Seq`` that does not ascend."""


class ProducerFenced(AppendConflict):
    """A newer incarnation of the producer has taken over. Attribute: ``epoch`` (int, the newest)."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(
            f"a producer of this id has begun epoch {epoch}: this one is over; to take over, begin epoch {epoch + 1}"
        )


class ProducerGap(AppendConflict):
    """Appends are missing before this one.

    Attributes: ``expected``, ``received`` (int, sequence numbers); ``is_new_epoch`` (bool): the first one of an
    epoch, which has to be 0.
    """

    def __init__(self, expected: int, received: int, *, is_new_epoch: bool = False) -> None:
        self.expected = expected
        self.received = received
        self.is_new_epoch = is_new_epoch
        sentence = f"the producer's next append is number {expected}, and this is {received}"
        super().__init__(sentence + (": a new epoch begins with 0" if is_new_epoch else ": send what is missing first"))


class TooManyTopics(TidewireError):
    """The cap of topics is reached. Attribute: ``limit`` (int)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"there are {limit} topics already: raise Limits(topics_max=...) or use fewer names")


class NotCarried(TidewireError):
    """The broker has no power to carry by pattern. Attribute: ``pattern`` (str)."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        super().__init__(f"the broker carries single topics only: subscribe to each instead of to {pattern!a}")


class BadPosition(TidewireError):
    """A text that is no position. Attribute: ``text`` (str, shortened)."""

    def __init__(self, text: str) -> None:
        self.text = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(
            f"{self.text!a} is not a position: give one that this server handed out (epoch:offset), -1 or now"
        )


class BadPayload(TidewireError):
    """Bytes that are not what was promised (malformed JSON, invalid UTF-8, the wrong kind)."""


class TooLarge(BadPayload):
    """More bytes than the limit. Attributes: ``size_bytes``, ``limit_bytes`` (int)."""

    def __init__(self, size_bytes: int, limit_bytes: int, what: str = "message") -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(f"{what} of {size_bytes} bytes exceeds the limit of {limit_bytes} bytes")


class BadPacket(BadPayload):
    """A packet of a session that cannot be read."""


class BadToken(TidewireError):
    """A token that cannot be trusted, or is not for this: the sentence says why, and never repeats it."""


class TokenExpired(TidewireError):
    """A token that was good and is not any more: get a new one."""


class TokenRevoked(TokenExpired):
    """A token that was revoked: a new one is good, if the application gives one."""

    def __init__(self) -> None:
        super().__init__("the token was revoked: get a new one")


class KeysUnavailable(TidewireError):
    """The keys that tokens are signed with cannot be had at the moment: nothing is known about the token."""

    def __init__(self) -> None:
        super().__init__("tokens cannot be verified at the moment, because their keys could not be fetched: try again")


class TooManyRevocations(TidewireError):
    """As many tokens are revoked as can be remembered. Attribute: ``limit`` (int)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"{limit} revocations are remembered, and none may be forgotten: raise Limits(revocations_max=...), or "
            "remember them for less long"
        )


class Deny(TidewireError):
    """Raise it in a topic function to refuse the caller.

    ``reason`` (str) is sent to the client; ``status`` (int) is the HTTP status, 403 unless given;
    ``headers`` (dict) are added to the refusal.
    """

    def __init__(
        self, reason: str = "you may not do this here", *, status: int = 403, headers: dict[str, str] | None = None
    ) -> None:
        self.reason = reason
        self.status = status
        self.headers = headers or {}
        super().__init__(reason)


class CallError(TidewireError):
    """A call has failed. Raise it in a function of ``@live.call`` to say how.

    Attributes: ``code`` (int; 400 to 1999 are an application's own), ``message`` (str), ``temporary`` (bool: the same
    call may succeed later).
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        self.code = code
        self.message = message
        self.temporary = temporary
        super().__init__(message)


class DeclarationError(TidewireError):
    """A declaration that cannot work; raised while the program is being imported, not at night."""


class NotRunning(TidewireError):
    """The event loop that is needed has not started yet, or has ended."""


class BadBrokerURL(DeclarationError):
    """No broker is meant by this. Attribute: ``url`` (str, without credentials)."""

    def __init__(self, url: str, sentence: str) -> None:
        self.url = url
        super().__init__(f"no broker is meant by {url!a}: {sentence}")


class BrokerFailed(TidewireError):
    """What keeps and carries messages could not do it; nothing of this call was acknowledged."""


class PublishQueueFull(TidewireError):
    """``publish_soon`` got ahead of the event loop. Attribute: ``limit`` (int, messages)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"{limit} messages wait for the event loop already: slow the producer down, or await live.publish"
        )


class TooManyRuns(TidewireError):
    """The cap of runs at once is reached. Attribute: ``limit`` (int)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{limit} runs go on already: try again when one has ended, or raise Limits(runs_max=...)")


class RunIdTaken(TidewireError):
    """A run id names one run. Attributes: ``run_id`` (str), ``topic`` (str, of the run that has the id)."""

    def __init__(self, run_id: str, topic: str, asked: str) -> None:
        self.run_id = run_id
        self.topic = topic
        super().__init__(
            f"the run id {run_id!a} is that of a run for {topic!a}, and this one is for {asked!a}: "
            "give each run an id of its own"
        )


class RunCancelled(TidewireError):
    """The run did not get to its end. Attributes: ``topic`` (str), ``why`` (str)."""

    def __init__(self, topic: str, why: str) -> None:
        self.topic = topic
        self.why = why
        super().__init__(f"the stream of {topic!a} is not complete: {why}")


class DrainTimeout(TidewireError):
    """Readers did not catch up. Attributes: ``topic`` (str), ``behind`` (int, subscriptions)."""

    def __init__(self, topic: str, behind: int, timeout_s: float) -> None:
        self.topic = topic
        self.behind = behind
        super().__init__(f"{behind} subscriptions of {topic!a} did not catch up within {timeout_s:g} s")


class AddressInUse(TidewireError):
    """The port is taken. Attributes: ``host`` (str), ``port`` (int)."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"port {port} on {host} is in use by another program: choose another, or port 0 for a free one"
        )


class BadAddress(TidewireError):
    """This machine cannot listen there. Attributes: ``host`` (str), ``why`` (str)."""

    def __init__(self, host: str, why: str) -> None:
        self.host = host
        self.why = why
        super().__init__(f"cannot listen on {host!a}: {why}; use 127.0.0.1, or 0.0.0.0 for every address")


class SeveralProcesses(TidewireError):
    """One memory broker per process means that most subscribers would miss most messages. Attribute: ``why``."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"more than one process ({why}) with the memory broker: a message would reach only the subscribers of one "
            "process. Keep the messages in a file, Live('sqlite:///live.db'), or run one process (workers=1); if that "
            "is what you want, say Live(isolated=True) and run(..., isolated=True) or --isolated"
        )


class NotOffered(TidewireError):
    """The server below does not offer this to applications. Attribute: ``what`` (str)."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"this server offers applications no {what}: start it with tidewire.run, or uvicorn with "
            "--ws tidewire.wire:Protocol"
        )


_MEANINGS: Final = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received [internal]",
    1006: "abnormal closure [internal]",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS failure [internal]",
}
"""The names of the close codes in the IANA registry, as ``websockets`` prints them."""
_OK_CODES: Final = frozenset({1000, 1001, 1005})


@dataclass(frozen=True, slots=True)
class Close:
    """A close frame (RFC 6455 5.5.1): ``code`` and ``reason``, which may be empty. 1005: it carried no code."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        meaning = _MEANINGS.get(self.code)
        if meaning is None:
            meaning = "registered" if 3000 <= self.code < 4000 else "private use" if self.code >= 4000 else "unknown"
        return f"{self.code} ({meaning})" + (f" {self.reason}" if self.reason else "")


class ConnectionClosed(TidewireError):
    """The connection has ended: nothing more comes, nothing more can be sent.

    Attributes: ``rcvd`` and ``sent``, the close frames (``Close`` or None); ``received_first`` (bool or None: only
    one of them there); ``code`` (int, 1006 when no close frame came) and ``reason`` (str).
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, received_first: bool | None = None) -> None:
        self.rcvd = rcvd
        self.sent = sent
        self.received_first = received_first if rcvd is not None and sent is not None else None
        # without a frame from the peer, what we said is why it ended
        known = rcvd if rcvd is not None else sent
        self.code = 1006 if known is None else known.code
        self.reason = "" if known is None else known.reason
        super().__init__(self._tell())

    def _tell(self) -> str:
        if self.rcvd is None:
            return (
                "no close frame received or sent" if self.sent is None else f"sent {self.sent}; no close frame received"
            )
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.received_first:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed):
    """It ended as it should: 1000, 1001, or a close frame without a code, both ways."""


class ConnectionClosedError(ConnectionClosed):
    """It ended with another code, or the line was cut."""


def closed_error(rcvd: Close | None, sent: Close | None, received_first: bool | None = None) -> ConnectionClosed:
    """The error of the right class for these close frames."""
    is_ok = rcvd is not None and rcvd.code in _OK_CODES and (sent is None or sent.code in _OK_CODES)
    return (ConnectionClosedOK if is_ok else ConnectionClosedError)(rcvd, sent, received_first)


def repeat(closed: ConnectionClosed) -> ConnectionClosed:
    """The same again, for whoever asks next: an exception that is raised twice collects tracebacks."""
    return type(closed)(closed.rcvd, closed.sent, closed.received_first)


class ClientError(TidewireError):
    """What ``tidewire.connect``, ``tidewire.subscribe`` and ``tidewire.publish`` raise."""
