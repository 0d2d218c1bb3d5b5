"""Following a ``Log`` over HTTP as Durable Streams clients do: long-poll (PROTOCOL.md 5.7) and events (5.8).

Both go the way of every reader (``streams.ask``, one hub subscription): the position is noted, the topic function is
asked, and only then is anything registered.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from tidewire.brokers.base import History
from tidewire.clock import Clock
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.subscription import Encode, Eviction, Gap, Opened, State, Subscription
from tidewire.limits import Limits
from tidewire.protocol import codes, durable
from tidewire.protocol.message import End, Kind, Message
from tidewire.protocol.position import START, Position, position_of
from tidewire.server.connection import Connection, TopicConnection, Verdict
from tidewire.server.durable import NO_STREAM, bare, is_there, kind_for, must_be_log, one_offset, refuse
from tidewire.server.durable_read import body_of, not_kept, progress, read_pages
from tidewire.server.gate import Refusal
from tidewire.server.inbound import guard
from tidewire.server.site import Site, address_of
from tidewire.server.streams import Asked, EventStream, ask

_NEEDS_OFFSET = "live reading needs an offset: the Stream-Next-Offset of an earlier answer, -1 or now"


async def _ask(site: Site, request: Request) -> Asked | Refusal:
    """``streams.ask``, and what only these ways of reading need: one offset, and a log to go through."""
    refusal = one_offset(request)
    if refusal is None and "offset" not in request.query_params:
        refusal = Refusal(400, _NEEDS_OFFSET)
    if refusal is not None:
        return refusal
    asked = await ask(site, request)
    if isinstance(asked, Refusal):
        return asked
    return must_be_log(asked.declaration) or asked


def _floor(site: Site, request: Request) -> int:
    """The least cursor to give to this reader (10.1)."""
    jitter_s = site.rng.randint(1, durable.CURSOR_JITTER_MAX_S)
    return durable.cursor_floor(request.query_params.get("cursor"), site.hub.clock.wall_ms(), jitter_s)


# Long-poll


async def poll(site: Site, request: Request, headers: dict[str, str]) -> Response:
    """What is there after the offset; when that is nothing, what comes next, or 204 after a while."""
    asked = await _ask(site, request)
    if isinstance(asked, Refusal):
        return refuse(asked, headers)
    since = asked.since
    if not isinstance(since, Position) and since is not START:
        # what is published from now on comes after the position that was noted
        since = asked.noted or START
    history = await read_pages(site, asked.topic, since)
    if history is None or (history.complete and not history.messages and history.end is None):
        expired = await _wait_for_news(site, request, asked)
        if expired is not None:
            return refuse(expired, headers)
        history = await read_pages(site, asked.topic, since)
    return _answer_poll(site, request, asked, history, headers)


def _answer_poll(
    site: Site, request: Request, asked: Asked, history: History | None, headers: dict[str, str]
) -> Response:
    if not is_there(asked.declaration, history):
        return refuse(Refusal(404, NO_STREAM), headers)
    if history is None:
        # following it makes its state: that has failed
        return refuse(Refusal(503, "the topic cannot be followed now: try again in a moment"), headers)
    if not history.complete:
        return not_kept(history, headers)
    headers |= {**progress(history), "cache-control": "no-store"}
    if "stream-closed" not in headers:
        cursor = max(durable.interval_of(site.hub.clock.wall_ms()), _floor(site, request))
        headers["stream-cursor"] = str(cursor)
    if not history.messages:
        return bare(204, headers)
    content_type, body = body_of(asked.declaration, history, exact=True)
    return bare(200, {**headers, "content-type": content_type}, body)


async def _wait_for_news(site: Site, request: Request, asked: Asked) -> Refusal | None:
    """Until something happens to the topic, the caller leaves or ``Limits.long_poll_s`` are over.

    Returns why the caller may not hear of it any more.
    """
    waiting = _Waiting(site.limits)

    async def listen() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        waiting.wake()

    async def subscribe() -> None:
        subscriptions.append(await asked.subscribe(site, waiting))

    subscriptions: list[Subscription] = []
    address = address_of(request)
    site.enter(waiting, address)
    site.stay(waiting, request)
    tasks = [asyncio.create_task(guard(work, waiting)) for work in (subscribe, listen)]
    timer = site.hub.clock.call_later(site.limits.long_poll_s, waiting.wake)
    try:
        await waiting.news.wait()
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for subscription in subscriptions:
            site.hub.unsubscribe(subscription)
        site.leave(waiting, address)
    verdict = waiting.verdict
    return Refusal(401, verdict.reason) if verdict is not None and verdict.code == codes.EXPIRED.code else None


class _NoCarrier:
    """Writes nothing: what is queued is read again from the history."""

    __slots__ = ()

    def write(self, writers: Sequence[Any], batch: Batch) -> list[Any]:
        return list(writers)


class _Waiting:
    """A reader that waits for the first news of its topic, and its connection, on which nothing is written."""

    __slots__ = ("__weakref__", "news", "outbox", "ready", "verdict")

    carrier: ClassVar[_NoCarrier] = _NoCarrier()

    def __init__(self, limits: Limits) -> None:
        self.news = asyncio.Event()
        self.ready = False
        self.verdict: Verdict | None = None
        self.outbox = Outbox(self, bytes_max=limits.outbox_bytes_max, messages_max=limits.outbox_messages_max)

    @staticmethod
    def encode(messages: Sequence[Message]) -> Batch:
        """Nothing but the news that there are messages."""
        return Batch((), 0, len(messages), position_of(messages[-1]))

    def wake(self) -> None:
        """There is news."""
        self.news.set()

    def end(self, verdict: Verdict) -> None:
        """The server stops, or the subscription has failed: what is there now is the answer."""
        self.verdict = self.verdict or verdict
        self.wake()

    def drop(self) -> None:
        """Nothing is being written that could be aborted."""
        self.wake()

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """Its page, if there is one, wakes."""
        return False

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """Read again, and it is told."""
        self.wake()

    def ended(self, subscription: Subscription, end: End) -> None:
        """Read again, and it is told."""
        self.wake()

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """Too much has come, or the server stops."""
        self.wake()


# Events


@functools.lru_cache(maxsize=512)
def _encodings(kind: Kind, floor: int, wall_ms: Callable[[], int]) -> tuple[Encode, Encode]:
    """How batches look to readers of ``kind`` with this least cursor: on the way to now, and live.

    The same functions for all of them, so that they share batches. Forgetting an entry shares less, and no more.
    """

    def encode(messages: Sequence[Message], up_to_date: bool) -> Batch:
        position = position_of(messages[-1])
        cursor = max(durable.interval_of(wall_ms()), floor)
        control = durable.control_event(position, cursor, up_to_date=up_to_date)
        blob = durable.data_event(messages, kind) + control
        return Batch((blob,), len(blob), len(messages), position)

    return lambda messages: encode(messages, up_to_date=False), lambda messages: encode(messages, up_to_date=True)


class DurableReader:
    """Data and control events. A reader that lost something is cut off: its next question is answered with 410."""

    def __init__(self, connection: Connection, kind: Kind, floor: int, clock: Clock) -> None:
        self.outbox = connection.outbox
        self._connection = connection
        self._catching_up, self._live = _encodings(kind, floor, clock.wall_ms)
        self._floor = floor
        self._clock = clock
        self._subscription: Subscription | None = None
        # the position at which it was last told to be up to date
        self._told: Position | None = None

    @property
    def encode(self) -> Encode:
        """A page of the past leaves open whether more follows; a live batch does not."""
        subscription = self._subscription
        is_live = subscription is not None and subscription.state in {State.JOINING, State.LIVE}
        return self._live if is_live else self._catching_up

    def opened(self, subscription: Subscription, how: Opened) -> bool:
        """Where all of the past fits into one page, it is said here, as being up to date."""
        self._subscription = subscription
        if how.recovered is False or how.start is None:
            return False
        if how.page:
            self._told = position_of(how.page[-1])
            subscription.put(self._live(how.page))
        elif not how.replayed:
            self._tell_up_to_date(how.start)
        return bool(how.page)

    def caught_up(self, subscription: Subscription) -> None:
        """It is live now: say so, if the last control event did not."""
        if subscription.state is not State.ENDED and subscription.at is not None and subscription.at != self._told:
            self._tell_up_to_date(subscription.at)

    def _tell_up_to_date(self, position: Position) -> None:
        self._told = position
        cursor = max(durable.interval_of(self._clock.wall_ms()), self._floor)
        self._put(durable.control_event(position, cursor, up_to_date=True))

    def _put(self, event: bytes) -> None:
        self.outbox.put(Batch((event,), len(event), 0))

    def lost(self, subscription: Subscription, gap: Gap) -> None:
        """The protocol has no word for it in a stream of events."""
        self._connection.end(Verdict(codes.GAP.code, abrupt=False))

    def ended(self, subscription: Subscription, end: End) -> None:
        """The end of the stream, which is told; or that it is gone, which the next question tells."""
        words = None
        if not end.gone:
            event = durable.control_event(Position(end.epoch, end.offset), None, up_to_date=True, closed=True)
            words = Batch((event,), len(event), 0)
        self._connection.end(Verdict(codes.FINISHED.code, abrupt=False, last_words=words))

    def evicted(self, subscription: Subscription, why: Eviction) -> None:
        """The stream ends; the reader comes back with its last offset."""
        is_shutdown = why is Eviction.SHUTDOWN
        code = codes.SHUTDOWN if is_shutdown else codes.SLOW
        self._connection.end(Verdict(code.code, abrupt=not is_shutdown))


class _Following(Asked):
    """An admitted reader that is told when it is up to date."""

    __slots__ = ()

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked.topic, asked.declaration, asked.since, asked.rate)
        self.noted = asked.noted

    async def subscribe(self, site: Site, reader: Any) -> Subscription:
        """Nothing can be delivered between the end of the first line and the second."""
        subscription = await super().subscribe(site, reader)
        reader.caught_up(subscription)
        return subscription


class DurableEvents(EventStream):
    """A log as data and control events; ends after ``Limits.stream_events_s`` (5.8), and the reader asks again."""

    def __init__(
        self, site: Site, request: Request, asked: Asked, headers: dict[str, str], kind: Kind, floor: int
    ) -> None:
        super().__init__(site, request, _Following(asked), {"cache-control": "no-cache, no-store", **headers})
        # the protocol's clients compare it whole, and events are UTF-8 without saying so
        self.headers["content-type"] = self.media_type
        self._kind = kind
        self._floor = floor
        self._connection: Connection | None = None

    def reader_for(self, connection: TopicConnection) -> DurableReader:
        """The reader of this dialect."""
        self._connection = connection
        return DurableReader(connection, self._kind, self._floor, self._site.hub.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until the stream ends, the reader leaves, the server stops or the time is over."""
        timer = self._site.hub.clock.call_later(self._site.limits.stream_events_s, self._end)
        try:
            await super().__call__(scope, receive, send)
        finally:
            timer.cancel()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.end(Verdict(codes.FINISHED.code, abrupt=False))


async def follow_events(site: Site, request: Request, headers: dict[str, str]) -> Response:
    """A log as events; 410 for an offset that is not kept, 204 for an ``EventSource`` that has all of a closed one."""
    asked = await _ask(site, request)
    if isinstance(asked, Refusal):
        return refuse(asked, headers)
    if isinstance(asked.since, Position):
        history = await site.hub.read(asked.topic, asked.since, 1)
        if history is not None and not history.complete:
            return not_kept(history, headers)
        over = history is not None and history.end is not None and not history.messages
        if over and "last-event-id" in request.headers:
            return bare(204, headers)
    tail = await site.hub.read(asked.topic, START, 0)
    kind = kind_for(asked.declaration, None if tail is None else tail.stream)
    if kind is Kind.BYTES:
        headers["stream-sse-data-encoding"] = "base64"
    return DurableEvents(site, request, asked, headers, kind, _floor(site, request))


LIVE: dict[str | None, Callable[[Site, Request, dict[str, str]], Awaitable[Response]]] = {
    "long-poll": poll,
    "sse": follow_events,
}
"""How ``?live=`` reads, by its value."""
