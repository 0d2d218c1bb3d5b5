"""Links over plain ASGI: they work on every server, and use our scope extension where it is there.

The extension is ``scope["extensions"]["tidewire"]``, a dict of functions that ``tidewire.wire.uvicorn`` adds:
``abort() -> None`` drops the connection at once, kernel buffers included; ``pending_bytes() -> int`` is what the
transport holds back; and on WebSockets ``ping(data: bytes | None) -> Future[float]``, ``latency_s() -> float``
(of the last answered ping), ``refused() -> bool`` (the server has closed because of what the peer sent), and
``hand_over(make: Callable[[OpenSocket], Owner]) -> Owner`` (``wire.open``): after ``websocket.accept`` the socket is
the owner's, which is told at once what has come already; the application may return, and its task and scope are gone,
while the connection goes on. Without the extension an application cannot abort: it can only return (CONTRACTS 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
CoroutineSend = Callable[[Event], Coroutine[Any, Any, None]]

EXTENSION = "tidewire"
# what frameworks and servers raise for a peer that is gone, where it is no OSError; known by name, because
# this room imports neither
_DISCONNECTS = frozenset({"WebSocketDisconnect", "ClientDisconnected"})


class Link(Protocol):
    """What a connection needs of the wire: four verbs. What the first two raise, ``means_gone`` judges."""

    def write(self, items: Sequence[Any]) -> Coroutine[Any, Any, None]:
        """Write the items of one batch; finishes when the wire has taken them."""

    def write_one(self, item: Any) -> Coroutine[Any, Any, None]:
        """Write a batch of one item: what most deliveries are, and worth a door of its own."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye in the words of the wire. May wait for a reader; give it a deadline."""

    def abort(self) -> bool:
        """Drop the connection at once; False where the server offers no way."""

    def pending_bytes(self) -> int:
        """Bytes written and not yet taken by the kernel; 0 where that is not known."""


def extension_of(scope: Scope) -> dict[str, Callable[..., Any]]:
    """The functions our own server adds; empty on others."""
    found = (scope.get("extensions") or {}).get(EXTENSION)
    return found if isinstance(found, dict) else {}


class _ServerLink:
    """What both links share: the way to the transport, if there is one."""

    __slots__ = ("_extension", "_send")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._extension = extension_of(scope)

    def abort(self) -> bool:
        """Through the extension."""
        abort = self._extension.get("abort")
        if abort is not None:
            abort()
        return abort is not None

    def pending_bytes(self) -> int:
        """Through the extension."""
        pending = self._extension.get("pending_bytes")
        return 0 if pending is None else int(pending())


def means_gone(error: Exception) -> bool:
    """Whether ``error``, raised by a send, says that the peer is gone.

    Servers raise OSError (ASGI, "send to a disconnected client"), frameworks RuntimeError after a close.
    """
    return isinstance(error, OSError | RuntimeError) or type(error).__name__ in _DISCONNECTS


class WebSocketLink(_ServerLink):
    """Items are ready ASGI ``websocket.send`` events, shared by all readers of a batch: one send each."""

    __slots__ = ("listener", "write_one")

    def __init__(self, scope: Scope, send: CoroutineSend) -> None:
        super().__init__(scope, send)
        # the server's or framework's own coroutine, nothing of ours around it
        self.write_one = send
        # the task that waits in ``receive``, if there is one
        self.listener: asyncio.Task[Any] | None = None

    async def write(self, items: Sequence[Event]) -> None:
        """Send each event."""
        for event in items:
            await self.write_one(event)

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame. Nobody listens any more: granian's close waits for a ``receive`` that has begun."""
        if self.listener is not None:
            self.listener.cancel()
            await asyncio.wait([self.listener])
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class StreamLink(_ServerLink):
    """Items are bytes of one HTTP response body, joined into one send. Goodbye is the end of the body."""

    __slots__ = ()

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the response."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write_one(self, item: bytes) -> None:
        """Send the bytes: a batch of events is joined already."""
        await self._send({"type": "http.response.body", "body": item, "more_body": True})

    async def write(self, items: Sequence[bytes]) -> None:
        """Send the joined bytes."""
        await self._send({"type": "http.response.body", "body": b"".join(items), "more_body": True})

    async def close(self, code: int, reason: str) -> None:
        """End the body; code and reason have no place in HTTP."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
