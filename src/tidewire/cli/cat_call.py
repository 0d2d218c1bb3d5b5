"""The receiving half of ``tidewire cat``: connected once or again and again, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tidewire.cli.cat_desk import Desk
from tidewire.cli.cat_options import Wanted
from tidewire.cli.cat_words import count, tell_end, tell_request, tell_response
from tidewire.client.connect import Connecting, Ending, connect
from tidewire.client.reconnect import Advice, ComeBack
from tidewire.client.socket import ClientSocket
from tidewire.errors import ConnectionClosed, ConnectionClosedOK

if TYPE_CHECKING:
    from tidewire.wire.connection import Connection

OK, LOST, TOO_FEW = 0, 3, 4
_CLOSE_TIMEOUT_S = 3.0
_INSECURE = "the certificate is not checked: whoever is on the way can read and change everything"


class Call:
    """Everything that comes, shown. ``on_end`` is awaited when the only connection has ended, before its last word."""

    def __init__(self, wanted: Wanted, desk: Desk, on_end: Callable[[], Awaitable[None]]) -> None:
        self._wanted = wanted
        self._desk = desk
        self._on_end = on_end
        # the latest connection, and whether it is open
        self.connection: Connection | None = None
        self.open = asyncio.Event()
        # how many messages came, and when the last one did (the loop's time)
        self.received = 0
        self.heard_at_s = 0.0
        # what was last said about an ending, so that a long outage is said once
        self._outage = ""

    async def run(self) -> int:
        """Until the server ends it or -n have come; returns the exit code. Raises ``ClientError``."""
        if self._wanted.is_insecure:
            self._desk.say(_INSECURE, "yellow")
        if self._wanted.reconnects:
            async for connection in self._connect():
                if await self._receive_all(connection) is None:
                    break
            return OK
        async with self._connect() as connection:
            closed = await self._receive_all(connection)
        return OK if closed is None else self._judge(closed)

    def count_ok(self) -> int:
        """The exit code of an ending that went well."""
        wanted = self._wanted.count
        if wanted is None or self.received >= wanted:
            return OK
        self._desk.say(f"only {count(self.received, 'message')} of {wanted} came", "yellow")
        return TOO_FEW

    def _connect(self) -> Connecting:
        wanted = self._wanted
        return connect(
            wanted.url,
            headers=wanted.headers,
            origin=wanted.origin,
            subprotocols=wanted.subprotocols,
            ssl=wanted.make_context(),
            close_timeout_s=_CLOSE_TIMEOUT_S,
            policy=self._tell_outage,
        )

    async def _receive_all(self, connection: Connection) -> ConnectionClosed | None:
        """Show what comes on this connection; returns how it ended, or None when -n have come."""
        self._tell_open(connection)
        self.connection = connection
        self.open.set()
        pinging = asyncio.create_task(self._ping(connection))
        try:
            while self.received != self._wanted.count:
                message = await connection.recv()
                self.heard_at_s = asyncio.get_running_loop().time()
                self.received += 1
                await self._desk.show(message)
            return None
        except ConnectionClosed as closed:
            return closed
        finally:
            self.open.clear()
            await stop(pinging)
            if not self._wanted.reconnects:
                await self._on_end()
            await connection.close()
            if self._wanted.is_verbose:
                self._desk.say(f"closed: {connection._link.ended}")

    async def _ping(self, connection: Connection) -> None:
        if self._wanted.ping_s is None:
            return
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._desk.say(f"ping: {await (await connection.ping()) * 1000:.1f} ms")
                await asyncio.sleep(self._wanted.ping_s)

    def _judge(self, closed: ConnectionClosed) -> int:
        if not isinstance(closed, ConnectionClosedOK):
            self._desk.say(tell_end(closed), "bold red")
            return LOST
        if self._desk.can_type and not self._wanted.is_verbose:
            self._desk.say(tell_end(closed))
        return self.count_ok()

    def _tell_open(self, connection: Connection) -> None:
        link = connection._link
        if self._wanted.is_verbose and isinstance(link, ClientSocket):
            for line in (*tell_request(link.request), *tell_response(link.response)):
                self._desk.say(line)
        if self._outage or self._desk.can_type:
            again = " again" if self.connection else ""
            chosen = f" with {connection.subprotocol}" if connection.subprotocol else ""
            self._desk.say(f"connected{again}{chosen}", "green")
        self._outage = ""

    def _tell_outage(self, ending: Ending) -> Advice:
        """Asked by a reconnecting loop what to do: as advised, and it is said."""
        advice = ending.advice
        if advice.come_back not in (ComeBack.STOP, ComeBack.END) and self._outage != advice.reason:
            self._outage = advice.reason
            self._desk.say(f"{advice.reason}: trying to reconnect", "yellow")
        return advice


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel it and wait; what it raised is for who asks for its result."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
