"""TCP lines that break: a proxy with a port of its own for each client, so that each can be cut by itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

# closing sends a reset, as from a host that has gone: no goodbye on any layer
_RESET = struct.pack("ii", 1, 0)


class Line:
    """Everything that one client sends and gets goes through here. ``port`` is where the client connects to.

    While it is down nobody gets through: who connects is reset at once.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        # connections that go through: the client's end and the server's
        self._pairs: set[tuple[_End, _End]] = set()
        # ends of the server that were not told of a cut
        self._forgotten: set[_End] = set()
        self.is_up = True
        self.port = 0
        self.cuts_n = 0

    async def open(self) -> None:
        """Listen on a free port of this machine."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Knock(self), "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def cut(self, *, silently: bool) -> None:
        """Drop every connection and let nobody through. ``silently``: the server's end stays open, and hears nothing.

        That is how a network is lost: only whoever sends notices, in time.
        """
        self.is_up = False
        self.cuts_n += bool(self._pairs)
        for client, server in list(self._pairs):
            client.reset()
            if silently:
                server.forget()
                self._forgotten.add(server)
            else:
                server.reset()
        self._pairs.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self.is_up = True

    async def close(self) -> None:
        """Drop everything, the forgotten ends too."""
        self.cut(silently=False)
        for server in self._forgotten:
            server.reset()
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()

    async def carry(self, client: _Knock) -> None:
        """A client has come: connect it with the server."""
        try:
            _, server = await asyncio.get_running_loop().create_connection(_End, "127.0.0.1", self._server_port)
        except OSError:
            client.reset()
            return
        if not self.is_up or client.is_gone:
            # cut while it was being connected
            client.reset()
            server.reset()
            return
        client.join(server)
        server.join(client)
        pair = (client, server)
        self._pairs.add(pair)
        client.on_end = server.on_end = lambda: self._pairs.discard(pair)


class _End(asyncio.Protocol):
    """One end of a connection; what comes goes to the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._other: _End | None = None
        # what came before there was another
        self._early: list[bytes] = []
        self._is_forgotten = False
        self.on_end = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def join(self, other: _End) -> None:
        self._other = other
        for data in self._early:
            other.write(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)
        elif not self._is_forgotten:
            self._early.append(data)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.on_end()
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()

    def forget(self) -> None:
        """Stay open without anybody at the other end, and read nothing more."""
        assert self._transport is not None
        self._other, self._is_forgotten = None, True
        self._transport.pause_reading()

    def reset(self) -> None:
        """Gone without a goodbye."""
        if self._transport is not None and not self.is_gone:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._other = None
            self._transport.abort()


class _Knock(_End):
    """The end of a client that has just come."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._line.is_up:
            self._task = asyncio.get_running_loop().create_task(self._line.carry(self))
        else:
            self.reset()


@asynccontextmanager
async def lines_to(server_port: int, n: int) -> AsyncIterator[Sequence[Line]]:
    """``n`` lines to the server at ``server_port``."""
    lines = [Line(server_port) for _ in range(n)]
    try:
        for line in lines:
            await line.open()
        yield lines
    finally:
        for line in lines:
            await line.close()
