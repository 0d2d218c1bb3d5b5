"""An application under test, without a port: subscribe, wait for what comes, cut the line, stop reading."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.types import Message as Event

from tidewire.app import Live
from tidewire.client.envelope import Header, Item, Lost, parse_envelope
from tidewire.client.errors import TopicFailed
from tidewire.client.resume import Received, Tracker
from tidewire.errors import TidewireError
from tidewire.server.handler import STATE_PREFIX
from tidewire.server.router import TOPIC_ROUTE
from tidewire.testing.clock import ManualClock
from tidewire.testing.lifespan import Lifespan


class ProbeTimeout(TidewireError, AssertionError):
    """Nothing came in time. Attributes: ``topic`` (str), ``timeout_s`` (float)."""

    def __init__(self, topic: str, timeout_s: float) -> None:
        self.topic = topic
        self.timeout_s = timeout_s
        super().__init__(f"nothing came on {topic!a} within {timeout_s:g} s")


class ProbeRefused(TidewireError):
    """The application refused. Attributes: ``status`` (int, 0 without one), ``detail`` (str)."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"refused with {status}: {detail}")


class Probe:
    """Use it as ``async with Probe(app) as probe``; it runs the application's lifespan.

    ``prefix``: where the router is included; found by itself unless the application hides it. ``headers`` and
    ``query`` go with every subscription. ``clock``: ``probe.clock`` unless one is given; it drives everything of
    Tidewire's that waits, so ``probe.clock.advance(1)`` is how a second passes.
    """

    def __init__(
        self,
        app: Any,
        *,
        prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.app = app
        self.clock = clock or ManualClock()
        self._prefix = prefix
        self._headers = dict(headers or {})
        self._query = dict(query or {})
        self._stack = AsyncExitStack()
        self._readers: dict[str, ProbeReader] = {}
        self._state: dict[str, Any] = {}
        self.lives: list[Live] = []

    async def __aenter__(self) -> Probe:
        self._state = await self._stack.enter_async_context(Lifespan(self.app))
        self.lives = [value for name, value in self._state.items() if name.startswith(STATE_PREFIX)]
        for live in self.lives:
            live.use_clock(self.clock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers.values():
            await reader.close()
        await self._stack.__aexit__(kind, error, trace)

    async def subscribe(
        self,
        topic: str,
        *,
        since: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ProbeReader:
        """Follow ``topic`` from now on (or ``since`` a position, or "-1"). Raises ``ProbeRefused``.

        One reader per topic is ``probe.next``'s; call it again for more readers, and use what it returns.
        """
        reader = ProbeReader(self, topic, since, {**self._query, **(query or {})}, {**self._headers, **(headers or {})})
        await reader.connect()
        self._readers.setdefault(topic, reader)
        self._stack.push_async_callback(reader.close)
        return reader

    async def next(self, topic: str, *, timeout_s: float = 1.0) -> Received:
        """The next message of ``topic``; the first call follows it from everything that is kept.

        After ``drop`` it comes back with its position, and what it missed follows. Raises ``ProbeTimeout``,
        ``ProbeRefused``, and ``StopAsyncIteration`` when the topic is finished.
        """
        reader = self._readers.get(topic)
        if reader is None:
            reader = await self.subscribe(topic, since="-1")
        return await reader.next(timeout_s=timeout_s)

    def drop(self, topic: str | None = None) -> None:
        """Cut the line without a word, of ``topic`` or of all; ``next`` comes back."""
        for reader in self._chosen(topic):
            reader.drop()

    def stall(self, topic: str | None = None) -> None:
        """Stop reading, of ``topic`` or of all, as a client does that hangs; ``resume`` reads again."""
        for reader in self._chosen(topic):
            reader.stall()

    def resume(self, topic: str | None = None) -> None:
        """Read again."""
        for reader in self._chosen(topic):
            reader.resume()

    def _chosen(self, topic: str | None) -> list[ProbeReader]:
        return list(self._readers.values()) if topic is None else [self._readers[topic]]

    def scope_for(self, topic: str, query: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        """The ASGI scope of a WebSocket handshake for ``topic``."""
        path = f"{self._find_prefix()}/{topic}"
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 50000),
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [(b"host", b"127.0.0.1"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
            "subprotocols": [],
            "state": dict(self._state),
            "extensions": {"websocket.http.response": {}},
        }

    def _find_prefix(self) -> str:
        if self._prefix is None:
            url = self.app.url_path_for(TOPIC_ROUTE, topic="x") if isinstance(self.app, FastAPI) else "/x"
            self._prefix = str(url).removesuffix("/x")
        return self._prefix


class ProbeReader:
    """One client of the application, connected by function calls."""

    def __init__(
        self, probe: Probe, topic: str, since: str | None, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> None:
        self.topic = topic
        self._probe = probe
        self._query = query
        self._headers = headers
        self._tracker = Tracker(since)
        self._task: asyncio.Task[None] | None = None
        # what the application sends, and what it receives
        self._out: asyncio.Queue[Event] = asyncio.Queue()
        self._in: asyncio.Queue[Event] = asyncio.Queue()
        # cleared while the client does not read: then the application's send does not return
        self._reading = asyncio.Event()
        self._reading.set()
        # the header of the present connection, and the close code of the last one
        self.header: Header | None = None
        self.close_code: int | None = None
        self.close_reason = ""

    async def connect(self) -> None:
        """Open a connection; raises ``ProbeRefused``."""
        query = {"positions": "1", **self._query}
        if self._tracker.since is not None:
            query["since"] = self._tracker.since
        self._out, self._in = asyncio.Queue(), asyncio.Queue()
        self.close_code = None
        self._in.put_nowait({"type": "websocket.connect"})
        scope = self._probe.scope_for(self.topic, query, self._headers)
        self._task = asyncio.create_task(self._probe.app(scope, self._in.get, self._send(self._out)))
        self._task.add_done_callback(lambda _: self._out.put_nowait({"type": "probe.end"}))
        event = await self._out.get()
        if event["type"] != "websocket.accept":
            await self._raise_refused(event)
        # the opening says where it stands; a client that has not read it could not come back
        event = await self._out.get()
        if event["type"] == "websocket.send":
            self._take(event)

    def _send(self, out: asyncio.Queue[Event]) -> Any:
        async def send(event: Event) -> None:
            await self._reading.wait()
            if out is not self._out:
                raise OSError("the client has gone")
            out.put_nowait(event)

        return send

    async def _raise_refused(self, event: Event) -> None:
        status, detail = int(event.get("status", 403)), str(event.get("reason", ""))
        while event["type"] not in {"probe.end", "websocket.close"}:
            event = await self._out.get()
            detail += bytes(event.get("body", b"")).decode()
        await self.close()
        raise ProbeRefused(status, detail)

    async def next(self, *, timeout_s: float = 1.0) -> Received:
        """The next message; comes back first if the line was cut. Real seconds bound the wait."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    received = await self._step()
                    if received is not None:
                        return received
        except TimeoutError:
            raise ProbeTimeout(self.topic, timeout_s) from None

    async def _step(self) -> Received | None:
        if self._task is None:
            await self.connect()
        event = await self._out.get()
        if event["type"] == "websocket.send":
            return self._take(event)
        if event["type"] == "websocket.close":
            self.close_code, self.close_reason = event["code"], event.get("reason", "")
        if event["type"] == "probe.end":
            await self.close()
            if self.close_code == 1000:
                raise StopAsyncIteration
        return None

    def _take(self, event: Event) -> Received | None:
        envelope = parse_envelope(event["text"])
        if isinstance(envelope, Header):
            self.header = envelope
            self._tracker.begin(envelope)
        elif isinstance(envelope, Lost):
            self._tracker.lose(envelope)
        elif isinstance(envelope, Item):
            return self._tracker.take(envelope)
        elif envelope.error is not None:
            raise TopicFailed(self.topic, envelope.error, self._tracker.since)
        return None

    async def send(self, frame: str | bytes) -> None:
        """Publish from the client's side, as a frame."""
        self._in.put_nowait({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    def drop(self) -> None:
        """Cut the line: what was not read is lost with it."""
        self._out = asyncio.Queue()
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self._reading.set()
        self._task = None

    def stall(self) -> None:
        """Stop reading."""
        self._reading.clear()

    def resume(self) -> None:
        """Read again."""
        self._reading.set()

    async def close(self) -> None:
        """Leave; called twice is nothing."""
        task, self._task = self._task, None
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})
        self._reading.set()
        if task is not None:
            await asyncio.wait([task])
