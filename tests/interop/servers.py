"""Servers of other libraries that all do the same.

Each sends back what it gets, but for these: ``close CODE REASON`` closes so, ``ping`` pings, waits for the pong and
says "pong", ``fragments`` is answered in fragments where the library can, and ``answer`` knows the handshake.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import websockets
from aiohttp import web
from websockets.sync.server import ServerConnection as SyncConnection
from websockets.sync.server import serve as serve_in_threads

PATH = "/a/b?token=c"
MAX_SIZE = 1024 * 1024
SUBPROTOCOLS = ["v2", "v1"]


class Ended:
    """How connections have ended, as the server saw it: code and reason."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[int | None, str]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def note(self, code: int | None, reason: str | None) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.queue.put_nowait, (code, reason or ""))


def answer(message: str, path: str, headers: Any, subprotocol: str | None) -> str | None:
    """What a server says to a question about the handshake; None for everything else."""
    word, _, rest = message.partition(" ")
    answers = {"path": path, "subprotocol": str(subprotocol)}
    return str(headers.get(rest)) if word == "headers" else answers.get(message)


def read_close(message: str) -> tuple[int, str]:
    """Code and reason of a ``close`` command."""
    _, code, reason = message.split(" ", 2)
    return int(code), reason


def speaks(message: str | bytes, word: str) -> bool:
    return isinstance(message, str) and message.split(" ", 1)[0] == word


@asynccontextmanager
async def websockets_server(tls: ssl.SSLContext | None, ended: Ended) -> AsyncIterator[int]:
    """``websockets.asyncio``."""

    async def handler(connection: Any) -> None:
        async for message in connection:
            if speaks(message, "close"):
                await connection.close(*read_close(message))
            elif message == "ping":
                await (await connection.ping())
                await connection.send("pong")
            elif message == "fragments":
                await connection.send(["frag", "", "ments"])
            else:
                said = (
                    answer(message, connection.request.path, connection.request.headers, connection.subprotocol)
                    if isinstance(message, str)
                    else None
                )
                await connection.send(message if said is None else said)

    async def noted(connection: Any) -> None:
        try:
            await handler(connection)
        except websockets.ConnectionClosed:
            pass
        finally:
            await connection.wait_closed()
            ended.note(connection.close_code, connection.close_reason)

    options: dict[str, Any] = {"ssl": tls, "max_size": MAX_SIZE, "subprotocols": SUBPROTOCOLS}
    async with websockets.serve(noted, "127.0.0.1", 0, **options) as server:
        yield server.sockets[0].getsockname()[1]


def _talk_in_thread(connection: SyncConnection) -> None:
    for message in connection:
        if speaks(message, "close"):
            connection.close(*read_close(str(message)))
        elif message == "ping":
            connection.ping().wait()
            connection.send("pong")
        elif message == "fragments":
            connection.send(["frag", "", "ments"])
        else:
            assert connection.request is not None
            said = (
                answer(message, connection.request.path, connection.request.headers, connection.subprotocol)
                if isinstance(message, str)
                else None
            )
            connection.send(message if said is None else said)


@asynccontextmanager
async def websockets_threads(tls: ssl.SSLContext | None, ended: Ended) -> AsyncIterator[int]:
    """``websockets.sync``: a thread for each connection."""

    def handler(connection: SyncConnection) -> None:
        with suppress(websockets.ConnectionClosed):
            _talk_in_thread(connection)
        ended.note(connection.protocol.close_code, connection.protocol.close_reason)

    options: dict[str, Any] = {"ssl": tls, "max_size": MAX_SIZE, "subprotocols": SUBPROTOCOLS}
    server = await asyncio.to_thread(serve_in_threads, handler, "127.0.0.1", 0, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        await asyncio.to_thread(thread.join)


@asynccontextmanager
async def aiohttp_server(tls: ssl.SSLContext | None, ended: Ended) -> AsyncIterator[int]:
    """``aiohttp.web``."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_SIZE, protocols=SUBPROTOCOLS, autoping=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                await socket.send_str("pong")
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif speaks(message.data, "close"):
                code, reason = read_close(message.data)
                await socket.close(code=code, message=reason.encode())
            elif message.data == "ping":
                await socket.ping(b"are you there")
            elif message.data == "fragments":
                # aiohttp sends whole messages only
                await socket.send_str("fragments")
            else:
                said = answer(message.data, request.path_qs, request.headers, socket.ws_protocol)
                await socket.send_str(message.data if said is None else said)
        ended.note(socket.close_code, None)
        return socket

    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


SERVERS: dict[str, Callable[[ssl.SSLContext | None, Ended], Any]] = {
    "websockets": websockets_server,
    "websockets in threads": websockets_threads,
    "aiohttp": aiohttp_server,
}
