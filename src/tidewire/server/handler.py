"""Handlers of raw connections as an ASGI application: who may come in, and what becomes of a handler's errors."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, TypeGuard

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from tidewire.errors import ConnectionClosed
from tidewire.limits import CLOSE_IN_A_HURRY_S, RAW_GRACE_S, RAW_MESSAGE_BYTES_MAX
from tidewire.server.body import Body
from tidewire.server.origin import OriginRule, is_loopback, parse_authority
from tidewire.wire.connection import Connection
from tidewire.wire.raw import RawSocket, take_socket
from tidewire.wire.socket import ServerSocket

logger = logging.getLogger("tidewire")

Handler: TypeAlias = Callable[[Connection], Awaitable[object]]
STATE_PREFIX = "tidewire."
"""Under this prefix what wants to say goodbye at a shutdown stands in the lifespan state, for ``server.run``."""


def is_handler(app: object) -> TypeGuard[Handler]:
    """Whether ``app`` is the handler of a raw connection: it has a single required parameter (ASGI has three)."""
    if not callable(app) or inspect.isclass(app):
        return False
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [one for one in parameters if one.default is one.empty and one.kind in positional]
    spread = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return len(required) == 1 and not spread


class Handlers:
    """Handlers by path, as an ASGI application with a lifespan; ``drain`` is for ``server.run``.

    ``handlers``: one for every path, or a mapping of paths. ``origins``: as in ``serve``. ``host``: where it is bound;
    on loopback the Host header is held to loopback too, unless ``origins`` names who may come.
    """

    def __init__(
        self,
        handlers: Handler | Mapping[str, Handler],
        *,
        host: str = "127.0.0.1",
        origins: Sequence[str | None] | None = None,
        subprotocols: Sequence[str] = (),
        max_size: int = RAW_MESSAGE_BYTES_MAX,
    ) -> None:
        self._handlers = dict(handlers) if isinstance(handlers, Mapping) else None
        self._any = None if isinstance(handlers, Mapping) else handlers
        self._rule = OriginRule(tuple(origin for origin in origins or () if origin is not None))
        self._loopback_only = is_loopback(host) and origins is None
        self._subprotocols = tuple(subprotocols)
        self._max_size = max_size
        self._draining = False
        # open connections, to say goodbye to; each handler's task removes its own
        self._sockets: dict[ServerSocket | RawSocket, Connection] = {}

    @property
    def connections(self) -> set[Connection]:
        """The open ones."""
        return set(self._sockets.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._explain(scope)(scope, receive, send)
        elif (refusal := self._refuse(scope)) is not None:
            await _deny(scope, receive, send, refusal)
        else:
            await self._serve(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if "state" in scope:
            scope["state"][f"{STATE_PREFIX}handlers"] = self
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _explain(self, scope: Scope) -> Response:
        """What a browser's address bar or curl gets: this speaks WebSocket."""
        refusal = self._refuse(scope)
        if refusal is not None:
            return refusal
        host = Headers(scope=scope).get("host", "localhost")
        scheme = "wss" if scope.get("scheme") == "https" else "ws"
        url = f"{scheme}://{host}{scope['path']}"
        return PlainTextResponse(
            f"this URL speaks WebSocket only: open it with `tidewire cat {url}`, or new WebSocket({url!r}) in a page\n",
            status_code=426,
            headers={"upgrade": "websocket", "connection": "Upgrade"},
        )

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host"), headers.get("origin")
        if self._loopback_only:
            target = parse_authority(host or "")
            if target is None or not is_loopback(target.host):
                return PlainTextResponse(
                    "this server listens on loopback and answers only to localhost, 127.0.0.1 and [::1]: ask it by one "
                    "of these, or name who may come with serve(..., origins=[...])\n",
                    status_code=421,
                )
        server = scope.get("server")
        if not self._rule.permits(origin, host, server[0] if server else None):
            sentence = self._rule.explain(origin or "", "serve(..., origins=")
            logger.warning("refused a WebSocket: %s", sentence)
            return PlainTextResponse(f"{sentence}\n", status_code=403)
        if self._handlers is not None and scope["path"] not in self._handlers:
            # to whoever writes the program, not to strangers
            known = f": there is {', '.join(sorted(self._handlers))}" if self._loopback_only else ""
            return PlainTextResponse(f"nothing is served at {scope['path']!a}{known}\n", status_code=404)
        if self._draining:
            return PlainTextResponse("this server is stopping: try again later\n", status_code=503)
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        offered = scope.get("subprotocols") or []
        subprotocol = next((mine for mine in self._subprotocols if mine in offered), None)
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        socket = take_socket(scope, receive, send, subprotocol=subprotocol, max_size=self._max_size)
        connection = self._sockets[socket] = Connection(socket)
        handler = self._any if self._handlers is None else self._handlers[scope["path"]]
        assert handler is not None
        try:
            async with Body(socket, grace_s=RAW_GRACE_S):
                await handler(connection)
        except Exception:
            logger.exception("the handler of %s failed; its connection was closed with 1011", socket.shown)
        finally:
            del self._sockets[socket]

    async def drain(self) -> None:
        """Tell every client that the server goes away (1001), for a second at most."""
        self._draining = True
        goodbyes = [asyncio.create_task(socket.close(1001, "")) for socket in self._sockets]
        if goodbyes:
            _, late = await asyncio.wait(goodbyes, timeout=CLOSE_IN_A_HURRY_S)
            for goodbye in late:
                goodbye.cancel()


async def _deny(scope: Scope, receive: Receive, send: Send, refusal: Response) -> None:
    websocket = WebSocket(scope, receive, send)
    try:
        await websocket.receive()
        if "websocket.http.response" in scope.get("extensions", {}):
            await websocket.send_denial_response(refusal)
        else:
            await websocket.close(1008)
    except (OSError, RuntimeError, ConnectionClosed):
        # the caller has gone meanwhile
        return
