"""``serve``: a server of raw connections in the event loop that is there, as ``websockets`` has it (CONTRACTS 10)."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from tidewire.limits import RAW_MESSAGE_BYTES_MAX
from tidewire.server.handler import Handler, Handlers
from tidewire.server.run import Server as Runner
from tidewire.server.run import bind, make_config, url_of
from tidewire.wire.connection import Connection


def serve(
    handler: Handler | Mapping[str, Handler],
    host: str | None = "127.0.0.1",
    port: int | None = None,
    *,
    ssl: tls.SSLContext | None = None,
    origins: Sequence[str | None] | None = None,
    subprotocols: Sequence[str] = (),
    compression: Literal["deflate"] | None = None,
    max_size: int = RAW_MESSAGE_BYTES_MAX,
    ping_interval_s: float = 20.0,
    ping_timeout_s: float = 20.0,
) -> Serving:
    """Serve ``handler`` to everybody who connects, until the block ends or ``close`` is called.

    ::

        async def echo(connection):
            async for message in connection:
                await connection.send(message)

        async with serve(echo, port=8765) as server:
            await server.serve_forever()

    ``handler``: an async function of one ``Connection``, or a mapping of paths to such functions. When it returns the
    connection is closed with 1000; when it raises, with 1011, the traceback is logged, and the server lives on.
    ``host``: "" or None for every address this machine has. ``port``: 0 for a free one, the same on every address.
    ``ssl``: a server's context makes it ``wss``. ``origins``: pages of other sites that may connect, as browsers send
    them, "*" for all; programs that send no Origin may always. ``subprotocols``: the first of these that the client
    offers. ``compression="deflate"``: compress messages with clients that offer it (RFC 7692); it saves bytes and costs
    time and memory. ``max_size``: bytes of one message, inflated; a larger one closes with 1009, naming both numbers.
    ``ping_interval_s``, ``ping_timeout_s``: a peer that answers no ping is dropped.

    No signal is handled here (``run`` does). Raises ``ValueError`` without a port; entering or awaiting it raises
    ``AddressInUse``.
    """
    if port is None:
        raise ValueError("say where to listen: port=8000, or port=0 for a free one")
    app = Handlers(handler, host=host or "", origins=origins, subprotocols=subprotocols, max_size=max_size)
    options: dict[str, object] = {
        "ws_max_size": max_size,
        "ws_per_message_deflate": compression == "deflate",
        "ws_ping_interval": ping_interval_s,
        "ws_ping_timeout": ping_timeout_s,
        # whoever embeds a server has set up logging, or does not want any
        "log_config": None,
        "access_log": False,
        "log_level": None,
    }
    return Serving(app, host, port, ssl, options)


class Serving:
    """What ``serve`` gives: ``async with`` it, or ``await`` it for the ``Server``."""

    def __init__(
        self, app: Handlers, host: str | None, port: int, ssl: tls.SSLContext | None, options: dict[str, object]
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._ssl = ssl
        self._options = options
        self._server: Server | None = None

    def __await__(self) -> Generator[object, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.close()

    async def _start(self) -> Server:
        config = make_config(self._app, **self._options)
        config.load()
        config.ssl = self._ssl
        sockets = bind(self._host, self._port)
        server = Server(self._app, Runner(config, signals=False), sockets, self._host, is_secure=bool(self._ssl))
        try:
            await server._start()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self._server = server
        return server


class Server:
    """A running server; made by ``serve``."""

    def __init__(
        self, app: Handlers, runner: Runner, sockets: list[socket.socket], host: str | None, *, is_secure: bool
    ) -> None:
        self.sockets = tuple(sockets)
        """The listening sockets, one for each address."""
        self.port: int = sockets[0].getsockname()[1]
        """The port it listens on, the same on every address."""
        scheme = "wss" if is_secure else "ws"
        # a certificate is for a name
        is_name = is_secure and host and not _is_address(host)
        self.url = f"{scheme}://{host}:{self.port}" if is_name else url_of(sockets[0], scheme)
        """Where a client of this machine connects, e.g. ``ws://127.0.0.1:8765``."""
        self._app = app
        self._runner = runner
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connections(self) -> set[Connection]:
        """The connections that are open now."""
        return self._app.connections

    def is_serving(self) -> bool:
        """Whether it still accepts."""
        return self._task is not None and not self._task.done() and not self._runner.should_exit

    async def _start(self) -> None:
        self._task = asyncio.create_task(self._runner.serve(sockets=list(self.sockets)))
        started = asyncio.create_task(self._runner.wait_listening())
        try:
            await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            # the way it always ends: a cancelled start would leave uvicorn's lifespan behind
            self._runner.stop()
            await asyncio.wait([self._task])
            raise
        finally:
            started.cancel()
        if self._task.done():
            await self._task

    async def serve_forever(self) -> None:
        """Wait until the server is closed. Cancelling this closes it, and waits until it has."""
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            await self.close()
            raise

    def close(self) -> asyncio.Future[None]:
        """Stop: no new connections, 1001 to the open ones, a few seconds for handlers to end, then they are cancelled.

        Await what it returns, or ``wait_closed()``, to know that everything has ended. Closing twice is nothing.
        """
        assert self._task is not None
        self._runner.stop()
        return asyncio.shield(self._task)

    async def wait_closed(self) -> None:
        """Return when the server has ended."""
        assert self._task is not None
        await asyncio.shield(self._task)


def _is_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True
