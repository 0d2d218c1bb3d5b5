"""``accept``: a raw connection inside of a FastAPI or Starlette route (CONTRACTS 9)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketState

from tidewire.limits import RAW_MESSAGE_BYTES_MAX
from tidewire.protocol.codes import DENIED, shorten_reason
from tidewire.server.body import Body
from tidewire.server.origin import OriginRule
from tidewire.wire.connection import Connection
from tidewire.wire.raw import RawSocket, take_socket

logger = logging.getLogger("tidewire")


@asynccontextmanager
async def accept(
    websocket: WebSocket,
    *,
    subprotocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    origins: Sequence[str] = (),
    max_size: int = RAW_MESSAGE_BYTES_MAX,
) -> AsyncIterator[Connection]:
    """Accept ``websocket`` and use it as a ``Connection`` until the block ends.

    ::

        @app.websocket("/echo")
        async def echo(websocket: WebSocket) -> None:
            async with accept(websocket) as connection:
                async for message in connection:
                    await connection.send(message)

    One that was accepted already is fine. ``subprotocol`` and ``headers`` go into the handshake's answer. ``origins``:
    pages of other sites that may connect, as browsers send them, "*" for all; a page of this site always may, and so
    may programs, which send no Origin. Others are refused with 403 (a ``WebSocketException``, which the framework
    handles), and the log says which setting would let them in.
    ``max_size``: bytes that an iterable given to ``send`` may have (what comes is limited by the server, see ``run``).

    When the client leaves, a block that receives gets what was queued, then its loop ends and ``recv`` and ``send``
    raise ``ConnectionClosed``; a block that has never received is cancelled at its next await, and the route goes on
    after it. Leaving the block closes with 1000; an error in it closes with 1011 and is raised.
    """
    _check_origin(websocket, OriginRule(tuple(origins)))
    if websocket.application_state is WebSocketState.CONNECTING:
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        await websocket.accept(subprotocol=subprotocol, headers=pairs)
    socket = take_socket(websocket.scope, websocket.receive, websocket.send, subprotocol=subprotocol, max_size=max_size)
    if isinstance(socket, RawSocket):
        # the framework's object has nothing to say about it any more
        websocket.application_state = websocket.client_state = WebSocketState.DISCONNECTED
    async with Body(socket):
        yield Connection(socket, ends_quietly=True)


def _check_origin(websocket: WebSocket, rule: OriginRule) -> None:
    """Browsers let every page open a WebSocket to every server, cookies included (CONTRACTS 11)."""
    origin, server = websocket.headers.get("origin"), websocket.scope.get("server")
    if not rule.permits(origin, websocket.headers.get("host"), server[0] if server else None):
        sentence = rule.explain(origin or "", "accept(websocket, origins=")
        logger.warning("refused a WebSocket: %s", sentence)
        raise WebSocketException(DENIED.code, shorten_reason(sentence))
