"""Many topics in one stream: ``/-/stream?topic=a&topic=b``, as events or as a WebSocket.

One subscription per topic, all of them on one outbox. Each topic is asked for by its own function, and its beginning,
its gaps and its end are told with its name; the frames are those of ``?positions=1`` with a ``topic`` before them. The
id of an event says where the reader is in every topic (``protocol.many``).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.types import Scope, Send

from tidewire.errors import BadPosition, BadTopic, UnknownTopic
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.policy import Latest, Log, Signal
from tidewire.hub.subscription import Encode, Eviction, Gap, Opened, Subscription
from tidewire.protocol import codes, many, plain
from tidewire.protocol.message import End, Message
from tidewire.protocol.position import NOW, START, Position, Since, parse_since
from tidewire.server.connection import Connection, TopicConnection, Verdict
from tidewire.server.direct import SocketConnection
from tidewire.server.durable import bare, headers_of, refuse
from tidewire.server.gate import Declaration, Refusal
from tidewire.server.inbound import TAKES_NONE, guard
from tidewire.server.readers import AS_EVENTS, AS_FRAMES, Wording
from tidewire.server.site import Site, address_of, parse_rate
from tidewire.server.streams import Asked, Events, admit, deny, hand_over_of, hold
from tidewire.wire import frames
from tidewire.wire.asgi import StreamLink, WebSocketLink

# how many topics of one stream are brought up to date at once: each queues a quarter of an outbox at a time
_CATCHING_UP_MAX = 4
# encodings that are remembered; of more topics at once, some share less
_ENCODINGS_MAX = 4096


# What is asked for


async def ask(site: Site, http: HTTPConnection) -> list[Asked] | Refusal:
    """Everything that can refuse a reader of these topics, the function of each last; a refusal names the topic."""
    topics = http.query_params.getlist("topic")
    refusal = site.check_origin(http) or _check_topics(topics, site.limits.stream_topics_max)
    if refusal is not None:
        return refusal
    since = _since_of(http, topics)
    if isinstance(since, Refusal):
        return since
    full = site.check_room(http)
    if full is not None:
        return full
    wanted = [_want(site, http, topic, since[topic]) for topic in topics]
    asked = [one for one in wanted if isinstance(one, Asked)]
    if len(asked) == len(wanted):
        # noted and asked at the same time: a stream of a hundred topics is not a hundred waits
        wanted = list(await asyncio.gather(*(admit(site, http, one) for one in asked)))
    for topic, one in zip(topics, wanted, strict=True):
        if isinstance(one, Refusal):
            return _name(topic, one)
    return [one for one in wanted if isinstance(one, Asked)]


def _check_topics(topics: Sequence[str], most: int) -> Refusal | None:
    if not topics:
        return Refusal(400, "name the topics: /-/stream?topic=a&topic=b")
    if len(topics) > most:
        return Refusal(400, f"{len(topics)} topics in one stream, and {most} are allowed: open another for the rest")
    twice = next((topic for topic in topics if topics.count(topic) > 1), None)
    return None if twice is None else Refusal(400, f"{twice}: name each topic once")


def _want(site: Site, http: HTTPConnection, topic: str, since: Since) -> Asked | Refusal:
    try:
        declaration: Declaration = site.gate.find(topic)
    except BadTopic as error:
        return Refusal(404, str(error))
    except UnknownTopic:
        return Refusal(404, "no such topic here")
    policy = declaration.policy
    rate = parse_rate(http, policy.max_per_s) if isinstance(policy, Latest) else None
    return rate if isinstance(rate, Refusal) else Asked(topic, declaration, since, rate)


def _name(topic: str, refusal: Refusal) -> Refusal:
    detail = refusal.detail
    named = f"{topic}: {detail}" if isinstance(detail, str) else {"topic": topic, "reason": detail}
    return Refusal(refusal.status, named, refusal.headers)


def _since_of(http: HTTPConnection, topics: Sequence[str]) -> dict[str, Since] | Refusal:
    """Where the caller was in each topic: ``Last-Event-ID`` or one ``since`` with all of it, or a ``since`` for each.

    A topic that is not in the text begins with what comes. ``since=-1`` and ``since=now`` are for all of them.
    """
    told = http.headers.get("last-event-id")
    texts = [told] if told else http.query_params.getlist("since")
    try:
        if not texts:
            return dict.fromkeys(topics, NOW)
        if len(texts) == 1 and texts[0] in {"-1", "now"}:
            return dict.fromkeys(topics, parse_since(texts[0]))
        if len(texts) == 1 and "." in texts[0]:
            places = many.parse_places(texts[0])
            return {topic: places.get(many.key_of(topic), NOW) for topic in topics}
        if len(texts) == len(topics):
            return {topic: parse_since(text) for topic, text in zip(topics, texts, strict=True)}
    except BadPosition as error:
        return Refusal(400, str(error))
    return Refusal(400, "give one since with the id of the last event, or one for each topic, in the same order")


# How it is said


class Speech(Protocol):
    """What messages and words about topics are, in one kind of stream."""

    def encode_of(self, topic: str) -> Encode:
        """How messages of ``topic`` look; the same function for all who may share."""

    def words(self, topic: str, name: str, frame: str, position: Position | None) -> Batch:
        """A word about ``topic``, which moves the reader to ``position``."""

    def goodbye(self) -> Batch | None:
        """The last words when the server stops, if there are any."""


class SocketSpeech:
    """Frames of a WebSocket, as text."""

    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self.encode_of = functools.lru_cache(_ENCODINGS_MAX)(self._make_encode)

    def _make_encode(self, topic: str) -> Encode:
        is_joined = self._wording is AS_FRAMES

        def encode(messages: Sequence[Message]) -> Batch:
            texts = [plain.positions_frame(message, topic) for message in messages]
            items: tuple[Any, ...]
            if is_joined:
                items = (b"".join([frames.message_frame(text) for text in texts]),)
            else:
                items = tuple({"type": "websocket.send", "text": text} for text in texts)
            return Batch(items, sum(map(len, texts)), len(messages), plain.position_of(messages[-1]))

        return encode

    def words(self, topic: str, name: str, frame: str, position: Position | None) -> Batch:
        """A frame of its own."""
        return self._wording.words(frame)

    def goodbye(self) -> Batch | None:
        """The close says it."""
        return None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Events of one topic, without the ids: these are the reader's own. Each with the position it moves to."""

    key: str
    events: tuple[tuple[Position | None, bytes], ...]


class EventSpeech:
    """Server-sent events; ``EventLink`` adds the ids."""

    def __init__(self) -> None:
        self.encode_of = functools.lru_cache(_ENCODINGS_MAX)(self._make_encode)

    def _make_encode(self, topic: str) -> Encode:
        key = many.key_of(topic)

        def encode(messages: Sequence[Message]) -> Batch:
            events = tuple([(plain.position_of(one), many.message_data(one, topic)) for one in messages])
            size = sum([len(data) for _, data in events])
            return Batch((_Piece(key, events),), size, len(messages), events[-1][0])

        return encode

    def words(self, topic: str, name: str, frame: str, position: Position | None) -> Batch:
        """A named event."""
        data = many.said_data(name, frame)
        return Batch((_Piece(many.key_of(topic), ((position, data),)),), len(data), 0)

    def goodbye(self) -> Batch | None:
        """Come back soon."""
        event = plain.retry_event(_RETRY_SOON_MS)
        return Batch((event,), len(event), 0)


_RETRY_SOON_MS = 500


class EventLink(StreamLink):
    """Writes pieces with the id that this reader is to come back with: where it then is in every topic.

    Every event has it, so that a line cut between two of them repeats and loses nothing.
    """

    __slots__ = ("_places",)

    def __init__(self, scope: Scope, send: Send, places: Mapping[str, Since]) -> None:
        super().__init__(scope, send)
        self._places = many.Places(places)

    async def write_one(self, item: _Piece | bytes) -> None:
        """Send one batch."""
        await super().write_one(self._add_ids(item))

    async def write(self, items: Sequence[_Piece | bytes]) -> None:
        """Send the joined bytes."""
        await super().write([self._add_ids(item) for item in items])

    def _add_ids(self, item: _Piece | bytes) -> bytes:
        if isinstance(item, bytes):
            return item
        lines: list[bytes] = []
        for position, data in item.events:
            if position is not None:
                self._places.move(item.key, position)
            if self._places.text:
                lines.append(b"id: %s\n" % self._places.text.encode())
            lines += (data, b"\n")
        return b"".join(lines)


# Who reads


class Group:
    """The readers of one stream, one for each topic."""

    def __init__(self, connection: Connection, asked: Sequence[Asked], speech: Speech) -> None:
        self.connection = connection
        self.speech = speech
        self._asked = asked
        self._going = {one.topic for one in asked}
        # subscriptions that have come about
        self.subscriptions: list[Subscription] = []

    async def subscribe(self, site: Site) -> None:
        """Bring all of them to live, some at a time; one that fails ends the stream."""
        turns = asyncio.Semaphore(_CATCHING_UP_MAX)

        async def subscribe_one(asked: Asked) -> None:
            async with turns:
                self.subscriptions.append(await asked.subscribe(site, ManyReader(self, asked.topic)))

        await asyncio.gather(
            *(guard(functools.partial(subscribe_one, asked), self.connection) for asked in self._asked)
        )

    def say(self, topic: str, name: str, frame: str, position: Position | None) -> None:
        """Queue a word about ``topic``."""
        self.connection.outbox.put(self.speech.words(topic, name, frame, position))

    def ended(self, topic: str) -> None:
        """This topic is over; the last one ends the stream."""
        self._going.discard(topic)
        if not self._going:
            self.connection.end(Verdict(codes.FINISHED.code, abrupt=False))

    def evicted(self, why: Eviction) -> None:
        """Too slow in one is too slow for the stream: it comes back with all its positions."""
        if why is Eviction.SHUTDOWN:
            verdict = Verdict(codes.SHUTDOWN.code, "the server stops", abrupt=False, last_words=self.speech.goodbye())
            # the other topics are flushed first: all of them are evicted in one go
            asyncio.get_running_loop().call_soon(self.connection.end, verdict)
        else:
            self.connection.end(Verdict(codes.SLOW.code, "too slow"))


class ManyReader:
    """One topic of the stream (``hub.subscription.Reader``)."""

    __slots__ = ("_group", "_topic", "encode")

    def __init__(self, group: Group, topic: str) -> None:
        self._group = group
        self._topic = topic
        self.encode = group.speech.encode_of(topic)

    @property
    def outbox(self) -> Outbox:
        """The stream's, shared with the other topics."""
        return self._group.connection.outbox

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """Where this topic begins."""
        frame = plain.opened_frame(how.start, how.recovered, how.replayed, self._topic)
        self._group.say(self._topic, "position", frame, how.start)
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """Something of this topic is lost."""
        self._group.say(self._topic, "gap", plain.gap_frame(gap.since, gap.until, self._topic), gap.until)

    def ended(self, subscription: Subscription, end: End) -> None:
        """This topic is over, the others go on."""
        position = Position(end.epoch, end.offset) if end.epoch else None
        self._group.say(self._topic, "end", plain.end_frame(position, end.error, self._topic), position)
        self._group.ended(self._topic)

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The stream ends."""
        self._group.evicted(why)


class _Listener:
    """What a handed-over socket brings (``server.inbound.Guest``): nothing is taken, and one day it leaves."""

    def __init__(self, site: Site, connection: Connection) -> None:
        self._site = site
        self._connection = connection
        self._group: Group | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, group: Group) -> None:
        """Bring the stream up to date, unless the peer has gone meanwhile."""
        if self._connection.verdict is None:
            self._group = group
            work = functools.partial(group.subscribe, self._site)
            self._task = asyncio.get_running_loop().create_task(guard(work, self._connection))

    def take(self, messages: list[Any]) -> None:
        """Messages are published to a topic's own URL."""
        self._connection.end(TAKES_NONE)

    def left(self, code: int | None) -> None:
        """End all of it."""
        if self._task is not None:
            self._task.cancel()
        if self._group is not None:
            for subscription in self._group.subscriptions:
                self._site.hub.unsubscribe(subscription)


# The endpoints


class Many:
    """The endpoints of ``/-/stream``, and what all its readers share."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._events = EventSpeech()
        self._frames = SocketSpeech(AS_FRAMES)
        self._messages = SocketSpeech(AS_EVENTS)

    async def get(self, request: Request) -> Response:
        """The topics as events; 204 for a reader that has everything of topics that have all ended."""
        headers = headers_of(self._site, request)
        asked = await ask(self._site, request)
        if isinstance(asked, Refusal):
            return refuse(asked, headers)
        if await self._has_everything(asked):
            return bare(204, headers)
        return ManyEvents(self._site, request, asked, self._events, headers)

    async def _has_everything(self, asked: Sequence[Asked]) -> bool:
        for one in asked:
            if not isinstance(one.since, Position):
                return False
            history = await self._site.hub.read(one.topic, one.since, 1)
            if history is None or history.end is None or not history.complete or history.messages:
                return False
        return True

    async def serve(self, websocket: WebSocket) -> None:
        """The topics as a WebSocket."""
        asked = await ask(self._site, websocket)
        if isinstance(asked, Refusal):
            await deny(websocket, asked)
            return
        try:
            await websocket.accept()
        except (OSError, RuntimeError):
            return
        hand_over = hand_over_of(self._site, websocket)
        if hand_over is not None:
            self._follow_on_socket(websocket, asked, hand_over)
        else:
            await self._follow_on_asgi(websocket, asked)

    def _follow_on_socket(self, websocket: WebSocket, asked: list[Asked], hand_over: Callable[..., Any]) -> None:
        site, address = self._site, address_of(websocket)
        listeners: list[_Listener] = []

        def invite(connection: SocketConnection, socket: object) -> _Listener:
            listeners.append(_Listener(site, connection))
            return listeners[0]

        connection: SocketConnection = hand_over(lambda socket: SocketConnection(socket, site, address, invite))
        site.stay(connection, websocket)
        listeners[0].begin(Group(connection, asked, self._frames))

    async def _follow_on_asgi(self, websocket: WebSocket, asked: list[Asked]) -> None:
        send = getattr(websocket, "_send", websocket.send)
        link = WebSocketLink(websocket.scope, send)
        connection = TopicConnection(link, self._site.limits, self._site.pump)
        group = Group(connection, asked, self._messages)

        async def listen() -> None:
            link.listener = asyncio.current_task()
            while connection.verdict is None:
                if (await websocket.receive())["type"] == "websocket.disconnect":
                    connection.peer_gone()
                else:
                    connection.end(TAKES_NONE)

        subscribe = functools.partial(group.subscribe, self._site)
        await hold(self._site, websocket, connection, (subscribe, listen), group.subscriptions)


class ManyEvents(Events):
    """The topics as server-sent events."""

    def __init__(
        self, site: Site, request: Request, asked: list[Asked], speech: EventSpeech, headers: dict[str, str]
    ) -> None:
        super().__init__(site, request, headers)
        self._asked = asked
        self._speech = speech

    def link_for(self, scope: Scope, send: Send) -> StreamLink:
        """What adds the ids; cut before a topic has begun, its reader comes back to where it wanted to begin."""
        return EventLink(scope, send, {many.key_of(one.topic): at for one in self._asked if (at := _begins_at(one))})

    async def follow(self, connection: TopicConnection, listen: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One reader for each topic."""
        group = Group(connection, self._asked, self._speech)
        retry = plain.retry_event(self._site.rng.randrange(1000, 2000))
        connection.outbox.put(Batch((retry,), len(retry), 0))
        subscribe = functools.partial(group.subscribe, self._site)
        await hold(self._site, self._http, connection, (subscribe, listen), group.subscriptions)


def _begins_at(asked: Asked) -> Since | None:
    """From where a reader of this topic misses nothing; None: it begins with what is then there."""
    policy = asked.declaration.policy
    if isinstance(policy, Signal):
        return None
    if isinstance(asked.since, Position) or (isinstance(policy, Log) and asked.since is START):
        return asked.since
    return (asked.noted or START) if isinstance(policy, Log) else None
