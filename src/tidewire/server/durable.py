"""What every HTTP answer about a topic shares, in the words of Durable Streams (PROTOCOL.md 5, 12.7)."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response
from starlette.responses import JSONResponse

from tidewire.brokers.base import History
from tidewire.errors import (
    AppendConflict,
    BadPayload,
    ProducerFenced,
    ProducerGap,
    TooLarge,
    TooManyTopics,
    TopicFinished,
    UnknownStream,
)
from tidewire.hub.policy import Log
from tidewire.protocol import durable
from tidewire.protocol.message import Kind, Stream
from tidewire.protocol.position import NOW
from tidewire.server.gate import Declaration, Refusal
from tidewire.server.origin import cors_headers
from tidewire.server.site import Site

NO_STREAM = "there is no such stream: it was not created, or it is deleted or expired"

# Clients choose the content type of their streams: a browser that is led to one must run nothing of it.
_SAFE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; sandbox",
}


def headers_of(site: Site, request: Request) -> dict[str, str]:
    """What every answer carries: CORS, and what keeps browsers from reading more into it than is there."""
    return dict(cors_headers(request.headers.get("origin"), site.origins)) | _SAFE


def refuse(refusal: Refusal, headers: Mapping[str, str]) -> Response:
    """A refusal as JSON: ``{"detail": ...}``."""
    all_headers = {**headers, "cache-control": "no-store", **refusal.headers}
    return JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers=all_headers)


def explain(error: Exception) -> Refusal:
    """What the caller is told of an error while writing (5.2, 5.2.1)."""
    if isinstance(error, TooLarge):
        return Refusal(413, str(error))
    if isinstance(error, BadPayload):
        return Refusal(400, str(error))
    if isinstance(error, UnknownStream):
        return Refusal(404, str(error))
    if isinstance(error, TopicFinished):
        headers = {"stream-closed": "true"}
        if error.position is not None:
            headers["stream-next-offset"] = error.position
        return Refusal(409, str(error), headers)
    if isinstance(error, AppendConflict):
        return _explain_conflict(error)
    if isinstance(error, TooManyTopics):
        return Refusal(503, str(error))
    if isinstance(error, TimeoutError):
        return Refusal(408, "the body did not arrive in time: send it faster, or in smaller messages")
    return Refusal(500, str(error))


def _explain_conflict(error: AppendConflict) -> Refusal:
    if isinstance(error, ProducerFenced):
        return Refusal(403, str(error), {"producer-epoch": str(error.epoch)})
    if isinstance(error, ProducerGap):
        if error.is_new_epoch:
            return Refusal(400, str(error))
        numbers = {"producer-expected-seq": str(error.expected), "producer-received-seq": str(error.received)}
        return Refusal(409, str(error), numbers)
    return Refusal(409, str(error))


def describe(stream: Stream | None) -> dict[str, str]:
    """The headers that say what a stream was created as (5.5)."""
    if stream is None:
        return {}
    headers = {"content-type": stream.content_type}
    if stream.ttl_s is not None:
        headers["stream-ttl"] = str(stream.ttl_s)
    if stream.expires_ms is not None:
        headers["stream-expires-at"] = durable.format_expiry(stream.expires_ms)
    return headers


def kind_for(declaration: Declaration, stream: Stream | None) -> Kind:
    """What a live reader gets: the stream's kind, or what the topic promises, or else JSON, which holds everything."""
    if stream is not None:
        return durable.kind_of(stream.content_type)
    return declaration.payload or Kind.JSON


def is_there(declaration: Declaration, history: History | None) -> bool:
    """Whether a reader finds something: streams have to be created, other topics are there by declaration."""
    return not declaration.streams or (history is not None and history.exists)


async def check_there(site: Site, topic: str, declaration: Declaration) -> Refusal | None:
    """404 where ``topic`` is a stream that nobody has created; asked after the topic function has admitted."""
    if declaration.streams and not is_there(declaration, await site.hub.read(topic, NOW, 0)):
        return Refusal(404, NO_STREAM)
    return None


def one_offset(request: Request) -> Refusal | None:
    """Refuse an offset that is empty, or given twice (5.6)."""
    offsets = request.query_params.getlist("offset")
    if len(offsets) > 1 or offsets == [""]:
        return Refusal(400, "give one offset: the Stream-Next-Offset of an earlier answer, -1 or now")
    return None


def must_be_log(declaration: Declaration) -> Refusal | None:
    """Refuse what only a ``Log`` can do: other topics keep no order of messages to go through."""
    if isinstance(declaration.policy, Log):
        return None
    return Refusal(400, "this topic keeps no log: follow it with an EventSource, or as a WebSocket")


def bare(status: int, headers: Mapping[str, str], body: bytes = b"") -> Response:
    """An answer whose headers are these: Starlette would add a charset to the content type."""
    response = Response(body, status_code=status)
    for name, value in headers.items():
        response.headers[name] = value
    return response
