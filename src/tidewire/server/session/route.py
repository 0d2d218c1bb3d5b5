"""The way in: a WebSocket at ``/-/session``, on our own wire or on any other server."""

from __future__ import annotations

import asyncio

from fastapi import WebSocket

from tidewire.protocol import codes
from tidewire.protocol.codecs import choose_codec
from tidewire.server.connection import TopicConnection
from tidewire.server.direct import SocketConnection
from tidewire.server.inbound import guard
from tidewire.server.inner import Refusal, keep_handshake
from tidewire.server.session.reader import framing_of
from tidewire.server.session.session import Session
from tidewire.server.session.table import execute
from tidewire.server.site import Site, address_of
from tidewire.server.streams import deny, hand_over_of
from tidewire.wire.asgi import WebSocketLink
from tidewire.wire.open import OpenSocket


async def serve_session(site: Site, websocket: WebSocket) -> None:
    """Origin, room and the credentials of the handshake first; then the session begins with its connect command."""
    refusal = site.check_origin(websocket) or site.check_room(websocket)
    if refusal is not None:
        await deny(websocket, refusal)
        return
    identity = await site.identify(websocket)
    if isinstance(identity, Refusal):
        await deny(websocket, identity)
        return
    query = dict(websocket.query_params)
    codec, subprotocol = choose_codec(websocket.scope.get("subprotocols") or (), query)
    try:
        await websocket.accept(subprotocol=subprotocol)
    except (OSError, RuntimeError):
        return
    is_pinged = query.get("cf_ws_frame_ping_pong") != "true"
    hand_over = hand_over_of(site, websocket)
    framing = framing_of(codec, is_raw=hand_over is not None)
    http = keep_handshake(websocket, is_known=True)
    key = query.get("session")
    session = Session(site, http, framing, identity=identity, key=key, is_pinged=is_pinged, execute=execute)
    if hand_over is not None:
        address = address_of(websocket)

        def invite(connection: SocketConnection, socket: OpenSocket) -> Session:
            socket.reader.max_size = site.limits.session_frame_bytes_max
            socket.reader.too_large_code = codes.SESSION_TOO_LARGE.code
            return session.begin(connection, socket)

        hand_over(lambda socket: SocketConnection(socket, site, address, invite))
    else:
        await _follow_on_asgi(site, websocket, session)


class _Gate:
    """Reading that can be paused, where the server reads by itself (``session.Flow``)."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()

    def pause_reading(self) -> None:
        self.is_open.clear()

    def resume_reading(self) -> None:
        self.is_open.set()


async def _follow_on_asgi(site: Site, websocket: WebSocket, session: Session) -> None:
    link = WebSocketLink(websocket.scope, getattr(websocket, "_send", websocket.send))
    connection = TopicConnection(link, site.limits, site.pump)
    flow = _Gate()
    session.begin(connection, flow)

    async def listen() -> None:
        link.listener = asyncio.current_task()
        while connection.verdict is None:
            await flow.is_open.wait()
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                session.left(event.get("code") or 1005)
                connection.peer_gone()
            else:
                text = event.get("text")
                session.take([event["bytes"] if text is None else text])

    address = address_of(websocket)
    site.enter(connection, address)
    listener = asyncio.create_task(guard(listen, connection))
    try:
        await connection.run()
    finally:
        listener.cancel()
        await asyncio.wait([listener])
        session.left(None)
        site.leave(connection, address)
