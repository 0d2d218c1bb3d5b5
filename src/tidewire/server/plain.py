"""A topic over plain HTTP: which kind of reading a GET is, the page a browser sees, and preflights.

``durable_read`` reads what is kept, ``durable_live`` waits for what comes, ``durable_write`` publishes: all three in
the words of Durable Streams. An ``EventSource`` without parameters is served by ``streams``.
"""

from __future__ import annotations

import html
from importlib import resources

from fastapi import Request, Response
from starlette.responses import JSONResponse

from tidewire.protocol import plain
from tidewire.server.durable import headers_of, refuse
from tidewire.server.durable_live import LIVE
from tidewire.server.durable_read import read_topic
from tidewire.server.durable_write import delete_topic, post_topic, put_topic
from tidewire.server.gate import Refusal
from tidewire.server.origin import parse_origin, preflight_headers
from tidewire.server.site import Site
from tidewire.server.streams import serve_events

__all__ = [
    "delete_topic",
    "front_page",
    "get_asset",
    "get_topic",
    "post_topic",
    "preflight",
    "put_topic",
    "refuse",
]

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {"topic.js": "text/javascript; charset=utf-8", "topic.css": "text/css; charset=utf-8"}


# GET


async def get_topic(site: Site, request: Request) -> Response:
    """By ``?live=`` and ``Accept``: a stream of events, a page, or what is kept."""
    headers = headers_of(site, request)
    accept = request.headers.get("accept", "")
    live = request.query_params.get("live")
    if request.method == "HEAD":
        return await read_topic(site, request, headers)
    if live in LIVE:
        return await LIVE[live](site, request, headers)
    if plain.EVENT_STREAM in accept:
        followed = await serve_events(site, request, headers)
        return refuse(followed, headers) if isinstance(followed, Refusal) else followed
    if "text/html" in accept and not request.query_params.keys() & {"offset", "since", "live"}:
        return _page(site, request, headers)
    if live is not None:
        sentence = "live=long-poll and live=sse are offered, and Accept: text/event-stream, or a WebSocket, without it"
        return refuse(Refusal(400, sentence), headers)
    return await read_topic(site, request, headers)


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
