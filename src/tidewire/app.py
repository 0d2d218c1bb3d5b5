"""``Live``: the composition root. What an application holds in its hands."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import APIRouter

from tidewire.brokers.base import Broker
from tidewire.brokers.open import open_broker
from tidewire.clock import Clock
from tidewire.errors import DeclarationError, NotRunning, PublishQueueFull
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Log, Policy
from tidewire.hub.presence import Member
from tidewire.limits import Limits
from tidewire.protocol.codes import FORCED, RECONNECT
from tidewire.protocol.message import Kind
from tidewire.protocol.topics import Template
from tidewire.server.gate import Admissions, Declaration, Gate
from tidewire.server.handler import STATE_PREFIX
from tidewire.server.hooks import CONNECT, DISCONNECT, MESSAGE
from tidewire.server.identities import Identities
from tidewire.server.inner import Inner
from tidewire.server.origin import OriginRule
from tidewire.server.processes import guard_against_several, note_sharing
from tidewire.server.publisher import Publisher
from tidewire.server.router import make_router
from tidewire.server.runs import Run, Runs
from tidewire.server.secrets import hide_secrets_in_logs
from tidewire.server.site import Site
from tidewire.server.tokens import Tokens

logger = logging.getLogger("tidewire")

F = TypeVar("F", bound=Callable[..., Any])
_PAYLOADS = {None: None, "json": Kind.JSON, "text": Kind.TEXT, "bytes": Kind.BYTES, str: Kind.TEXT, bytes: Kind.BYTES}


class Topic:
    """What ``@live.topic`` gives back: publish to one of its topics by parameters."""

    def __init__(self, live: Live, template: Template, function: Callable[..., Any]) -> None:
        self._live = live
        self._template = template
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The decorated function itself."""
        return self.function(*args, **kwargs)

    def name(self, **parameters: object) -> str:
        """The full topic name, e.g. ``quotes.name(symbol="AAPL")``; raises ``DeclarationError``, ``BadTopic``."""
        return self._template.format(**parameters)

    async def publish(self, value: object, *, id: str | None = None, **parameters: object) -> str | None:
        """``live.publish`` to ``name(**parameters)``."""
        return await self._live.publish(self.name(**parameters), value, id=id)


class Live:
    """Topics for one application.

    ::

        live = Live()
        app.include_router(live.router, prefix="/live")

    ``broker``: what keeps and carries messages, by its URL (``sqlite:///live.db``; docs/brokers.md) or as an object;
    None: the memory of this process. ``origins``: pages of other sites that may use it, as browsers send them
    (``https://app.example.com``); drives CORS too. ``trusted_proxies``: peer addresses whose ``X-Forwarded-Host``
    counts. ``isolated``: this process is on its own on purpose (see ``SeveralProcesses``). ``flush_window_s``: what is
    published within this time after a flush goes out together; when nothing was, the next message goes out at once.
    ``takeover``: on a stock uvicorn, take its sockets over, for the speed of our own wire without
    ``--ws tidewire.wire:Protocol``; it reaches into uvicorn, so only on versions it was tested with
    (docs/running.md). ``tokens``: how connection and subscription tokens are verified. ``identity``: a dependency that
    says who is asking (a user id, an ``Identity``, or None). ``clock`` and ``limits`` replace the defaults.

    Raises ``BadBrokerURL``, and ``DeclarationError`` for what cannot work.
    """

    def __init__(
        self,
        broker: Broker | str | None = None,
        *,
        origins: Sequence[str] = (),
        trusted_proxies: Sequence[str] = (),
        limits: Limits | None = None,
        clock: Clock | None = None,
        flush_window_s: float = 0.001,
        isolated: bool = False,
        takeover: bool = False,
        tokens: Tokens | None = None,
        identity: Callable[..., Any] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._isolated = isolated
        self._broker = (
            open_broker(broker or "memory://", limits=self.limits, clock=clock)
            if broker is None or isinstance(broker, str)
            else broker
        )
        note_sharing(self, shared=self._broker.shared)
        self._hub = Hub(self._broker, limits=self.limits, clock=clock, flush_window_s=flush_window_s)
        self._inner = Inner(deadline_s=self.limits.authorise_timeout_s)
        ttl_s = self.limits.authorise_ttl_s
        admissions = None if ttl_s is None else Admissions(ttl_s)
        self._gate = Gate(self._inner, admissions=admissions, clock=clock)
        self._publisher = Publisher(self._hub, self._gate, self.limits)
        self._site = Site(
            self._hub, self._gate, self._publisher, self.limits, OriginRule(tuple(origins)), tuple(trusted_proxies)
        )
        self._site.tokens = tokens
        self._site.identities = Identities(
            self._inner, tokens, identity, tickets=self._site.tickets, revocations=self._site.revocations
        )
        self._gate.presented = self._site.identities.presented
        self.identity = self._site.identities.dependency
        """A dependency: ``Annotated[Identity, Depends(live.identity)]`` is who asks, in any function or route."""
        if takeover:
            from tidewire.wire.takeover import TakeOver

            self._site.take_over = TakeOver().of
        self.router: APIRouter = make_router(self._site, self.lifespan)
        self._soon = _Soon(self)
        self._runs = Runs(self._hub, self._gate, self._publisher, self.limits)
        self._started = 0

    # Declaring

    def topic(
        self,
        pattern: str,
        *,
        policy: Policy | None = None,
        payload: str | type | None = None,
        publish: bool | Callable[..., Any] = False,
        presence: bool = False,
        join_leave: bool = False,
        patterns: bool = False,
        streams: bool = False,
    ) -> Callable[[Callable[..., Any]], Topic]:
        """Declare topics; the function decides who may.

        ``pattern``: a name, with parameters as in FastAPI paths (``quotes/{symbol}``, ``files/{path:path}``).
        ``policy``: ``Log()`` unless given. ``payload``: ``"json"``, ``"text"`` or ``"bytes"`` promises one kind.
        ``publish``: whether clients may publish; a dependency is asked in addition to the function.
        ``presence``: sessions may ask who is on the topic, and those who want to hear are told who joins and leaves;
        ``join_leave``: all of them are told. ``patterns``: sessions may put wildcards in the place of parameters
        (``quotes/*``); the function is asked once for all, with None for these. ``streams``: clients may create, close
        and delete the topic over HTTP (Durable Streams).
        The function runs for every subscribe, read and publish: it admits by returning, refuses with ``Deny`` or
        ``HTTPException``; for a ``Latest`` topic a value it returns is the snapshot. Raises ``DeclarationError``.
        """
        if payload not in _PAYLOADS:
            raise DeclarationError(f"topic {pattern!a}: payload is 'json', 'text' or 'bytes', not {payload!r}")
        template = Template(pattern)

        def declare(function: Callable[..., Any]) -> Topic:
            self._gate.declare(
                Declaration(
                    template,
                    policy or Log(),
                    function,
                    _PAYLOADS[payload],
                    publish,
                    presence=presence or join_leave,
                    join_leave=join_leave,
                    patterns=patterns,
                    streams=streams,
                )
            )
            return Topic(self, template, function)

        return declare

    # Publishing

    async def publish(self, topic: str, value: object, *, id: str | None = None) -> str | None:
        """Publish ``value`` (``str``: text, bytes: binary, anything else: JSON); returns its position as text.

        ``None`` where nothing is numbered (``Signal``). ``id`` makes it idempotent for two minutes. Never waits for a
        reader. Raises ``UnknownTopic``, ``BadTopic``, ``BadPayload``, ``TooLarge``, ``TopicFinished``,
        ``TooManyTopics`` and, on a stream that a client has created, ``AppendConflict``.
        """
        published = await self._publisher.publish(topic, value, None if id is None else f"app:{id}")
        return None if published.position is None else str(published.position)

    def publish_soon(self, topic: str, value: object, *, id: str | None = None) -> None:
        """Publish from any thread, or from sync code; returns at once.

        Checked and encoded here, so mistakes raise here as in ``publish``; in order per thread. Raises
        ``PublishQueueFull`` when the event loop is too far behind, ``NotRunning`` when it is not there.
        """
        declaration = self._gate.find(topic)
        draft = self._publisher.draft_value(declaration, value, None if id is None else f"app:{id}")
        self._soon.put(lambda: self._publisher.publish_draft(topic, declaration, draft))

    async def forget(self, topic: str, key: object) -> None:
        """Remove ``key`` from a ``Latest(key=...)`` topic; its readers are told."""
        await self._publisher.forget(topic, key)

    async def finish(self, topic: str, error: str | None = None) -> None:
        """End ``topic``: readers get the rest, then the end, and do not come back."""
        await self._publisher.finish(topic, error)

    async def drained(self, topic: str, *, timeout_s: float = 10.0) -> None:
        """Wait until the readers of ``topic`` in this process have taken everything; raises ``DrainTimeout``."""
        await self._hub.drained(topic, timeout_s)

    # Streams that end

    def publish_from(
        self, topic: str, source: AsyncIterable[Any], *, run_id: str | None = None, finish: bool = True
    ) -> Run:
        """Publish every item of the async iterator ``source`` as ``publish`` does, then ``finish`` the topic.

        Begins at once and returns a ``Run``, which goes on when the request that began it is gone; ``await`` it to
        wait for the end. The second call with a ``run_id`` joins the run instead of beginning another, also for a
        while after its end (``Limits.run_remembered_s``), and closes its own ``source`` unused. When the producer
        fails, or the run is cancelled, the topic is finished with an error that says so, and the log has the details.
        ``finish=False``: the topic goes on whatever happens. The order of publishing is that of the items; a producer
        that never waits lets the event loop run all the same.

        Raises ``UnknownTopic``, ``BadTopic``, ``TooManyRuns``, ``RunIdTaken``, ``NotRunning``, and ``TypeError``
        for anything else than an async iterator; ``source`` is untouched then.
        """
        return self._runs.begin(topic, source, run_id, finish=finish)

    def run_of(self, run_id: str) -> Run | None:
        """The run that ``publish_from`` began with this id, while it goes on and for a while after its end."""
        return self._runs.find(run_id)

    # Sessions

    def on_connect(self, function: F) -> F:
        """Decorate the function that is asked when a session connects.

        It may take dependencies and ``op: Operation`` (``op.data``: what the client sent along); it refuses as topic
        functions do, and may return a JSON value for the client, or a ``Welcome``. Raises ``DeclarationError``.
        """
        self._site.hooks.declare(CONNECT, function)
        return function

    def on_disconnect(self, function: F) -> F:
        """Decorate the function that is told when a session that was connected is over."""
        self._site.hooks.declare(DISCONNECT, function)
        return function

    def on_message(self, function: F) -> F:
        """Decorate the function that takes what clients send without asking for an answer (``op.data``)."""
        self._site.hooks.declare(MESSAGE, function)
        return function

    def call(self, method: str, *, timeout_s: float | None = None) -> Callable[[F], F]:
        """Declare what ``method`` does when a session calls it (RPC).

        The function takes the data of the call by its annotations, ``Depends`` and all, and returns a JSON value; it
        refuses with ``CallError``, ``Deny`` or ``HTTPException``. It is cancelled when its client goes, and after
        ``timeout_s`` (``Limits.call_timeout_s`` unless given). Raises ``DeclarationError``.
        """

        def declare(function: F) -> F:
            self._site.calls.declare(method, function, timeout_s=timeout_s)
            return function

        return declare

    async def send(self, user: str, value: object) -> int:
        """Send ``value`` (JSON) to every session of ``user`` here; returns how many there are."""
        return self._site.sessions.send(user, value)

    async def disconnect(self, user: str, *, may_come_back: bool = False) -> int:
        """End every connection of ``user`` to topics here; returns how many there were.

        Sessions, and readers without one whose topic's function has asked for ``live.identity``.

        Clients do not come back by themselves, unless they may: then they connect anew, and are asked who they are.
        """
        self._gate.forget_admissions()
        code = RECONNECT if may_come_back else FORCED
        return self._site.sessions.disconnect(user, code) + self._site.tenures.disconnect(user, code)

    async def revoke(self, *, user: str | None = None, token_id: str | None = None, for_s: float = 86400.0) -> int:
        """Make tokens void: one by its id (``jti``), or all of ``user`` that were issued until now (``iat``).

        That is remembered for ``for_s`` seconds: as long as such tokens live. Connections that came with one, and
        subscriptions, are ended at once, and may come back with a new one; returns how many connections. Raises
        ``TooManyRevocations``, and ``ValueError`` where that says nothing: no ``user`` and no ``token_id``, an empty
        one, or no time.
        """
        self._site.revocations.revoke(user=user, token_id=token_id, for_s=for_s)
        self._gate.forget_admissions()
        is_revoked = self._site.revocations.is_revoked
        return self._site.sessions.end_revoked(is_revoked) + self._site.tenures.end_revoked(is_revoked)

    async def unsubscribe(self, user: str, topic: str) -> int:
        """End the subscriptions of ``user`` to ``topic`` here; returns how many there were."""
        self._gate.forget_admissions()
        return self._site.sessions.unsubscribe(user, topic)

    async def presence(self, topic: str) -> list[Member]:
        """Who is on ``topic`` (declared with ``presence=True``), one ``Member`` for each connection."""
        if not self._gate.find(topic).presence:
            raise DeclarationError(f"the topic {topic!a} has no presence: declare it with presence=True")
        return self._site.presence.members(topic)

    # Looking

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many ``topics``, ``subscriptions`` and ``connections`` there are now."""
        counters = self._hub.stats
        return {
            **{name: getattr(counters, name) for name in counters.__dataclass_fields__},
            "topics": self._hub.topics,
            "subscriptions": self._hub.subscriptions,
            "connections": len(self._site.connections),
            "sessions": len(self._site.sessions),
        }

    # Living

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[Mapping[str, Any]]:
        """Start and stop. The router brings it along.

        In plain Starlette, whose mounted applications have no lifespan of their own, say it yourself: mount a
        ``FastAPI()`` that includes the router, and give ``Starlette(..., lifespan=live.lifespan)``.
        """
        self._started += 1
        if self._started == 1:
            await self._start()
        try:
            yield {f"{STATE_PREFIX}{id(self):x}": self}
        finally:
            self._started -= 1
            if self._started == 0:
                await self._stop()

    def use_clock(self, clock: Clock) -> None:
        """Let everything of this ``Live`` that waits follow ``clock``; for tests, before the first subscription.

        Time stands still between its moves, so messages are then flushed on the next pass of the event loop.
        """
        self._hub.clock = clock
        self._hub.flush_window_s = 0.0
        self._gate.clock = clock
        self._site.use_clock(clock)
        if hasattr(self._broker, "clock"):
            self._broker.clock = clock

    async def _start(self) -> None:
        hide_secrets_in_logs()
        if not self._isolated and not self._broker.shared:
            guard_against_several(logger)
        self._site.draining = False
        await self._hub.start()
        self._soon.start()
        self._runs.start()

    async def _stop(self) -> None:
        await self.drain()
        await self._soon.stop()
        await self._site.sessions.close()
        self._site.presence.close()
        await self._hub.close()
        self._site.pump.close()

    async def drain(self) -> None:
        """End every run and every stream: event streams end, sockets close with 1012, the stubborn are aborted."""
        await self._runs.stop()
        await self._site.drain()


class _Soon:
    """What ``publish_soon`` handed over: a bounded queue and the task that empties it.

    Full: ``publish_soon`` raises, the message is the caller's again.
    """

    def __init__(self, live: Live) -> None:
        self._limit = live.limits.publish_queue_max
        self._queue: deque[Callable[[], Any]] = deque()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task = self._loop.create_task(self._run(self._wake))

    async def stop(self) -> None:
        """Publish what is queued, then end."""
        task, self._task = self._task, None
        with self._lock:
            self._loop = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._publish_queued()

    def put(self, publish: Callable[[], Any]) -> None:
        with self._lock:
            if self._loop is None or self._wake is None or self._loop.is_closed():
                raise NotRunning("publish_soon needs the running application: call it after startup")
            if len(self._queue) >= self._limit:
                raise PublishQueueFull(self._limit)
            was_empty = not self._queue
            self._queue.append(publish)
            if was_empty:
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            await self._publish_queued()

    async def _publish_queued(self) -> None:
        while self._queue:
            publish = self._queue[0]
            try:
                await publish()
            except Exception:
                logger.exception("a message handed to publish_soon could not be published")
            finally:
                self._queue.popleft()
