"""The URLs of one ``Live``, all of them FastAPI routes, so that whatever an application puts on
``include_router`` holds for every one (CONTRACTS 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket
from starlette.responses import JSONResponse

from tidewire.server import plain
from tidewire.server.many import Many
from tidewire.server.session.route import serve_session
from tidewire.server.site import Site
from tidewire.server.streams import serve_websocket
from tidewire.server.tickets import issue_ticket

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]


def make_router(site: Site, lifespan: Lifespan) -> APIRouter:
    """``/-/...`` first, then ``/{topic}``, which takes everything else."""
    router = APIRouter(lifespan=lifespan)
    many = Many(site)

    async def health() -> Response:
        if site.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def asset(name: str) -> Response:
        return plain.get_asset(name)

    async def own_urls(request: Request) -> Response:
        return JSONResponse({"detail": "no such URL of Tidewire's"}, status_code=404)

    async def get_topic(request: Request) -> Response:
        return await plain.get_topic(site, request)

    async def post_topic(request: Request) -> Response:
        return await plain.post_topic(site, request)

    async def put_topic(request: Request) -> Response:
        return await plain.put_topic(site, request)

    async def delete_topic(request: Request) -> Response:
        return await plain.delete_topic(site, request)

    async def preflight(request: Request) -> Response:
        return plain.preflight(site, request)

    async def follow_topic(websocket: WebSocket) -> None:
        await serve_websocket(site, websocket)

    def add(path: str, endpoint: Callable[..., Any], *methods: str) -> None:
        router.add_api_route(path, endpoint, methods=list(methods), include_in_schema=False, response_model=None)

    async def session(websocket: WebSocket) -> None:
        await serve_session(site, websocket)

    async def ticket(request: Request) -> Response:
        return await issue_ticket(site, request)

    add("/-/health", health, "GET")
    add("/-/ticket", ticket, "POST")
    add("/-/ticket", preflight, "OPTIONS")
    add("/-/client/{name}", asset, "GET")
    add("/-/stream", many.get, "GET")
    add("/-/{rest:path}", own_urls, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    add("/{topic:path}", get_topic, "GET", "HEAD")
    add("/{topic:path}", post_topic, "POST")
    add("/{topic:path}", put_topic, "PUT")
    add("/{topic:path}", delete_topic, "DELETE")
    add("/{topic:path}", preflight, "OPTIONS")
    router.add_api_websocket_route("/-/session", session)
    router.add_api_websocket_route("/-/stream", many.serve)
    router.add_api_websocket_route("/{topic:path}", follow_topic, name=TOPIC_ROUTE)
    return router


TOPIC_ROUTE = "tidewire-topic"
"""The name of the WebSocket route, by which ``tidewire.testing.Probe`` finds the prefix."""
