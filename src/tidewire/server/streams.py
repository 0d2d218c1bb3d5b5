"""The two ways to follow a topic: a WebSocket and an event stream. One path for both, up to who speaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import WebSocket
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tidewire.hub.outbox import Batch
from tidewire.hub.policy import Latest, Log
from tidewire.hub.subscription import Reader, Subscription
from tidewire.protocol import codes, plain
from tidewire.protocol.message import Draft, Message
from tidewire.protocol.position import Position, Since
from tidewire.server.connection import Connection, TopicConnection
from tidewire.server.direct import SocketConnection
from tidewire.server.durable import check_there
from tidewire.server.gate import Declaration, Operation, Refusal
from tidewire.server.inbound import TAKES_NONE, Publishing, guard
from tidewire.server.inner import keep_handshake
from tidewire.server.readers import AS_EVENTS, AS_FRAMES, BareReader, EventReader, PositionsReader, Wording
from tidewire.server.site import Site, address_of, parse_rate, parse_since_of
from tidewire.wire.asgi import StreamLink, WebSocketLink, extension_of, means_gone

logger = logging.getLogger("tidewire.server")

_FAST_WAY = (
    "WebSockets go through plain ASGI here; for many times the speed, and readers that can be cut, serve with: "
    "uvicorn app:app --ws tidewire.wire:Protocol, or: tidewire run app:app"
)
# ours if anybody listens to it, else the server's, which somebody does
_LOGGERS = ("tidewire", "uvicorn.error", "hypercorn.error", "_granian")

_HEARTBEAT = Batch((plain.HEARTBEAT,), len(plain.HEARTBEAT), 0)


class Asked:
    """An admitted subscription: which topic, from where, how fast, and the state it begins with."""

    __slots__ = ("declaration", "noted", "rate", "since", "snapshot", "topic")

    def __init__(self, topic: str, declaration: Declaration, since: Since, rate: float | None) -> None:
        self.topic = topic
        self.declaration = declaration
        self.since = since
        self.rate = rate
        # the position before anybody was asked (CONTRACTS 6)
        self.noted: Position | None = None
        # the state that the topic function returned, for Latest topics
        self.snapshot: list[Message] | None = None

    def subscribe(self, site: Site, reader: Reader) -> Coroutine[Any, Any, Subscription]:
        """Bring ``reader`` to live."""
        return site.hub.subscribe(
            self.topic,
            self.declaration.policy,
            reader,
            since=self.since,
            noted=self.noted,
            snapshot=self.snapshot,
            rate=self.rate,
        )


async def ask(site: Site, http: HTTPConnection) -> Asked | Refusal:
    """Everything that can refuse a reader, in order: Origin, topic, position, room, and the topic function."""
    refusal = site.check_origin(http)
    if refusal is not None:
        return refusal
    found = site.find(http)
    if isinstance(found, Refusal):
        return found
    topic, declaration = found
    since = parse_since_of(http)
    if isinstance(since, Refusal):
        return since
    policy = declaration.policy
    rate = parse_rate(http, policy.max_per_s) if isinstance(policy, Latest) else None
    if isinstance(rate, Refusal):
        return rate
    full = site.check_room(http)
    if full is not None:
        return full
    return await admit(site, http, Asked(topic, declaration, since, rate))


async def admit(site: Site, http: HTTPConnection, asked: Asked) -> Asked | Refusal:
    """Note the position, ask the topic function, and see whether there is something to follow."""
    topic, declaration, since = asked.topic, asked.declaration, asked.since
    asked.noted = await site.hub.note(topic)
    operation = Operation("subscribe", topic, str(since) if isinstance(since, Position) else None)
    admission = await site.gate.ask(declaration, operation, http)
    if isinstance(admission, Refusal):
        return admission
    missing = await check_there(site, topic, declaration)
    if missing is not None:
        return missing
    asked.snapshot = snapshot_messages(site, declaration, admission.value, asked.noted)
    return asked


def snapshot_messages(site: Site, declaration: Declaration, value: Any, noted: Position | None) -> list[Message] | None:
    """What a ``Latest`` topic function returned, as messages at the noted position; None: it returned nothing.

    On keyed topics a list or tuple is many values, one per key.
    """
    policy = declaration.policy
    if value is None or not isinstance(policy, Latest):
        return None
    values: Sequence[Any] = value if policy.key is not None and isinstance(value, list | tuple) else [value]
    position = noted or Position("", 0)
    messages = []
    for one in values:
        draft: Draft = site.publisher.draft_value(declaration, one)
        messages.append(Message(draft.payload, draft.kind, position.epoch, position.offset, draft.key, snapshot=True))
    return messages


async def follow(
    site: Site,
    http: HTTPConnection,
    asked: Asked,
    connection: TopicConnection,
    reader: Reader,
    listen: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run ``connection``: this task writes, a second one listens to the peer, and a third brings it up to date.

    The third is short-lived; the peer is heard meanwhile, because catching up takes as long as the reader does.
    """
    subscriptions: list[Subscription] = []

    async def subscribe() -> None:
        subscriptions.append(await asked.subscribe(site, reader))

    await hold(site, http, connection, (subscribe, listen), subscriptions)


async def hold(
    site: Site,
    http: HTTPConnection,
    connection: TopicConnection,
    works: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    subscriptions: list[Subscription],
) -> None:
    """Run ``connection`` in this task, and each of ``works`` in one of its own, until it ends; nothing is left of it.

    ``subscriptions`` are ended with it, also those that were added meanwhile.
    """
    address = address_of(http)
    site.enter(connection, address)
    site.stay(connection, http)
    try:
        tasks = [asyncio.create_task(guard(work, connection)) for work in works]
        try:
            await connection.run()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for subscription in subscriptions:
                site.hub.unsubscribe(subscription)
    finally:
        site.leave(connection, address)


# WebSocket


async def serve_websocket(site: Site, websocket: WebSocket) -> None:
    """A topic as a WebSocket: bare, or with ``?positions=1``."""
    asked = await ask(site, websocket)
    if isinstance(asked, Refusal):
        await deny(websocket, asked)
        return
    try:
        await websocket.accept()
    except (OSError, RuntimeError):
        return
    hand_over = hand_over_of(site, websocket)
    if hand_over is not None:
        _follow_on_socket(site, websocket, asked, hand_over)
    else:
        await _follow_on_asgi(site, websocket, asked)


def hand_over_of(site: Site, websocket: WebSocket) -> Callable[..., Any] | None:
    """What hands the accepted socket over: our own wire, or a stock uvicorn where the application has asked for that.

    None: the server offers no such thing, and the application's task goes on (the log says how to get it, once).
    """
    hand_over = extension_of(websocket.scope).get("hand_over") or _take_over(site, websocket)
    if hand_over is None:
        _tell_the_fast_way(site)
    return hand_over


def _take_over(site: Site, websocket: WebSocket) -> Callable[..., Any] | None:
    receive = getattr(websocket, "_receive", None)
    return None if site.take_over is None or receive is None else site.take_over(receive)


def _follow_on_socket(site: Site, websocket: WebSocket, asked: Asked, hand_over: Callable[..., Any]) -> None:
    """Hand the socket to a connection of its own; the route, its scope and its dependencies are through."""
    takes_any = asked.declaration.publish is not False
    http = keep_handshake(websocket, is_known=False)
    publishing = Publishing(site, http, asked.topic, asked.declaration) if takes_any else None
    address = address_of(websocket)
    invite = None if publishing is None else publishing.invite
    connection: SocketConnection = hand_over(lambda socket: SocketConnection(socket, site, address, invite))
    site.stay(connection, websocket)
    reader = _reader_of(websocket, asked, connection, AS_FRAMES)
    connection.follow(lambda: asked.subscribe(site, reader))


def _reader_of(websocket: WebSocket, asked: Asked, connection: Connection, wording: Wording) -> Reader:
    if websocket.query_params.get("positions") in {"1", "true"}:
        return PositionsReader(connection, wording)
    return BareReader(connection, wording, every_message_counts=isinstance(asked.declaration.policy, Log))


async def _follow_on_asgi(site: Site, websocket: WebSocket, asked: Asked) -> None:
    """On a server without our extension: the route goes on as long as the connection."""
    # what FastAPI handed to the WebSocket: its state machine has nothing to say about messages on an open socket,
    # and would be asked for each one (the public send where a version has no such attribute)
    send = getattr(websocket, "_send", websocket.send)
    link = WebSocketLink(websocket.scope, send)
    connection = TopicConnection(link, site.limits, site.pump)
    reader = _reader_of(websocket, asked, connection, AS_EVENTS)

    async def listen() -> None:
        link.listener = asyncio.current_task()
        await _listen(site, websocket, asked, connection)

    await follow(site, websocket, asked, connection, reader, listen)


def _tell_the_fast_way(site: Site) -> None:
    """Once: nobody would look for what works already."""
    if not site.is_fast_way_told:
        site.is_fast_way_told = True
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        heard = [one for one in loggers if one.hasHandlers() and one.isEnabledFor(logging.INFO)]
        (heard or loggers)[0].info(_FAST_WAY)


async def deny(websocket: WebSocket, refusal: Refusal) -> None:
    """Refuse before the upgrade, with a JSON body where the server can (ASGI ``websocket.http.response``)."""
    response = JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers=refusal.headers)
    try:
        if "websocket.http.response" in websocket.scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:
            await websocket.close(codes.DENIED.code, codes.shorten_reason(refusal.sentence))
    except (OSError, RuntimeError):
        # the caller has gone meanwhile
        return


async def _listen(site: Site, websocket: WebSocket, asked: Asked, connection: TopicConnection) -> None:
    """Take what the peer sends until it is gone: each message is a publish."""
    publishing = Publishing(site, websocket, asked.topic, asked.declaration)
    while connection.verdict is None:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            connection.peer_gone()
        elif asked.declaration.publish is False:
            connection.end(TAKES_NONE)
        else:
            text = event.get("text")
            await publishing.publish(event["bytes"] if text is None else text, connection)


# Event stream


class Events(Response):
    """Server-sent events; an ASGI application of its own, because it writes an outbox."""

    media_type = plain.EVENT_STREAM

    def __init__(self, site: Site, http: HTTPConnection, headers: dict[str, str]) -> None:
        # what FastAPI and middleware look at; nothing of Starlette's body machinery is used
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._site = site
        self._http = http

    def link_for(self, scope: Scope, send: Send) -> StreamLink:
        """What the events are written to."""
        return StreamLink(scope, send)

    async def follow(self, connection: TopicConnection, listen: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``connection`` to its end; ``listen`` hears when the reader leaves."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until everything has ended, the reader leaves or the server stops."""
        link = self.link_for(scope, send)
        connection = TopicConnection(link, self._site.limits, self._site.pump, heartbeat=_HEARTBEAT)
        try:
            await link.begin(self.status_code, list(self.raw_headers))
        except Exception as error:
            if not means_gone(error):
                raise
            return

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            connection.peer_gone()

        await self.follow(connection, listen)


class EventStream(Events):
    """A topic as server-sent events."""

    def __init__(self, site: Site, http: HTTPConnection, asked: Asked, headers: dict[str, str]) -> None:
        super().__init__(site, http, headers)
        self._asked = asked

    def reader_for(self, connection: TopicConnection) -> Reader:
        """How this stream speaks."""
        return EventReader(connection, self._site.rng)

    async def follow(self, connection: TopicConnection, listen: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One reader."""
        await follow(self._site, self._http, self._asked, connection, self.reader_for(connection), listen)


async def serve_events(site: Site, request: Request, headers: dict[str, str]) -> Response | Refusal:
    """A topic as an event stream; 204 for a reader of a finished topic that has everything."""
    asked = await ask(site, request)
    if isinstance(asked, Refusal):
        return asked
    if isinstance(asked.since, Position):
        history = await site.hub.read(asked.topic, asked.since, 1)
        if history is not None and history.end is not None and history.complete and not history.messages:
            return Response(status_code=204, headers=headers)
    return EventStream(site, request, asked, headers)
