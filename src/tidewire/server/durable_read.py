"""Reading a topic that does not wait: what is kept after an offset, and what is known of a stream.

PROTOCOL.md 5.5 (metadata), 5.6 (catch-up), 8 (offsets), 10.1 (caching). The same for streams of clients and for topics
that are there by declaration; those have no content type of their own, and their messages say what they are.
"""

from __future__ import annotations

from fastapi import Request, Response

from tidewire.brokers.base import History
from tidewire.hub.policy import Log
from tidewire.protocol import durable, plain
from tidewire.protocol.message import Message
from tidewire.protocol.position import NOW, START, Position, Since
from tidewire.server.durable import NO_STREAM, bare, describe, is_there, one_offset, refuse
from tidewire.server.gate import Declaration, Operation, Refusal
from tidewire.server.site import Site, parse_since_of

# Bytes that cannot change may be kept by the caller's own cache (10.1); what may grow is asked for again.
_SETTLED = "private, max-age=60, stale-while-revalidate=300"
_GROWING = "private, no-cache"


async def read_topic(site: Site, request: Request, headers: dict[str, str]) -> Response:
    """What is kept after ``?offset=`` (all of it without), then the response ends; HEAD tells about a stream."""
    found = site.find(request)
    if isinstance(found, Refusal):
        return refuse(found, headers)
    topic, declaration = found
    since = one_offset(request) or parse_since_of(request)
    if isinstance(since, Refusal):
        return refuse(since, headers)
    if "offset" not in request.query_params and since is NOW:
        since = START
    asked_since = str(since) if isinstance(since, Position) else None
    admission = await site.gate.ask(declaration, Operation("read", topic, asked_since), request)
    if isinstance(admission, Refusal):
        return refuse(admission, headers)
    if request.method == "HEAD" and declaration.streams:
        return _tell(declaration, await site.hub.read(topic, NOW, 0), headers)
    history = await read_pages(site, topic, since)
    return answer(request, declaration, history, since, headers)


def _tell(declaration: Declaration, history: History | None, headers: dict[str, str]) -> Response:
    """What is known of a stream; asking does not make it live longer."""
    if history is None or not is_there(declaration, history):
        return refuse(Refusal(404, NO_STREAM), headers)
    headers |= {"cache-control": "no-store", "stream-next-offset": str(history.top), **describe(history.stream)}
    if history.end is not None:
        headers["stream-closed"] = "true"
    return bare(200, headers)


async def read_pages(site: Site, topic: str, since: Since) -> History | None:
    """Pages of history joined, until one answer holds ``Limits.read_bytes_max``: more by one message at most."""
    history = await site.hub.read(topic, since, site.limits.page_messages_max)
    if history is None or not history.complete:
        return history
    limit = site.limits.read_bytes_max
    messages = list[Message]()
    size = _take(messages, history.messages, 0, limit)
    page = history
    while size is not None and messages and messages[-1].offset < page.top.offset:
        after = Position(page.top.epoch, messages[-1].offset)
        more = await site.hub.read(topic, after, site.limits.page_messages_max)
        if more is None or not more.complete or not more.messages:
            break
        size = _take(messages, more.messages, size, limit)
        page = more
    return History(messages, history.start, page.top, True, page.end, page.stream)


def _take(messages: list[Message], page: list[Message], size: int, limit: int) -> int | None:
    """Add of ``page`` what there is room for; returns the new size, or None when there is no more."""
    for message in page:
        if size >= limit:
            return None
        messages.append(message)
        size += len(message.payload)
    return size


def answer(
    request: Request, declaration: Declaration, history: History | None, since: Since, headers: dict[str, str]
) -> Response:
    """200 with what is kept, 304, 404 for a stream that is not there, 410 for an offset that is not kept any more."""
    exact = declaration.streams or "offset" in request.query_params
    if not is_there(declaration, history):
        return refuse(Refusal(404, NO_STREAM), headers)
    if history is None:
        media_type, body = plain.join_payloads([], declaration.payload, exact=exact)
        headers |= {"stream-next-offset": "-1", "stream-up-to-date": "true", "cache-control": "no-store"}
        return bare(200, {**headers, "content-type": media_type}, body)
    if not history.complete:
        return not_kept(history, headers)
    headers |= progress(history)
    headers["cache-control"] = "no-store"
    if since is not NOW:
        headers["etag"] = _etag(history, exact)
        if exact:
            headers["cache-control"] = _SETTLED if _is_settled(declaration, history, since) else _GROWING
        headers["vary"] = ", ".join(filter(None, (headers.get("vary"), "Accept, Authorization, Cookie")))
        if durable.matches(headers["etag"], request.headers.get("if-none-match")):
            return bare(304, headers)
    media_type, body = body_of(declaration, history, exact=exact)
    return bare(200, {**headers, "content-type": media_type}, body)


def not_kept(history: History, headers: dict[str, str]) -> Response:
    """410: something after the offset is lost; where to go on, and that something is missing, is told (5.6)."""
    headers["stream-next-offset"] = str(history.start)
    sentence = f"what came after this offset is not kept any more: go on from {history.start}"
    return refuse(Refusal(410, sentence), headers)


def _is_settled(declaration: Declaration, history: History, since: Since) -> bool:
    """Whether the same question has the same answer as long as it is kept: more follows, or nothing ever will."""
    if not isinstance(declaration.policy, Log) or not isinstance(since, Position):
        return False
    return following(history) < history.top or history.end is not None


def _etag(history: History, exact: bool) -> str:
    """Which bytes these are, and whether the end has been seen (10.1)."""
    end = ":c" if history.end is not None and following(history) == history.top else ""
    form = "" if exact else ":l"
    return f'"{history.top.epoch}:{history.start.offset}:{following(history).offset}{form}{end}"'


def following(history: History) -> Position:
    """Where the next read goes on."""
    last = history.messages[-1].offset if history.messages else history.top.offset
    return Position(history.top.epoch, last)


def progress(history: History) -> dict[str, str]:
    """How far a read has come: where to go on, whether that is all, and whether it is the end (5.6)."""
    at = following(history)
    headers = {"stream-next-offset": str(at)}
    if at >= history.top:
        headers["stream-up-to-date"] = "true"
        if history.end is not None:
            headers["stream-closed"] = "true"
    return headers


def body_of(declaration: Declaration, history: History, *, exact: bool) -> tuple[str, bytes]:
    """Content type and bytes: those of the stream, or of messages that each say what they are."""
    if history.stream is not None:
        content_type = history.stream.content_type
        return content_type, durable.join(history.messages, durable.kind_of(content_type))
    return plain.join_payloads(history.messages, declaration.payload, exact=exact)
