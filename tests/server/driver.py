"""Drive an ASGI application by hand: one HTTP request or one WebSocket, no port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI

from tests.protocol.test_plain import parse_events
from tidewire import Live
from tidewire.testing.lifespan import Lifespan


class _Call:
    """What both kinds of call share: the queue to the application, and waiting for what it sends."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.scope: dict[str, Any] = {}
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # cleared: the client does not read, and the application's send does not return
        self.reading = asyncio.Event()
        self.reading.set()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._app(self.scope, self._to_app.get, self._send))
        self._task.add_done_callback(lambda _: self._news.set())

    async def _send(self, event: dict[str, Any]) -> None:
        await self.reading.wait()
        self.take(event)
        self._news.set()

    def take(self, event: dict[str, Any]) -> None:
        """Note what the application sent."""

    @property
    def over(self) -> bool:
        """Whether the application has returned."""
        return self._task is not None and self._task.done()

    async def until(self, condition: Callable[[Any], object]) -> None:
        """Wait until ``condition(self)`` holds."""
        async with asyncio.timeout(5):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def finished(self) -> None:
        """Wait until the application has returned."""
        assert self._task is not None
        async with asyncio.timeout(5):
            await asyncio.wait([self._task])


class HttpCall(_Call):
    """One HTTP request; ``body_so_far`` grows as the application sends."""

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        host: str = "test",
        client: str = "10.0.0.1",
    ) -> None:
        super().__init__(app)
        path, _, query = path.partition("?")
        given = {"host": host, **(headers or {})}
        if body and "content-length" not in given:
            given["content-length"] = str(len(body))
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in given.items()],
            "client": (client, 1234),
            "server": (host, 80),
            "state": {},
        }
        self._to_app.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body_so_far = b""
        self.complete = False

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {k.decode(): v.decode() for k, v in event["headers"]}
        else:
            self.body_so_far += event.get("body", b"")
            self.complete = not event.get("more_body", False)

    def begin(self) -> HttpCall:
        self._start()
        return self

    async def run(self) -> HttpCall:
        """To the end of the response; raises what the application raises."""
        self.begin()
        await self.finished()
        assert self._task is not None
        self._task.result()
        return self

    async def disconnect(self) -> None:
        self._to_app.put_nowait({"type": "http.disconnect"})
        await self.finished()

    @property
    def json(self) -> Any:
        return json.loads(self.body_so_far)

    @property
    def events(self) -> list[dict[str, str]]:
        return parse_events(self.body_so_far.decode())


async def request(app: Any, method: str, path: str, **options: Any) -> HttpCall:
    """One request, to its end."""
    return await HttpCall(app, method, path, **options).run()


class SocketCall(_Call):
    """One WebSocket; ``frames`` grows as the application sends."""

    def __init__(self, app: Any, path: str, *, headers: Mapping[str, str] | None = None, host: str = "test") -> None:
        super().__init__(app)
        self.scope = {
            **HttpCall(app, "GET", path, headers=headers, host=host).scope,
            "type": "websocket",
            "scheme": "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        del self.scope["method"]
        self.accepted = False
        self.status = 0
        self.denial = b""
        self.frames: list[str | bytes] = []
        self.close_code: int | None = None
        self.close_reason = ""

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self.accepted = True
        elif kind == "websocket.send":
            self.frames.append(event["text"] if event.get("text") is not None else event["bytes"])
        elif kind == "websocket.close":
            self.close_code, self.close_reason = event["code"], event.get("reason", "")
        elif kind == "websocket.http.response.start":
            self.status = event["status"]
        else:
            self.denial += event.get("body", b"")

    def send(self, frame: str | bytes) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", key: frame})

    async def open(self) -> SocketCall:
        """Until it is accepted or refused."""
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._start()
        await self.until(lambda self: self.accepted or self.over)
        return self

    async def closed(self) -> None:
        await self.finished()

    async def leave(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.finished()

    @property
    def envelopes(self) -> list[Any]:
        return [json.loads(frame) for frame in self.frames]


Declare = Callable[[Live], None]
Scenario = Callable[[FastAPI, Live], Awaitable[None]]


def play_with(declare: Declare, scenario: Scenario, **options: Any) -> None:
    """Run ``scenario`` against an application with these topics, its lifespan around it."""

    async def run() -> None:
        live = Live(**options)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        async with Lifespan(app):
            await scenario(app, live)

    asyncio.run(run())
