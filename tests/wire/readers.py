"""Many healthy readers in one event loop: they parse what they get by hand, and keep the numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.wire.frames import CLOSE, split, upgrade
from tests.wire.servers import PATIENCE_S, Server, chunks_of


class Reader(asyncio.Protocol):
    """Follows a topic; ``numbers`` are the ``n`` of its messages, ``ended`` how the line ended."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.live = asyncio.Event()
        self.numbers: list[int] = []
        self.close: tuple[int, str] | None = None
        self.ended: str | None = None
        self.unparsed = b""
        self._news = asyncio.Event()
        self._head = True
        self._transport: asyncio.Transport | None = None

    @property
    def request(self) -> bytes:
        raise NotImplementedError

    def parse(self) -> None:
        raise NotImplementedError

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.unparsed += data
        if self._head:
            head, found, rest = self.unparsed.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.split()[1] in {b"101", b"200"}, head
            self._head, self.unparsed = False, rest
        self.parse()
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = "closed" if error is None else "reset"
        self._news.set()

    async def until(self, condition: Callable[[Reader], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                assert self.ended is None, (self.topic, self.ended, self.close, len(self.numbers))
                self._news.clear()
                await self._news.wait()

    async def until_ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.ended is None:
                self._news.clear()
                await self._news.wait()

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class WebSocketReader(Reader):
    """With positions: the first frame says that it is live."""

    @property
    def request(self) -> bytes:
        return upgrade(f"/live/{self.topic}?positions=1")

    def parse(self) -> None:
        frames, self.unparsed = split(self.unparsed)
        for frame in frames:
            if frame.opcode == CLOSE:
                self.close = frame.close
                continue
            said = json.loads(frame.payload)
            if "data" in said:
                self.numbers.append(said["data"]["n"])
            else:
                assert "recovered" in said, said
                self.live.set()


class EventReader(Reader):
    """An event stream; ``whole`` once the last chunk has come, so that nobody takes a cut line for an end."""

    whole = False

    @property
    def request(self) -> bytes:
        return f"GET /live/{self.topic} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n".encode()

    def parse(self) -> None:
        chunks = chunks_of(self.unparsed)
        for chunk in chunks:
            self.unparsed = self.unparsed[len(b"%x" % len(chunk)) + len(chunk) + 4 :]
            self.whole = self.whole or not chunk
            if b"event: position" in chunk:
                self.live.set()
            self.numbers += [json.loads(line[6:])["n"] for line in chunk.splitlines() if line.startswith(b'data: {"n"')]


@contextmanager
def leaving(readers: list[Reader]) -> Iterator[None]:
    try:
        yield
    finally:
        for reader in readers:
            reader.leave()


async def connect(server: Server, readers: list[Reader]) -> None:
    """Until all of them are live."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_S):
        for reader in readers:
            await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", server.port)
        for reader in readers:
            await reader.live.wait()


async def all_have(readers: list[Reader], count: int) -> None:
    """Until each has so many messages."""
    for reader in readers:
        await reader.until(lambda reader: len(reader.numbers) >= count)
