"""What a client may look at: who is there, and what is kept."""

from __future__ import annotations

from tidewire.hub.policy import Latest, Log
from tidewire.protocol import codes, packets
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.packets import Packet
from tidewire.protocol.position import START, Position, Since
from tidewire.server.inner import Operation
from tidewire.server.session.asking import ask, find
from tidewire.server.session.reader import client_info, publication
from tidewire.server.session.session import Refused, Session


async def presence(session: Session, request: packets.PresenceRequest, command_id: int) -> packets.PresenceResult:
    """Who is on a topic."""
    await _may_see_members(session, request.channel, request)
    members = session.site.presence.members(request.channel)
    most = session.site.limits.presence_members_max
    if len(members) > most:
        raise Refused(codes.LIMIT_EXCEEDED, f"more than {most} are here: ask for the numbers (presence stats)")
    return packets.PresenceResult(presence={member.client: client_info(member) for member in members})


async def presence_stats(
    session: Session, request: packets.PresenceStatsRequest, command_id: int
) -> packets.PresenceStatsResult:
    """How many are on a topic."""
    await _may_see_members(session, request.channel, request)
    clients, users = session.site.presence.count(request.channel)
    return packets.PresenceStatsResult(num_clients=clients, num_users=users)


async def _may_see_members(session: Session, topic: str, request: Packet) -> None:
    declaration = find(session, topic, request)
    if not declaration.presence:
        raise Refused(codes.NOT_AVAILABLE, "this topic has no presence: declare it with presence=True")
    await ask(session, declaration, Operation("presence", topic))


async def history(session: Session, request: packets.HistoryRequest, command_id: int) -> packets.HistoryResult:
    """What is kept of a topic: after a position, or before one."""
    declaration = find(session, request.channel, request)
    if not isinstance(declaration.policy, Log | Latest):
        raise Refused(codes.NOT_AVAILABLE, "nothing is kept of this topic")
    if session.framing.codec.is_text and declaration.payload is Kind.BYTES:
        raise Refused(codes.NOT_AVAILABLE, "this topic carries bytes: connect with Protobuf")
    await ask(session, declaration, Operation("read", request.channel))
    most = session.site.limits.history_messages_max
    limit = most if request.limit < 0 else min(request.limit, most)
    found = await (_read_back if request.reverse else _read_on)(session, request, limit)
    if found is None:
        return packets.HistoryResult()
    messages, top = found
    messages = within(messages, session.site.limits.message_bytes_max)
    codec = session.framing.codec
    values = [publication(message, codec) for message in messages]
    return packets.HistoryResult(publications=values, epoch=top.epoch, offset=top.offset)


def within(messages: list[Message], bytes_max: int) -> list[Message]:
    """As many of the first messages as one frame may hold, and one at least; who wants more asks on."""
    size = 0
    for index, message in enumerate(messages):
        size += len(message.payload)
        if size > bytes_max and index:
            return messages[:index]
    return messages


async def _read_on(
    session: Session, request: packets.HistoryRequest, limit: int
) -> tuple[list[Message], Position] | None:
    since: Since = START
    if request.since is not None and request.since.epoch:
        since = Position(request.since.epoch, request.since.offset)
    elif request.since is not None:
        noted = await session.site.hub.note(request.channel)
        since = START if noted is None else Position(noted.epoch, request.since.offset)
    found = await session.site.hub.read(request.channel, since, limit)
    if found is None:
        return None
    if not found.complete and isinstance(since, Position) and since.epoch != found.top.epoch:
        raise Refused(codes.UNRECOVERABLE)
    return found.messages[:limit], found.top


async def _read_back(
    session: Session, request: packets.HistoryRequest, limit: int
) -> tuple[list[Message], Position] | None:
    top = await session.site.hub.note(request.channel)
    if top is None:
        return None
    before = top.offset + 1
    if request.since is not None:
        if request.since.epoch and request.since.epoch != top.epoch:
            raise Refused(codes.UNRECOVERABLE)
        before = min(before, request.since.offset)
    if isinstance(session.site.gate.find(request.channel).policy, Latest):
        # offsets of keyed values are not dense: look at all of them
        begin = Position(top.epoch, 0)
        many = session.site.gate.find(request.channel).policy.retention.keep
    else:
        begin, many = Position(top.epoch, max(0, before - 1 - limit)), limit
    found = await session.site.hub.read(request.channel, begin, many)
    if found is None:
        return None
    messages = [message for message in found.messages if message.offset < before]
    return messages[::-1][:limit], found.top
