"""A topic's connection on our own wire: no task, no scope, no route; an outbox and an open socket.

The route has run, its dependencies are released, and the socket was handed over (DESIGN 5). A flush writes to many of
these at once; one whose peer does not read queues, and goes on when it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from tidewire.errors import ConnectionClosed
from tidewire.hub.outbox import Batch, Outbox
from tidewire.hub.subscription import Subscription
from tidewire.protocol.codes import shorten_reason
from tidewire.server.connection import GONE, Verdict
from tidewire.server.inbound import TAKES_NONE, Guest, guard
from tidewire.server.site import Site
from tidewire.wire.frames import Message
from tidewire.wire.open import OpenSocket

# what one connection writes of its outbox before others have their turn
_WRITE_BYTES_MAX = 256 * 1024


class Direct:
    """Writes a batch to the transports of many connections (a ``hub.outbox.Carrier``): one call each."""

    __slots__ = ()

    def write(self, writers: Sequence[SocketConnection], batch: Batch) -> list[SocketConnection]:
        """Write to every ready one; returns the others."""
        (data,) = batch.items
        held = []
        for writer in writers:
            if writer.ready:
                writer.transport.write(data)
            else:
                held.append(writer)
        return held


class SocketConnection:
    """Writes what its outbox holds to a socket until a verdict (``server.connection.Connection``).

    It is the socket's owner (``wire.open.Owner``) and its outbox's writer. ``invite``: makes what takes the messages
    that come; None refuses them. Batches have one item: whole frames.
    """

    # a server holds thousands of these
    __slots__ = (
        "_address",
        "_goodbye_said",
        "_guest",
        "_is_scheduled",
        "_site",
        "_socket",
        "_subscribing",
        "_subscription",
        "outbox",
        "ready",
        "transport",
        "verdict",
    )

    carrier: ClassVar[Direct] = Direct()

    def __init__(
        self,
        socket: OpenSocket,
        site: Site,
        address: str,
        invite: Callable[[SocketConnection, OpenSocket], Guest] | None = None,
    ) -> None:
        self._socket = socket
        # what a flush writes to
        self.transport = socket.transport
        self._site = site
        self._address = address
        limits = site.limits
        self.outbox = Outbox(self, bytes_max=limits.outbox_bytes_max, messages_max=limits.outbox_messages_max)
        self.verdict: Verdict | None = None
        # a flush may write past the outbox
        self.ready = socket.writable
        self._is_scheduled = False
        self._goodbye_said = False
        # the task that brings it up to date, and what came of it
        self._subscribing: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._guest = None if invite is None else invite(self, socket)
        site.enter(self, address)

    def follow(self, subscribe: Callable[[], Awaitable[Subscription]]) -> None:
        """Run ``subscribe`` in a task; it is cancelled when the connection ends."""
        if self.verdict is not None:
            return

        async def bring_up_to_date() -> None:
            try:
                self._subscription = await subscribe()
            finally:
                self._subscribing = None

        self._subscribing = asyncio.get_running_loop().create_task(guard(bring_up_to_date, self))

    # The socket's calls

    def received(self, messages: list[Message]) -> None:
        """They are the guest's, where there is one."""
        if self.verdict is not None:
            return
        if self._guest is None:
            self.end(TAKES_NONE)
        else:
            self._guest.take(messages)

    def ended(self, closed: ConnectionClosed) -> None:
        """Nobody is there any more, or both sides have closed."""
        is_own_end = self.verdict is None
        self.verdict = self.verdict or Verdict(GONE)
        self._goodbye_said = True
        self.outbox.close()
        if self._guest is not None:
            self._guest.left(closed.code if is_own_end else None)
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._subscription is not None:
            self._site.hub.unsubscribe(self._subscription)
        self._site.leave(self, self._address)
        # thousands may end at once: nothing that refers to itself is left for the garbage collector
        self._guest = self._subscription = None
        self.outbox.release()

    def must_wait(self) -> None:
        """The outbox queues from now on."""
        self.ready = False

    def may_write(self) -> None:
        """Go on with the outbox."""
        self._write_out()

    # The outbox's writer

    def wake(self) -> None:
        """Something can be written, or something was decided."""
        self.ready = False
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._on_schedule)

    def _on_schedule(self) -> None:
        self._is_scheduled = False
        self._write_out()

    def _write_out(self) -> None:
        """Write the outbox while the peer reads, in pieces; then be ready, or say goodbye."""
        written = 0
        while self._socket.writable:
            batch = self.outbox.take()
            if batch is None:
                break
            self.transport.write(batch.items[0])
            self.outbox.done()
            written += batch.size_bytes
            if written >= _WRITE_BYTES_MAX:
                self.wake()
                return
        if self.outbox.busy:
            return
        if self.verdict is not None:
            self._say_goodbye(self.verdict)
        else:
            self.ready = self._socket.writable

    # The end

    def end(self, verdict: Verdict) -> None:
        """Decide how it ends; the first decision stands. Never waits."""
        if self.verdict is not None:
            return
        self.verdict = verdict
        self.outbox.seal()
        if verdict.abrupt:
            self.outbox.close()
            self._site.hub.clock.call_later(self._site.limits.evict_drain_s, self._give_up)
        self.wake()

    def _say_goodbye(self, verdict: Verdict) -> None:
        """Close as the verdict says, once the peer reads (CONTRACTS 8)."""
        if self._goodbye_said or not self._socket.writable:
            return
        self._goodbye_said = True
        if verdict.last_words is not None:
            self.transport.write(verdict.last_words.items[0])
        self._socket.close(verdict.code, shorten_reason(verdict.reason))
        if not self._socket.pending_bytes():
            self._site.leave(self, self._address)
        elif not verdict.abrupt:
            self._site.hub.clock.call_later(self._site.limits.evict_drain_s, self._give_up)

    def _give_up(self) -> None:
        """A peer that has not taken its goodbye in time is dropped."""
        if not self._goodbye_said or self._socket.pending_bytes():
            self._socket.abort()
        self._site.leave(self, self._address)

    def drop(self) -> None:
        """Whatever was decided, it has taken too long: abort."""
        self.verdict = self.verdict or Verdict(GONE)
        self.outbox.close()
        if self._guest is not None:
            self._guest.left(None)
        self._socket.abort()
        self._site.leave(self, self._address)
