"""What a client publishes, and what it sends to the application."""

from __future__ import annotations

import msgspec

from tidewire.errors import AppendConflict, BadPayload, TooLarge, TooManyTopics, TopicFinished, UnknownStream
from tidewire.protocol import codes, packets
from tidewire.protocol import payload as payloads
from tidewire.protocol.message import Kind
from tidewire.server.gate import Declaration
from tidewire.server.hooks import MESSAGE
from tidewire.server.inner import Operation
from tidewire.server.publisher import decode
from tidewire.server.session.asking import ask, decode_data, find
from tidewire.server.session.reader import publisher_of
from tidewire.server.session.session import Refused, Session


async def publish(session: Session, request: packets.PublishRequest, command_id: int) -> packets.PublishResult:
    """Publish as the client, if it may."""
    declaration = find(session, request.channel, request)
    if request.type:
        raise Refused(codes.NOT_AVAILABLE, "maps are not offered here")
    if declaration.publish is False:
        raise Refused(codes.PERMISSION_DENIED, "this topic takes no messages from clients")
    site = session.site
    try:
        kind, data = payload_of(session, declaration, bytes(request.data))
        draft = site.publisher.draft_bytes(declaration, kind, data)
        await ask(session, declaration, Operation("publish", request.channel, data=decode(kind, data)))
        draft = msgspec.structs.replace(draft, publisher=publisher_of(session))
        await site.publisher.publish_draft(request.channel, declaration, draft)
    except TooLarge as error:
        raise Refused(codes.LIMIT_EXCEEDED, str(error)) from None
    except (BadPayload, AppendConflict) as error:
        raise Refused(codes.BAD_COMMAND, str(error)) from None
    except UnknownStream as error:
        raise Refused(codes.UNKNOWN_CHANNEL, str(error)) from None
    except TopicFinished as error:
        raise Refused(codes.NOT_AVAILABLE, str(error)) from None
    except TooManyTopics as error:
        raise Refused(codes.LIMIT_EXCEEDED, str(error)) from None
    return packets.PublishResult()


def payload_of(session: Session, declaration: Declaration, data: bytes) -> tuple[Kind, bytes]:
    """What a client publishes. JSON stays as it was written, but for line ends; raises ``BadPayload``.

    In JSON sessions text is a JSON string; in Protobuf ones a topic that promises nothing takes JSON as JSON, and
    everything else as bytes.
    """
    if not data:
        raise BadPayload("there is no data to publish")
    payloads.check_size(data, session.site.limits.message_bytes_max)
    if session.framing.codec.is_text:
        if declaration.payload is Kind.TEXT:
            return Kind.TEXT, _text_of(data)
        return Kind.JSON, _json_of(data)
    if declaration.payload is Kind.TEXT:
        return Kind.TEXT, payloads.check_text(data)
    if declaration.payload is Kind.BYTES:
        return Kind.BYTES, data
    try:
        return Kind.JSON, _json_of(data)
    except BadPayload:
        if declaration.payload is Kind.JSON:
            raise
        return Kind.BYTES, data


def _json_of(data: bytes) -> bytes:
    compact = payloads.check_json(data)
    return compact if b"\n" in data or b"\r" in data else data


def _text_of(data: bytes) -> bytes:
    try:
        return msgspec.json.decode(data, type=str).encode()
    except (msgspec.MsgspecError, UnicodeError):
        raise BadPayload("this topic carries text: publish a JSON string") from None


async def send(session: Session, request: packets.SendRequest, command_id: int) -> None:
    """A message for the application; nobody is answered."""
    if MESSAGE not in session.site.hooks:
        session.end(codes.NOT_OFFERED)
        return
    await session.site.hooks.run(MESSAGE, session.http, session.identity, decode_data(request.data))
