"""Links over plain ASGI: they work on every server, and use our scope extension where it is there.

The extension is ``scope["extensions"]["tidewire"]``, a dict of two functions that ``tidewire.wire.uvicorn`` adds:
``abort() -> None`` drops the connection at once, kernel buffers included; ``pending_bytes() -> int`` is what the
transport holds back. Without it an application cannot abort: it can only return (CONTRACTS 8).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

EXTENSION = "tidewire"
# what frameworks and servers raise for a peer that is gone, where it is no OSError; known by name, because
# this room imports neither
_DISCONNECTS = frozenset({"WebSocketDisconnect", "ClientDisconnected"})


class PeerGone(Exception):
    """The peer, or the server under us, has closed the connection."""


class Link(Protocol):
    """What a connection needs of the wire: four verbs."""

    async def write(self, items: Iterable[Any]) -> None:
        """Write the items of one batch; returns when the wire has taken them. Raises ``PeerGone``."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye in the words of the wire. May wait for a reader; give it a deadline. Raises ``PeerGone``."""

    def abort(self) -> bool:
        """Drop the connection at once; False where the server offers no way."""

    def pending_bytes(self) -> int:
        """Bytes written and not yet taken by the kernel; 0 where that is not known."""


def _extension(scope: Scope) -> dict[str, Callable[[], Any]]:
    found = (scope.get("extensions") or {}).get(EXTENSION)
    return found if isinstance(found, dict) else {}


class _ServerLink:
    """What both links share: the way to the transport, if there is one."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._extension = _extension(scope)

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

    async def _deliver(self, event: Event) -> None:
        try:
            await self._send(event)
        except Exception as error:
            _raise_gone(error)
            raise


def _raise_gone(error: Exception) -> None:
    """Turn what servers and frameworks raise for a peer that is gone into ``PeerGone``.

    Servers raise OSError (ASGI, "send to a disconnected client"), frameworks RuntimeError after a close.
    """
    if isinstance(error, OSError | RuntimeError) or type(error).__name__ in _DISCONNECTS:
        raise PeerGone from error


class WebSocketLink(_ServerLink):
    """Items are ready ASGI ``websocket.send`` events, shared by all readers of a batch: one send each."""

    async def write(self, items: Iterable[Event]) -> None:
        """Send each event; spelled out, because every delivery goes through here."""
        send = self._send
        try:
            for event in items:
                await send(event)
        except Exception as error:
            _raise_gone(error)
            raise

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame."""
        await self._deliver({"type": "websocket.close", "code": code, "reason": reason})


class StreamLink(_ServerLink):
    """Items are bytes of one HTTP response body, joined into one send. Goodbye is the end of the body."""

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the response."""
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, items: Iterable[bytes]) -> None:
        """Send the joined bytes."""
        await self._deliver({"type": "http.response.body", "body": b"".join(items), "more_body": True})

    async def close(self, code: int, reason: str) -> None:
        """End the body; code and reason have no place in HTTP."""
        await self._deliver({"type": "http.response.body", "body": b"", "more_body": False})
