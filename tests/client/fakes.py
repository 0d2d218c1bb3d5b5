"""Servers that a real one must never be: scripted, refusing, silent, cut off, speaking nonsense."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tidewire.client.reconnect import Backoff
from tidewire.client.topic import State
from tidewire.protocol import plain
from tidewire.protocol.message import Kind, Message
from tidewire.protocol.position import Position

Script = Callable[[ServerConnection], Awaitable[None]]
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` with a deadline, so that a hang is a failure with a traceback."""

    async def limited() -> T:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(limited())


def at(offset: int, epoch: str = "a1") -> str:
    return str(Position(epoch, offset))


def quick(**options: float) -> Backoff:
    """Delays of a few milliseconds."""
    return Backoff(**({"initial_s": 0.001, "maximum_s": 0.004} | options), rng=random.Random(1))


class Says:
    """What a topic says on one socket."""

    def __init__(self, socket: ServerConnection, epoch: str = "a1") -> None:
        self.socket = socket
        self.epoch = epoch

    async def header(self, offset: int | None, recovered: bool | None = None, replayed: int = 0) -> None:
        position = None if offset is None else Position(self.epoch, offset)
        await self.socket.send(plain.opened_frame(position, recovered, replayed))

    async def message(self, offset: int, payload: bytes | None = None, kind: Kind = Kind.JSON, **more: Any) -> None:
        payload = str(offset).encode() if payload is None else payload
        await self.socket.send(plain.positions_frame(Message(payload, kind, self.epoch, offset, **more)))

    async def gap(self, start: str, end: int) -> None:
        epoch, offset = start.split(":")
        await self.socket.send(plain.gap_frame(Position(epoch, int(offset)), Position(self.epoch, end)))

    async def end(self, offset: int, error: str | None = None) -> None:
        await self.socket.send(plain.end_frame(Position(self.epoch, offset), error))

    def cut(self) -> None:
        """End without a close frame, as a machine that loses its power."""
        self.socket.transport.abort()


class FakeTopic:
    """A WebSocket server that follows one script per connection; the last script serves all later ones."""

    def __init__(self, *scripts: Script | int, port: int = 0, headers: dict[str, str] | None = None) -> None:
        self.scripts = scripts
        self.port = port
        self.refusal_headers = headers or {}
        # the request of every connection, in order
        self.requests: list[Request] = []
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live/chat/7"

    @property
    def asked(self) -> list[str]:
        """The query of every connection."""
        return [request.path.partition("?")[2] for request in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._follow, "127.0.0.1", self.port, process_request=self._refuse, ping_interval=None, compression=None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _script(self, number: int) -> Script | int:
        return self.scripts[min(number, len(self.scripts) - 1)]

    async def _refuse(self, socket: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        script = self._script(len(self.requests) - 1)
        if not isinstance(script, int):
            socket.script = script  # type: ignore[attr-defined]
            return None
        response = socket.respond(HTTPStatus(script), '{"detail":"says the server"}')
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        response.headers.update(self.refusal_headers)
        return response

    async def _follow(self, socket: ServerConnection) -> None:
        await socket.script(socket)  # type: ignore[attr-defined]


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeTCP:
    """A bare TCP server: ``talk`` gets each connection."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.port = 0
        self.count = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/t"

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.talk(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@dataclass
class Posted:
    """One request that FakeHTTP got."""

    line: str
    headers: dict[str, str]
    body: bytes


class FakeHTTP(FakeTCP):
    """Answers each POST with the next of ``answers`` (whole responses; the last one serves all later requests)."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(self._talk)
        self.answers = answers
        self.posted: list[Posted] = []

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *lines = head.decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.posted.append(Posted(line, headers, body))
            answer = self.answers[min(len(self.posted), len(self.answers)) - 1]
            if not answer:
                return
            writer.write(answer)


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole HTTP response; ``Stream_Next_Offset="a:1"`` is a header."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class States(list[State]):
    """Collects what ``on_state`` is told."""

    @property
    def names(self) -> list[str]:
        return [state.name for state in self]
