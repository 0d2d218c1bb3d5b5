"""Clients of other libraries, and one by hand, behind one face."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import struct
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import websockets
from websockets.sync.client import connect as connect_sync

MAX_SIZE = 1024 * 1024


class Client(Protocol):
    """What every one of them can do. ``receive`` gives a message, or the close frame as (code, reason)."""

    async def send(self, message: str | bytes) -> None: ...
    async def send_fragments(self, pieces: list[str] | list[bytes]) -> None: ...
    async def receive(self) -> str | bytes | tuple[int, str]: ...
    async def ping(self, data: bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...

    @property
    def subprotocol(self) -> str | None: ...


class WebSockets:
    """``websockets.asyncio``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext | None, **asked: Any) -> WebSockets:
        headers = asked.get("headers")
        options: dict[str, Any] = {"ssl": tls, "origin": asked.get("origin"), "subprotocols": asked.get("subprotocols")}
        return cls(
            await websockets.connect(url, additional_headers=headers, proxy=None, max_size=4 * MAX_SIZE, **options)
        )

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> None:
        await self._connection.send(pieces)

    async def receive(self) -> str | bytes | tuple[int, str]:
        try:
            return await self._connection.recv()
        except websockets.ConnectionClosed:
            return self._connection.close_code, self._connection.close_reason

    async def ping(self, data: bytes) -> None:
        await (await self._connection.ping(data))

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)


class WebSocketsSync(WebSockets):
    """``websockets.sync``, its calls in threads."""

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext | None, **asked: Any) -> WebSocketsSync:
        def connect() -> Any:
            options: dict[str, Any] = {
                "ssl": tls,
                "max_size": 4 * MAX_SIZE,
                "origin": asked.get("origin"),
                "subprotocols": asked.get("subprotocols"),
            }
            return connect_sync(url, additional_headers=asked.get("headers"), proxy=None, **options).__enter__()

        return cls(await asyncio.to_thread(connect))

    async def send(self, message: str | bytes) -> None:
        await asyncio.to_thread(self._connection.send, message)

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> None:
        await asyncio.to_thread(self._connection.send, pieces)

    async def receive(self) -> str | bytes | tuple[int, str]:
        try:
            return await asyncio.to_thread(self._connection.recv)
        except websockets.ConnectionClosed:
            return self._connection.protocol.close_code, self._connection.protocol.close_reason

    async def ping(self, data: bytes) -> None:
        assert await asyncio.to_thread(self._connection.ping(data).wait, 20)

    async def close(self, code: int, reason: str) -> None:
        await asyncio.to_thread(self._connection.close, code, reason)


class AioHttp:
    """``aiohttp``; it sends whole messages only."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext | None, **asked: Any) -> AioHttp:
        session = aiohttp.ClientSession()
        options: dict[str, Any] = {} if tls is None else {"ssl": tls}
        try:
            socket = await session.ws_connect(
                url,
                headers=asked.get("headers"),
                origin=asked.get("origin"),
                protocols=asked.get("subprotocols") or (),
                max_msg_size=4 * MAX_SIZE,
                autoping=False,
                **options,
            )
        except BaseException:
            await session.close()
            raise
        return cls(session, socket)

    @property
    def subprotocol(self) -> str | None:
        return self._socket.protocol

    async def send(self, message: str | bytes) -> None:
        await (self._socket.send_str(message) if isinstance(message, str) else self._socket.send_bytes(message))

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> None:
        await self.send("".join(pieces) if isinstance(pieces[0], str) else b"".join(pieces))  # type: ignore[arg-type]

    async def receive(self) -> str | bytes | tuple[int, str]:
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return message.data
            else:
                await self._session.close()
                assert self._socket.close_code is not None
                return self._socket.close_code, message.extra or ""

    async def ping(self, data: bytes) -> None:
        await self._socket.ping(data)
        message = await self._socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, data)

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())
        await self._session.close()


class ByHand:
    """RFC 6455 on a bare socket: masked frames, and a ping of its own between any two of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, subprotocol: str | None) -> None:
        self._reader = reader
        self._writer = writer
        self.subprotocol = subprotocol
        self._pongs: list[bytes] = []

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext | None, **asked: Any) -> ByHand:
        host, _, path = url.partition("://")[2].partition("/")
        port = int(host.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: keep-alive, Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        lines += [f"{name}: {value}" for name, value in (asked.get("headers") or {}).items()]
        if asked.get("origin"):
            lines.append(f"Origin: {asked['origin']}")
        if asked.get("subprotocols"):
            lines.append(f"Sec-WebSocket-Protocol: {', '.join(asked['subprotocols'])}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("HTTP/1.1 101 "):
            writer.transport.abort()
            raise ConnectionRefusedError(head)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        return cls(reader, writer, fields.get("sec-websocket-protocol"))

    def write(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        """One masked frame (RFC 6455 5.2, 5.3)."""
        size = len(payload)
        head = bytes([(0x80 if fin else 0) | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 1 << 16:
            head += struct.pack("!BH", 0x80 | 126, size)
        else:
            head += struct.pack("!BQ", 0x80 | 127, size)
        mask = os.urandom(4)
        key = int.from_bytes(mask * (size // 4 + 1), "big") >> (8 * ((size // 4 + 1) * 4 - size))
        masked = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
        self._writer.write(head + mask + masked)

    async def send(self, message: str | bytes) -> None:
        self.write(*((1, message.encode()) if isinstance(message, str) else (2, message)))
        await self._writer.drain()

    async def send_fragments(self, pieces: list[str] | list[bytes]) -> None:
        for at, piece in enumerate(pieces):
            raw = piece.encode() if isinstance(piece, str) else piece
            opcode = 0 if at else (1 if isinstance(piece, str) else 2)
            self.write(opcode, raw, fin=at == len(pieces) - 1)
            self.write(9, b"between %d" % at)
        await self._writer.drain()
        self._pongs += [b"between %d" % at for at in range(len(pieces))]

    async def _read(self) -> tuple[int, bool, bytes]:
        first, second = await self._reader.readexactly(2)
        assert not second & 0x80, "servers do not mask"
        assert not first & 0x70, "no extension was agreed on"
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        return first & 0x0F, bool(first & 0x80), await self._reader.readexactly(size)

    async def receive(self) -> str | bytes | tuple[int, str]:
        kind, parts = 0, b""
        while True:
            opcode, fin, payload = await self._read()
            if opcode == 8:
                self.write(8, payload)
                # the server closes the line (RFC 6455 7.1.1)
                assert await self._reader.read() == b""
                self._writer.transport.abort()
                return int.from_bytes(payload[:2] or b"\x03\xed", "big"), payload[2:].decode()
            if opcode == 9:
                self.write(10, payload)
            elif opcode == 10:
                assert payload == self._pongs.pop(0)
            else:
                kind, parts = opcode or kind, parts + payload
                if fin:
                    return parts.decode() if kind == 1 else parts

    async def ping(self, data: bytes) -> None:
        self.write(9, data)
        while self._pongs:
            opcode, _, payload = await self._read()
            assert (opcode, payload) == (10, self._pongs.pop(0))
        assert await self._read() == (10, True, data)

    async def close(self, code: int, reason: str) -> None:
        self.write(8, code.to_bytes(2, "big") + reason.encode())
        opcode, _, payload = await self._read()
        assert (opcode, payload[:2]) == (8, code.to_bytes(2, "big"))
        assert await self._reader.read() == b""
        self._writer.transport.abort()


CLIENTS: dict[str, Callable[..., Any]] = {
    "websockets": WebSockets.open,
    "websockets in threads": WebSocketsSync.open,
    "aiohttp": AioHttp.open,
    "by hand": ByHand.open,
}
