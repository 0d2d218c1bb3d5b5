"""Topics declared as streams of their clients, and the URLs that they have beside those of every topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket

from tests.server.driver import Scenario
from tidewire import Live, Log
from tidewire.hub.policy import Policy
from tidewire.protocol.message import Kind
from tidewire.protocol.topics import Template
from tidewire.server import plain
from tidewire.server.gate import Declaration
from tidewire.server.many import Many
from tidewire.testing.lifespan import Lifespan


def declare_stream(
    live: Live,
    pattern: str,
    function: Callable[..., Any] | None = None,
    *,
    policy: Policy | None = None,
    payload: Kind | None = None,
    publish: bool | Callable[..., Any] = True,
) -> None:
    """What ``@live.topic(..., streams=True)`` declares."""

    async def anybody() -> None: ...

    template = Template(pattern)
    live._gate.declare(Declaration(template, policy or Log(), function or anybody, payload, publish, streams=True))


def add_routes(live: Live) -> None:
    """PUT and DELETE of a topic."""

    async def put_topic(request: Request) -> Response:
        return await plain.put_topic(live._site, request)

    async def delete_topic(request: Request) -> Response:
        return await plain.delete_topic(live._site, request)

    for endpoint, method in ((put_topic, "PUT"), (delete_topic, "DELETE")):
        live.router.add_api_route("/{topic:path}", endpoint, methods=[method], response_model=None)
    add_many(live)


def add_many(live: Live) -> None:
    """``/-/stream``, before what answers for everything below ``/-/``."""
    streams = Many(live._site)

    async def get(request: Request) -> Response:
        return await streams.get(request)

    async def serve(websocket: WebSocket) -> None:
        await streams.serve(websocket)

    live.router.add_api_route("/-/stream", get, methods=["GET"], response_model=None)
    live.router.add_api_websocket_route("/-/stream", serve)
    *others, first, second = live.router.routes
    live.router.routes[:] = [first, second, *others]


def play_streams(declare: Callable[[Live], None], scenario: Scenario, **options: Any) -> None:
    """Run ``scenario`` against an application with these topics, its lifespan around it."""

    async def run() -> None:
        live = Live(**options)
        add_routes(live)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        async with Lifespan(app):
            await scenario(app, live)

    asyncio.run(run())
