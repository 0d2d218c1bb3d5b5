"""What commands share: which topic, who may, what came along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tidewire.errors import BadTopic, UnknownTopic
from tidewire.protocol import codes
from tidewire.protocol.packets import Packet
from tidewire.protocol.topics import NAME_BYTES_MAX
from tidewire.server.gate import Declaration
from tidewire.server.inner import Admission, Operation, Refusal
from tidewire.server.session.session import Refused, Session

_FAULTS = {
    401: codes.UNAUTHORIZED,
    403: codes.PERMISSION_DENIED,
    404: codes.UNKNOWN_CHANNEL,
    409: codes.LIMIT_EXCEEDED,
    422: codes.BAD_COMMAND,
    429: codes.TOO_MANY_REQUESTS,
}
_SENTENCE_MAX = 300


def refused(refusal: Refusal) -> Refused:
    """What a function of the application said, as the error of a command."""
    fault = _FAULTS.get(refusal.status)
    if fault is None:
        fault = codes.INTERNAL if refusal.status >= 500 else codes.PERMISSION_DENIED
    return Refused(fault, refusal.sentence[:_SENTENCE_MAX])


def find(session: Session, topic: str, request: Packet) -> Declaration:
    """The declaration of a channel; ends the session where there is no name, refuses what cannot be named."""
    if not topic:
        session.end(codes.BAD_REQUEST, f"{type(request).__name__} without a channel")
        raise Refused(codes.BAD_COMMAND)
    if len(topic) > NAME_BYTES_MAX:
        raise Refused(codes.BAD_COMMAND, f"a topic's name has {NAME_BYTES_MAX} characters at most")
    with told_of_names():
        return session.site.gate.find(topic)


@contextmanager
def told_of_names() -> Iterator[None]:
    """Names that no topic has are errors of the protocol."""
    try:
        yield
    except BadTopic as error:
        raise Refused(codes.BAD_COMMAND, str(error)) from None
    except UnknownTopic:
        raise Refused(codes.UNKNOWN_CHANNEL, "no such topic here") from None


async def ask(session: Session, declaration: Declaration, operation: Operation) -> Admission:
    """Whether this session may; raises ``Refused``."""
    return admitted(await session.site.gate.ask(declaration, operation, session.http, session.identity))


def admitted(admission: Admission | Refusal) -> Admission:
    """``admission``, or ``Refused``."""
    if isinstance(admission, Refusal):
        raise refused(admission)
    return admission


def decode_data(data: msgspec.Raw) -> Any:
    """What came with a command, decoded where it is JSON; None: nothing came."""
    raw = bytes(data)
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return raw
