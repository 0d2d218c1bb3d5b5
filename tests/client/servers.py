"""Servers that behave badly on purpose, a line that can be swallowed, and certificates, all on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trustme

TIMEOUT_S = 20.0
"""How long a test may take before it fails; nothing is measured with it."""

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test, within its bound, and fail it for what it leaves behind or what goes wrong unseen."""

    async def guarded() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        before = asyncio.all_tasks()
        async with asyncio.timeout(TIMEOUT_S):
            await main
            while left := asyncio.all_tasks() - before:
                # what has been cancelled needs a turn to end; what was forgotten never does
                await asyncio.wait(left)
        assert not problems, problems

    asyncio.run(guarded())


@asynccontextmanager
async def listening(talk: Conversation, port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A bare server; ``talk`` gets each connection. Yields its port; every connection is gone afterwards."""
    talks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        except asyncio.CancelledError:
            # of ours, below: asyncio would report it
            pass
        finally:
            writer.transport.abort()
            talks.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        if talks:
            await asyncio.wait(talks)
        await server.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """The head of a handshake."""
    return await reader.readuntil(b"\r\n\r\n")


async def for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything, say nothing."""
    while await reader.read(1 << 16):
        pass


def saying(answer: bytes) -> Conversation:
    """Read the head, say ``answer``, close well."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await for_ever(reader, writer)

    return talk


def http(status: str, *headers: str, body: bytes = b"") -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def accept_of(head: bytes) -> bytes:
    """The answer that opens the WebSocket (RFC 6455 4.2.2)."""
    (key,) = [
        line.split(b":", 1)[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    ]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")
    return b"\r\n".join((*lines, b"Sec-WebSocket-Accept: " + base64.b64encode(digest))) + b"\r\n\r\n"


def opened(talk: Conversation) -> Conversation:
    """A handshake as it should be, then ``talk``."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept_of(await read_head(reader)))
        await talk(reader, writer)

    return conversation


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, length: int = -1) -> bytes:
    """A server's frame (RFC 6455 5.2); ``length`` may lie."""
    length = len(payload) if length < 0 else length
    first = (0x80 if fin else 0) | opcode
    if length < 126:
        return struct.pack("!BB", first, length) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """A client's frame: opcode, whether it is the last of its message, payload. It must be masked (RFC 6455 5.1)."""
    first, second = await reader.readexactly(2)
    assert second & 0x80, "clients mask"
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(length)
    return first & 0x0F, bool(first & 0x80), bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def read_close(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Read frames until the close frame; its code and reason."""
    while True:
        opcode, _, payload = await read_frame(reader)
        if opcode == 8:
            return int.from_bytes(payload[:2], "big"), payload[2:].decode()


class Line:
    """A proxy in front of a server that can begin to swallow: the half-open peer, sockets open and nobody there."""

    def __init__(self) -> None:
        self.port = 0
        self._swallows = False

    def swallow(self) -> None:
        """From now on nothing gets through, either way; what comes is taken and thrown away."""
        self._swallows = True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if not self._swallows:
                    writer.write(data)
                    await writer.drain()
        if not self._swallows:
            writer.close()

    @classmethod
    @asynccontextmanager
    async def before(cls, port: int) -> AsyncIterator[Line]:
        """Stand before the server at ``port``."""
        line = cls()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(line._pump(reader, back))
                    group.create_task(line._pump(there, writer))
            finally:
                back.transport.abort()

        async with listening(talk) as line.port:
            yield line


@cache
def authority() -> trustme.CA:
    """The certificate authority of these tests."""
    return trustme.CA()


def trusting() -> ssl.SSLContext:
    """A client's context that trusts it."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's context that shows ``certificate``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@cache
def good_certificate() -> trustme.LeafCert:
    """For this machine."""
    return authority().issue_cert("localhost", "127.0.0.1")


def expired_certificate() -> trustme.LeafCert:
    """It was good once."""
    begin, end = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2019, 2020))
    return authority().issue_cert("127.0.0.1", not_before=begin, not_after=end)
