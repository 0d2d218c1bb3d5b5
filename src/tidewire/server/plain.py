"""A topic over plain HTTP: GET what is kept, POST to publish, HEAD, and the page a browser sees.

The words are those of Durable Streams where it has them (PROTOCOL.md 5.2, 5.5, 5.6): offsets, next-offset header,
closing. What follows a topic is in ``streams``.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Mapping, Sequence
from importlib import resources

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from tidewire.brokers.base import History
from tidewire.errors import BadPayload, TidewireError, TooLarge, TooManyTopics, TopicFinished
from tidewire.protocol import payload as payloads
from tidewire.protocol import plain
from tidewire.protocol.message import Draft, Kind
from tidewire.protocol.position import NOW, START, Position, Since
from tidewire.server.gate import Declaration, Operation, Refusal
from tidewire.server.origin import cors_headers, parse_origin, preflight_headers
from tidewire.server.publisher import decode
from tidewire.server.site import Site, parse_since_of
from tidewire.server.streams import serve_events

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {"topic.js": "text/javascript; charset=utf-8", "topic.css": "text/css; charset=utf-8"}
IDEMPOTENCY_KEY_MAX = 255


def refuse(refusal: Refusal, headers: Mapping[str, str]) -> Response:
    """A refusal as JSON: ``{"detail": ...}``."""
    return JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers={**headers, **refusal.headers})


def _cors(site: Site, request: Request) -> dict[str, str]:
    return dict(cors_headers(request.headers.get("origin"), site.origins))


# GET


async def get_topic(site: Site, request: Request) -> Response:
    """By ``Accept``: an event stream, a page, or what is kept."""
    headers = _cors(site, request)
    accept = request.headers.get("accept", "")
    if plain.EVENT_STREAM in accept:
        followed = await serve_events(site, request, headers)
        return refuse(followed, headers) if isinstance(followed, Refusal) else followed
    if "text/html" in accept and not request.query_params.keys() & {"offset", "since", "live"}:
        return _page(site, request, headers)
    if "live" in request.query_params:
        return refuse(
            Refusal(400, "live reads are asked for with Accept: text/event-stream, or as a WebSocket"), headers
        )
    return await read_topic(site, request, headers)


async def read_topic(site: Site, request: Request, headers: dict[str, str]) -> Response:
    """What is kept after ``?offset=`` (all of it without), then the response ends. HEAD is the same without a body."""
    found = site.find(request)
    if isinstance(found, Refusal):
        return refuse(found, headers)
    topic, declaration = found
    since = parse_since_of(request)
    if isinstance(since, Refusal):
        return refuse(since, headers)
    if "offset" not in request.query_params and since is NOW:
        since = START
    asked_since = str(since) if isinstance(since, Position) else None
    admission = await site.gate.ask(declaration, Operation("read", topic, asked_since), request)
    if isinstance(admission, Refusal):
        return refuse(admission, headers)
    history = await _read_pages(site, topic, since)
    exact = "offset" in request.query_params
    return _answer_read(request, declaration, history, exact=exact, headers=headers)


async def _read_pages(site: Site, topic: str, since: Since) -> History | None:
    """Pages of history joined, up to what one answer may hold."""
    history = await site.hub.read(topic, since, site.limits.page_messages_max)
    if history is None or not history.complete:
        return history
    messages, size = list(history.messages), sum(len(m.payload) for m in history.messages)
    while messages and messages[-1].offset < history.top.offset and size < site.limits.read_bytes_max:
        after = Position(history.top.epoch, messages[-1].offset)
        more = await site.hub.read(topic, after, site.limits.page_messages_max)
        if more is None or not more.complete or not more.messages:
            break
        messages += more.messages
        size += sum(len(m.payload) for m in more.messages)
        history = more
    return History(messages, history.start, history.top, True, history.end)


def _answer_read(
    request: Request, declaration: Declaration, history: History | None, *, exact: bool, headers: dict[str, str]
) -> Response:
    headers["cache-control"] = "no-store"
    headers["x-content-type-options"] = "nosniff"
    if history is None:
        media_type, body = plain.join_payloads([], declaration.payload, exact=exact)
        headers |= {"stream-next-offset": "-1", "stream-up-to-date": "true"}
        return Response(body, media_type=media_type, headers=headers)
    if not history.complete:
        headers["stream-next-offset"] = str(history.start)
        sentence = f"what came after this offset is not kept any more: go on from {history.start}"
        return refuse(Refusal(410, sentence), headers)
    last = history.messages[-1].offset if history.messages else history.start.offset
    following = Position(history.top.epoch, max(last, history.start.offset))
    up_to_date = following.offset >= history.top.offset or not history.messages
    headers["stream-next-offset"] = str(history.top if up_to_date else following)
    if up_to_date:
        headers["stream-up-to-date"] = "true"
        if history.end is not None:
            headers["stream-closed"] = "true"
    headers["etag"] = f'"{history.top.epoch}:{history.start.offset}:{last}{":c" if history.end else ""}"'
    if headers["etag"] == request.headers.get("if-none-match"):
        return Response(status_code=304, headers=headers)
    media_type, body = plain.join_payloads(history.messages, declaration.payload, exact=exact)
    return Response(body, media_type=media_type, headers=headers)


def _page(site: Site, request: Request, headers: dict[str, str]) -> Response:
    """A small live page of the topic; it shows what its visitor may see, because it asks as the visitor."""
    found = site.find(request)
    if isinstance(found, Refusal):
        return refuse(found, headers)
    up = "../" * found[0].count("/")
    page = _asset("topic.html").replace("{{base}}", f"{up}-/client/").replace("{{topic}}", html.escape(found[0]))
    page_headers = {"content-security-policy": _PAGE_POLICY, "x-content-type-options": "nosniff", "vary": "Accept"}
    return Response(page, media_type="text/html; charset=utf-8", headers={**headers, **page_headers})


def get_asset(name: str) -> Response:
    """A script or style of the topic page."""
    if name not in _ASSETS:
        return JSONResponse({"detail": "no such file here"}, status_code=404)
    headers = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}
    return Response(_asset(name), media_type=_ASSETS[name], headers=headers)


def _asset(name: str) -> str:
    return resources.files("tidewire.server").joinpath("pages", name).read_text(encoding="utf-8")


# POST


async def post_topic(site: Site, request: Request) -> Response:
    """Publish the body: 204 and the position of the last message."""
    headers = _cors(site, request)
    refusal = site.check_origin(request)
    if refusal is not None:
        return refuse(refusal, headers)
    found = site.find(request)
    if isinstance(found, Refusal):
        return refuse(found, headers)
    topic, declaration = found
    if declaration.publish is False:
        sentence = "this topic takes no messages from clients: its application publishes with live.publish"
        return refuse(Refusal(405, sentence, {"allow": "GET, HEAD"}), headers)
    if request.headers.get("stream-closed", "").lower() == "true":
        return refuse(Refusal(405, "only the application ends a topic, with live.finish"), headers)
    try:
        kind, parts = await _read_body(site, request)
        drafts = _draft(site, request, declaration, kind, parts)
        refused = await _ask_publish(site, request, topic, declaration, drafts)
        if refused is not None:
            return refuse(refused, headers)
        return await _publish(site, topic, declaration, drafts, headers)
    except (TidewireError, TimeoutError) as error:
        return refuse(_explain(error), headers)
    except ClientDisconnect:
        # gone in the middle of its body: nothing is published, and nobody reads this answer
        return Response(status_code=400, headers=headers)


def _explain(error: Exception) -> Refusal:
    """What the caller is told of an error while publishing."""
    if isinstance(error, TooLarge):
        return Refusal(413, str(error))
    if isinstance(error, BadPayload):
        return Refusal(400, str(error))
    if isinstance(error, TopicFinished):
        headers = {"stream-closed": "true"}
        if error.position is not None:
            headers["stream-next-offset"] = error.position
        return Refusal(409, str(error), headers)
    if isinstance(error, TooManyTopics):
        return Refusal(503, str(error))
    if isinstance(error, TimeoutError):
        return Refusal(408, "the body did not arrive in time: send it faster, or in smaller messages")
    return Refusal(500, str(error))


async def _read_body(site: Site, request: Request) -> tuple[Kind, list[bytes]]:
    """The body as messages of one kind (CONTRACTS 3), under the size limit and the deadline."""
    limit = site.limits.message_bytes_max
    media_type = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    # a batch may be larger than one message, within reason
    body = await _collect(request, 4 * limit if is_json else limit, site.limits.body_timeout_s)
    if not body:
        raise BadPayload("the body is empty: POST the message")
    if is_json:
        parts = payloads.split_json(body)
        if not parts:
            raise BadPayload("the array is empty: a batch has one message per element")
        if len(parts) > site.limits.batch_messages_max:
            raise TooLarge(len(parts), site.limits.batch_messages_max, "batch (counted in messages)")
        return Kind.JSON, parts
    if media_type.startswith("text/") or media_type == "application/x-www-form-urlencoded":
        return Kind.TEXT, [payloads.check_text(body)]
    return Kind.BYTES, [body]


async def _collect(request: Request, limit: int, timeout_s: float) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(int(declared), limit)
    parts, size = [], 0
    async with asyncio.timeout(timeout_s):
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise TooLarge(size, limit)
            parts.append(part)
    return b"".join(parts)


def _draft(site: Site, request: Request, declaration: Declaration, kind: Kind, parts: Sequence[bytes]) -> list[Draft]:
    key = request.headers.get("idempotency-key")
    if key is not None and (not key or len(key) > IDEMPOTENCY_KEY_MAX):
        raise BadPayload(f"an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_MAX} characters")
    scope = site.caller_scope(request)
    ids = [None if key is None else f"http:{scope}:{key}:{index}" for index in range(len(parts))]
    return [
        site.publisher.draft_bytes(declaration, kind, part, publish_id)
        for part, publish_id in zip(parts, ids, strict=True)
    ]


async def _ask_publish(
    site: Site, request: Request, topic: str, declaration: Declaration, drafts: Sequence[Draft]
) -> Refusal | None:
    """Every message of a batch is asked for before the first is published."""
    for draft in drafts:
        operation = Operation("publish", topic, data=decode(draft.kind, draft.payload))
        admission = await site.gate.ask(declaration, operation, request)
        if isinstance(admission, Refusal):
            return admission
    return None


async def _publish(
    site: Site, topic: str, declaration: Declaration, drafts: Sequence[Draft], headers: dict[str, str]
) -> Response:
    position: Position | None = None
    for draft in drafts:
        published = await site.publisher.publish_draft(topic, declaration, draft)
        position = published.position
    if position is not None:
        headers["stream-next-offset"] = str(position)
    return Response(status_code=204, headers=headers)


# OPTIONS


def preflight(site: Site, request: Request) -> Response:
    """The answer to a browser that asks whether a page of another site may use this topic (Fetch 4.8)."""
    origin = request.headers.get("origin")
    refusal = site.check_origin(request)
    if origin is None or refusal is not None or parse_origin(origin) is None:
        return refuse(refusal or Refusal(400, "a preflight names its Origin"), {})
    return Response(status_code=204, headers=dict(preflight_headers(origin, site.origins)))


def front_page(base_url: str) -> Response:
    """The front page of the open server: what to type."""
    page = _asset("front.html").replace("{{base}}", "-/client/").replace("{{url}}", html.escape(base_url))
    page_headers = {"content-security-policy": _PAGE_POLICY, "x-content-type-options": "nosniff"}
    return Response(page, media_type="text/html; charset=utf-8", headers=page_headers)
