"""Servers of the tests, in a thread with an event loop of its own: TLS of a stranger, and a line that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import websockets

T = TypeVar("T")


@contextmanager
def background(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Hold ``server`` open in a thread; gives what it gives."""
    ready: list[T] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def hold() -> None:
        async with server as value:
            ready.append(value)
            started.set()
            await stop.wait()

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(hold())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(20)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@asynccontextmanager
async def strangers_echo(context: ssl.SSLContext) -> AsyncIterator[int]:
    """An echo by the ``websockets`` library over TLS; gives its port."""

    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, ssl=context) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        yield port


class Line:
    """A TCP proxy: what a network between two programs does. ``cut`` and ``mend`` may be called from any thread."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._is_cut = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection is reset, and new ones are, until ``mend``."""
        self._is_cut.set()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort_all)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut.clear()

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Line]:
        """Listen on ``port`` while the block runs."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._abort_all()
            await server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut.is_set():
            writer.transport.abort()
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        both = {writer, to_writer}
        self._writers |= both
        try:
            await asyncio.gather(_pour(reader, to_writer), _pour(to_reader, writer))
        finally:
            self._writers -= both


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
