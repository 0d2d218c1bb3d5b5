"""What a client asks for beside messages: calls, history, who is there."""

from __future__ import annotations

from typing import Any, Final

from tidewire.client.errors import WrongType
from tidewire.client.session.inbox import Entry, say
from tidewire.client.session.messages import History, Member, Message, PresenceStats
from tidewire.client.session.shell import Shell
from tidewire.client.session.subscription import read_message
from tidewire.client.session.values import Read, read_member
from tidewire.errors import BadPayload
from tidewire.protocol import packets
from tidewire.protocol.position import Position

_LIMIT_MAX: Final = 2**31 - 1


async def call(shell: Shell, request: packets.RPCRequest, read: Read, timeout_s: float) -> Any:
    """The value that a method returns; None where it returns nothing."""
    what = f"the call {request.method!a}"
    result = await shell.ask(request, what, timeout_s=timeout_s)
    data = bytes(result.data) if isinstance(result, packets.RPCResult) else b""
    if not data:
        return None
    try:
        return read(data)
    except BadPayload as error:
        raise WrongType(f"the answer of {what}", str(error), data) from None


async def presence(shell: Shell, topic: str, timeout_s: float) -> list[Member]:
    """Who is there, as the server counts it."""
    request = packets.PresenceRequest(channel=topic)
    result = await shell.ask(request, f"the presence of {topic!a}", timeout_s=timeout_s, is_repeatable=True)
    found = result.presence if isinstance(result, packets.PresenceResult) else {}
    return [read_member(info) for info in found.values()]


async def presence_stats(shell: Shell, topic: str, timeout_s: float) -> PresenceStats:
    """How many are there."""
    request = packets.PresenceStatsRequest(channel=topic)
    result = await shell.ask(request, f"the presence of {topic!a}", timeout_s=timeout_s, is_repeatable=True)
    found = result if isinstance(result, packets.PresenceStatsResult) else packets.PresenceStatsResult()
    return PresenceStats(found.num_clients, found.num_users)


async def history(
    shell: Shell, topic: str, *, limit: int, since: Position | None, reverse: bool, read: Read, timeout_s: float
) -> History[Any]:
    """Up to ``limit`` messages, in as many pages as the server makes of them."""
    messages: list[Message[Any]] = []
    at = since
    while True:
        result = await _page(shell, topic, limit - len(messages), at, reverse=reverse, timeout_s=timeout_s)
        top = Position(result.epoch, result.offset) if result.epoch else None
        for publication in result.publications:
            at = Position(result.epoch, publication.offset)
            entry = Entry(topic, bytes(publication.data), publication.tags, at, None, publication.info)
            messages.append(read_message(entry, read))
        is_complete = not result.publications or len(messages) >= limit
        if is_complete or at is None or top is None or (at.offset <= 1 if reverse else at.offset >= top.offset):
            return History(messages, say(top))


async def _page(
    shell: Shell, topic: str, limit: int, since: Position | None, *, reverse: bool, timeout_s: float
) -> packets.HistoryResult:
    place = None if since is None else packets.StreamPosition(since.offset, since.epoch)
    request = packets.HistoryRequest(channel=topic, limit=min(limit, _LIMIT_MAX), since=place, reverse=reverse)
    result = await shell.ask(request, f"the history of {topic!a}", timeout_s=timeout_s, is_repeatable=True)
    return result if isinstance(result, packets.HistoryResult) else packets.HistoryResult()
