"""The open server of ``tidewire serve``: any topic, an echo, and a front page; for this machine, to try things."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response, WebSocket
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tidewire.app import Live
from tidewire.hub.policy import Log
from tidewire.server.accept import accept
from tidewire.server.origin import is_loopback, parse_authority
from tidewire.server.plain import front_page
from tidewire.server.run import run

_ECHO_HELP = "this URL speaks WebSocket only: open it with `tidewire cat {url}`, or new WebSocket({url!r}) in a browser"


class LoopbackHost:
    """Answers only to the names of this machine, against DNS rebinding (CONTRACTS 11): 421 otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what asks for localhost, 127.0.0.1 or [::1]."""
        if scope["type"] in {"http", "websocket"}:
            target = parse_authority(Headers(scope=scope).get("host", ""))
            if target is None or not is_loopback(target.host):
                await _refuse_host(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _refuse_host(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "this open server answers only to localhost, 127.0.0.1 and [::1]: ask it by one of these names"
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": detail[:120]})
        return
    response = JSONResponse({"detail": detail}, status_code=421)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def make_open_app(host: str = "127.0.0.1", broker: str = "memory://") -> FastAPI:
    """The application. ``host``: where it will be bound; only on loopback is the Host header held to loopback.

    Raises ``BadBrokerURL``.
    """
    live = Live(broker)
    app = FastAPI(openapi_url=None)
    if is_loopback(host):
        app.add_middleware(LoopbackHost)

    @live.topic("{name:path}", policy=Log(), publish=True)
    async def any_topic(name: str) -> None:
        """Everybody may."""

    @app.get("/")
    async def front(request: Request) -> Response:
        return front_page(str(request.base_url).rstrip("/"))

    @app.get("/-/echo")
    async def echo_by_http(request: Request) -> Response:
        url = str(request.url_for("echo").replace(scheme="ws"))
        headers = {"upgrade": "websocket", "connection": "Upgrade"}
        return JSONResponse({"detail": _ECHO_HELP.format(url=url)}, status_code=426, headers=headers)

    @app.websocket("/-/echo", name="echo")
    async def echo(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            async for message in connection:
                await connection.send(message)

    app.include_router(live.router)
    return app


def serve_open(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    broker: str = "memory://",
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Run the open server until it is stopped; arguments as in ``tidewire.run``, and ``Live``'s broker."""
    run(make_open_app(host, broker), host, port, on_listening=on_listening, log_level="warning")
