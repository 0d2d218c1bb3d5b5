"""Writing to a topic over HTTP: POST appends and closes, PUT creates, DELETE deletes (PROTOCOL.md 5.1 to 5.4).

POST works on every topic that takes messages; on a ``Log`` its body is one step, whatever is in it, and producers and
``Stream-Seq`` count: both are the stream's, whoever writes (5.2 wants the scope said). PUT, DELETE and closing are for
topics declared with ``streams=True``, and the topic function is asked for each by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from tidewire.brokers.base import Created, Published
from tidewire.errors import BadPayload, TidewireError, TooLarge
from tidewire.hub.policy import Log
from tidewire.limits import Limits
from tidewire.protocol import durable
from tidewire.protocol import payload as payloads
from tidewire.protocol.message import Draft, Kind, Stream, Terms
from tidewire.protocol.position import Position
from tidewire.server.durable import NO_STREAM, bare, describe, explain, headers_of, refuse
from tidewire.server.gate import Declaration, Operation, Refusal
from tidewire.server.publisher import decode
from tidewire.server.site import Site

IDEMPOTENCY_KEY_MAX = 255

_TAKES_NONE = "this topic takes no messages from clients: its application publishes with live.publish"
_NOT_THEIRS = "only the application makes and ends this topic: clients may where it is declared with streams=True"
_NO_FORKS = "streams are not forked here: create a stream of its own, and copy what it is to begin with"
_FORK_HEADERS = ("stream-forked-from", "stream-fork-offset", "stream-fork-sub-offset")


class _RefusedError(Exception):
    """The answer is a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class _Target:
    """What a request writes to, and the headers its answer has in any case."""

    site: Site
    request: Request
    topic: str
    declaration: Declaration
    headers: dict[str, str]

    async def ask(self, name: str, data: object = None) -> None:
        """Ask the topic function."""
        admission = await self.site.gate.ask(self.declaration, Operation(name, self.topic, data=data), self.request)
        if isinstance(admission, Refusal):
            raise _RefusedError(admission)

    async def ask_publish(self, kind: Kind, parts: Sequence[bytes]) -> None:
        """Every message of a batch is asked for before the first is published."""
        for part in parts:
            await self.ask("publish", decode(kind, part))

    def not_allowed(self, sentence: str) -> _RefusedError:
        """405, with the methods that this topic knows (RFC 9110 15.5.6)."""
        methods = ["GET", "HEAD"]
        if self.declaration.publish is not False:
            methods.append("POST")
        if self.declaration.streams:
            methods += ["PUT", "DELETE"]
        return _RefusedError(Refusal(405, sentence, {"allow": ", ".join(methods)}))


async def _serve(site: Site, request: Request, work: Callable[[_Target], Awaitable[Response]]) -> Response:
    """Find the topic, do the work, and answer what goes wrong with a sentence."""
    headers = headers_of(site, request)
    found = site.check_origin(request) or site.find(request)
    if isinstance(found, Refusal):
        return refuse(found, headers)
    topic, declaration = found
    try:
        return await work(_Target(site, request, topic, declaration, headers))
    except _RefusedError as error:
        return refuse(error.refusal, headers)
    except (TidewireError, TimeoutError) as error:
        return refuse(explain(error), headers)
    except ClientDisconnect:
        # gone in the middle of its body: nothing is published, and nobody reads this answer
        return Response(status_code=400, headers=headers)


# POST


async def post_topic(site: Site, request: Request) -> Response:
    """Append the body, and close where ``Stream-Closed`` says so: 204, or 200 to a producer, with the position."""
    return await _serve(site, request, _post)


async def _post(target: _Target) -> Response:
    headers, declaration = target.request.headers, target.declaration
    closes = durable.is_true(headers.get("stream-closed"))
    if declaration.publish is False and not (declaration.streams and closes):
        raise target.not_allowed(_TAKES_NONE)
    if closes and not declaration.streams:
        raise target.not_allowed("only the application ends a topic, with live.finish")
    terms = _terms_of(target, closes)
    content_type = headers.get("content-type")
    kind = _kind_of_body(declaration, content_type)
    body = await _collect(target, kind)
    if not body and closes:
        return await _close(target, terms or Terms())
    if declaration.publish is False:
        raise target.not_allowed(_TAKES_NONE)
    if declaration.streams and content_type is None and body:
        raise BadPayload("say what the body is: an append names the Content-Type of its stream")
    parts = _split(kind, body, target.site.limits)
    if not parts:
        raise BadPayload("the array is empty: a batch has one message per element")
    drafts = _drafts(target, kind, parts, terms)
    await target.ask_publish(kind, parts)
    if closes:
        await target.ask("close")
    return _answer_append(target, await _publish(target, drafts), terms)


def _terms_of(target: _Target, closes: bool) -> Terms | None:
    """What the headers ask for; None: nothing but an append."""
    headers, declaration = target.request.headers, target.declaration
    producer = durable.parse_producer(headers)
    order = durable.parse_order(headers.get("stream-seq"))
    if declaration.streams:
        content_type = headers.get("content-type")
        return Terms(must_exist=True, content_type=content_type, producer=producer, order=order, closes=closes)
    if producer is None and order is None:
        return None
    if not isinstance(declaration.policy, Log):
        raise BadPayload("producers and Stream-Seq count on a Log only: leave these headers out")
    return Terms(producer=producer, order=order)


def _drafts(target: _Target, kind: Kind, parts: Sequence[bytes], terms: Terms | None) -> list[Draft]:
    """The body as one draft where a batch is one step, else as a draft for each message."""
    declaration, publisher = target.declaration, target.site.publisher
    key = target.request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX:
        raise BadPayload(f"an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_MAX} characters")
    name = None if key is None else f"http:{target.site.caller_scope(target.request)}:{key}"
    if isinstance(declaration.policy, Log):
        for part in parts:
            _check_part(target, kind, part)
        return [Draft(parts[0], kind, id=name, more=tuple(parts[1:]), terms=terms)]
    ids = [None if name is None else f"{name}:{index}" for index in range(len(parts))]
    return [
        publisher.draft_bytes(declaration, kind, part, publish_id) for part, publish_id in zip(parts, ids, strict=True)
    ]


def _check_part(target: _Target, kind: Kind, part: bytes) -> None:
    if target.declaration.streams:
        # what fits is the stream's to say, which conflicts where it does not
        payloads.check_size(part, target.site.limits.message_bytes_max)
    else:
        target.site.publisher.draft_bytes(target.declaration, kind, part)


async def _publish(target: _Target, drafts: Sequence[Draft]) -> Published:
    published = Published(None)
    for draft in drafts:
        published = await target.site.publisher.publish_draft(target.topic, target.declaration, draft)
    return published


def _answer_append(target: _Target, published: Published, terms: Terms | None) -> Response:
    headers = dict(target.headers)
    if published.position is not None:
        headers["stream-next-offset"] = str(published.position)
    if published.closed:
        headers["stream-closed"] = "true"
    if terms is None or terms.producer is None:
        return bare(204, headers)
    headers["producer-epoch"] = str(terms.producer.epoch)
    if published.accepted is not None:
        headers["producer-seq"] = str(published.accepted)
    return bare(204 if published.duplicate else 200, headers)


async def _close(target: _Target, terms: Terms) -> Response:
    """End the stream without a message (5.3)."""
    await target.ask("close")
    end = await target.site.hub.finish(target.topic, target.declaration.policy, None, terms)
    headers = {**target.headers, "stream-next-offset": str(Position(end.epoch, end.offset)), "stream-closed": "true"}
    if terms.producer is not None:
        headers |= {"producer-epoch": str(terms.producer.epoch), "producer-seq": str(terms.producer.sequence)}
    return bare(204, headers)


# Bodies


def _kind_of_body(declaration: Declaration, content_type: str | None) -> Kind:
    """What the messages of a body are: for streams as their clients mean it (9), for other topics as people do."""
    content_type = content_type or durable.content_type_of(Kind.BYTES)
    if declaration.streams:
        return durable.kind_of(content_type)
    media_type = durable.essence(content_type)
    if media_type == "application/json" or media_type.endswith("+json"):
        return Kind.JSON
    is_text = media_type.startswith("text/") or media_type == "application/x-www-form-urlencoded"
    return Kind.TEXT if is_text else Kind.BYTES


async def _collect(target: _Target, kind: Kind) -> bytes:
    """The body, under the size limit and the deadline."""
    request, limits = target.request, target.site.limits
    # a batch may be larger than one message, within reason
    limit = 4 * limits.message_bytes_max if kind is Kind.JSON else limits.message_bytes_max
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(int(declared), limit)
    parts, size = [], 0
    async with asyncio.timeout(limits.body_timeout_s):
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise TooLarge(size, limit)
            parts.append(part)
    return b"".join(parts)


def _split(kind: Kind, body: bytes, limits: Limits) -> list[bytes]:
    """The messages of a body; none where it is an empty array."""
    if not body:
        raise BadPayload("the body is empty: POST the message")
    if kind is Kind.TEXT:
        return [payloads.check_text(body)]
    if kind is Kind.BYTES:
        return [body]
    parts = payloads.split_json(body)
    if len(parts) > limits.batch_messages_max:
        raise TooLarge(len(parts), limits.batch_messages_max, "batch (counted in messages)")
    return parts


# PUT


async def put_topic(site: Site, request: Request) -> Response:
    """Create a stream: 201, or 200 where the same one is there already."""
    return await _serve(site, request, _put)


async def _put(target: _Target) -> Response:
    headers, declaration = target.request.headers, target.declaration
    if not declaration.streams:
        raise target.not_allowed(_NOT_THEIRS)
    if any(name in headers for name in _FORK_HEADERS):
        raise _RefusedError(Refusal(501, _NO_FORKS))
    stream = _stream_of(target)
    closed = durable.is_true(headers.get("stream-closed"))
    kind = durable.kind_of(stream.content_type)
    body = await _collect(target, kind)
    parts = _split(kind, body, target.site.limits) if body else []
    if parts and declaration.publish is False:
        raise target.not_allowed(_TAKES_NONE)
    for part in parts:
        _check_part(target, kind, part)
    await target.ask("create")
    await target.ask_publish(kind, parts)
    first = Draft(parts[0], kind, more=tuple(parts[1:])) if parts else None
    created = await target.site.hub.create(target.topic, declaration.policy, stream, first, closed=closed)
    if not created.is_new and not _is_the_same(created, stream, closed):
        raise _RefusedError(Refusal(409, _tell_difference(created)))
    return _answer_create(target, created)


def _stream_of(target: _Target) -> Stream:
    """What the headers want created."""
    headers, declared = target.request.headers, target.declaration.payload
    named = headers.get("content-type")
    content_type = durable.content_type_of(declared or Kind.BYTES)
    if named is not None:
        content_type = durable.check_content_type(named)
    kind = durable.kind_of(content_type)
    if declared is not None and kind is not declared:
        raise BadPayload(f"the topic takes {declared.value}, and a stream of {content_type} is {kind.value}")
    ttl, expiry = headers.get("stream-ttl"), headers.get("stream-expires-at")
    if ttl is not None and expiry is not None:
        raise BadPayload("a stream has a Stream-TTL or a Stream-Expires-At: leave one out")
    expires_ms = None if expiry is None else durable.parse_expiry(expiry)
    if expires_ms is not None and expires_ms <= target.site.hub.clock.wall_ms():
        raise BadPayload("Stream-Expires-At has passed already: name a moment to come")
    return Stream(content_type, None if ttl is None else durable.parse_ttl(ttl), expires_ms)


def _is_the_same(created: Created, wanted: Stream, closed: bool) -> bool:
    there = created.stream
    return (
        there is not None
        and durable.essence(there.content_type) == durable.essence(wanted.content_type)
        and (there.ttl_s, there.expires_ms) == (wanted.ttl_s, wanted.expires_ms)
        and (created.end is not None) is closed
    )


def _tell_difference(created: Created) -> str:
    about = describe(created.stream)
    if created.end is not None:
        about["stream-closed"] = "true"
    facts = ", ".join(f"{name}: {value}" for name, value in about.items()) or "made without a content type"
    return f"another stream is there already ({facts}): delete it first, or choose another name"


def _answer_create(target: _Target, created: Created) -> Response:
    headers = {**target.headers, **describe(created.stream), "stream-next-offset": str(created.position)}
    headers["cache-control"] = "no-store"
    if created.end is not None:
        headers["stream-closed"] = "true"
    if created.is_new:
        headers["location"] = str(target.request.url.replace(query="", fragment=""))
    return bare(201 if created.is_new else 200, headers)


# DELETE


async def delete_topic(site: Site, request: Request) -> Response:
    """Delete a stream and all that is in it: 204."""
    return await _serve(site, request, _delete)


async def _delete(target: _Target) -> Response:
    if not target.declaration.streams:
        raise target.not_allowed(_NOT_THEIRS)
    await target.ask("delete")
    if not await target.site.hub.drop(target.topic):
        raise _RefusedError(Refusal(404, NO_STREAM))
    return bare(204, target.headers)
