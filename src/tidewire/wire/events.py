"""What an ASGI application receives of an open WebSocket: its owner, as long as it was not handed over."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tidewire.errors import ConnectionClosed
from tidewire.wire.frames import Assembler, Message, Part
from tidewire.wire.open import OpenSocket

Event = dict[str, Any]

# what may wait for the application before reading stops, and where it begins again
_MESSAGES_MAX = 32
_MESSAGES_LOW = 8
_BYTES_MAX = 1024 * 1024


class Events:
    """A queue of ASGI events, and an owner of a socket (``wire.open.Owner``) that fills it.

    Full: the socket stops reading until the application has taken most of it.
    """

    def __init__(self) -> None:
        # the open socket, once it was accepted
        self.socket: OpenSocket | None = None
        # how the connection ended, once it has
        self.closed: ConnectionClosed | None = None
        # the last event, which is received again and again
        self.goodbye: Event | None = None
        self._waiting: deque[Event] = deque([{"type": "websocket.connect"}])
        self._waiting_bytes = 0
        self._assembler: Assembler | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def received(self, messages: list[Message]) -> None:
        """Make events of messages; what comes after the application has closed is dropped."""
        if self.goodbye is not None:
            return
        for message in messages:
            if isinstance(message, Part):
                self._assembler = self._assembler or Assembler()
                whole = self._assembler.add(message)
                if whole is None:
                    continue
                message = whole
            self._waiting_bytes += len(message)
            kind = "text" if isinstance(message, str) else "bytes"
            self._waiting.append({"type": "websocket.receive", kind: message})
        if len(self._waiting) >= _MESSAGES_MAX or self._waiting_bytes >= _BYTES_MAX:
            assert self.socket is not None, "messages come from a socket"
            self.socket.pause_reading()
        self._news.set()

    def ended(self, closed: ConnectionClosed) -> None:
        """The last event says how it ended."""
        self.closed = closed
        close = closed.rcvd or closed.sent
        self.say_goodbye(1006 if close is None else close.code, "" if close is None else close.reason)
        self._room.set()

    def must_wait(self) -> None:
        """Whoever sends looks at the socket."""

    def may_write(self) -> None:
        """Whoever sends goes on."""
        self._room.set()

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """What waits is received, then this. The first goodbye stands."""
        if self.goodbye is None:
            self.goodbye = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._news.set()

    async def receive(self) -> Event:
        """ASGI's: the next event; after the last one, that one again."""
        while not self._waiting:
            if self.goodbye is not None:
                return self.goodbye
            self._news.clear()
            await self._news.wait()
        event = self._waiting.popleft()
        if event["type"] == "websocket.receive":
            self._waiting_bytes -= len(_message_of(event))
            if self.socket is not None and len(self._waiting) <= _MESSAGES_LOW and self._waiting_bytes < _BYTES_MAX:
                self.socket.resume_reading()
        return event

    async def wait_for_room(self) -> None:
        """Return when the socket can be written to, or has ended."""
        while self.socket is not None and not self.socket.writable and self.closed is None:
            self._room.clear()
            await self._room.wait()

    def take_messages(self) -> list[Message]:
        """Everything that was not received yet, for somebody else: the application has heard the last."""
        messages: list[Message] = [_message_of(one) for one in self._waiting if one["type"] == "websocket.receive"]
        if self._assembler is not None:
            messages += self._assembler.take()
        self._waiting.clear()
        self.say_goodbye(1005)
        return messages


def _message_of(event: Event) -> Any:
    text = event.get("text")
    return event["bytes"] if text is None else text
