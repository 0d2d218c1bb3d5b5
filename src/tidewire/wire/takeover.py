"""Taking the transport of a stock uvicorn over, for ``Live(takeover=True)``: our wire without a different command.

It reaches into uvicorn's WebSocket class, so it works on the versions it was tested with and on no other, and only
where no middleware stands between. Everywhere else a topic goes on over plain ASGI, and the log says why, once.
``uvicorn --ws tidewire.wire:Protocol`` does the same through a public option and is the better way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.streams import StreamReader

from tidewire.wire.asgi import Receive
from tidewire.wire.frames import Message
from tidewire.wire.open import OpenSocket, Owner, Shared

logger = logging.getLogger("tidewire")

TESTED = ("0.52.1", "0.52.2", "0.52.3", "0.52.4", "0.53.0", "0.54.0")
"""Versions of uvicorn that this was tried with."""

NewOwner = TypeVar("NewOwner", bound=Owner)


class TakeOver:
    """Finds uvicorn's protocol behind an accepted WebSocket, and takes its place on the transport."""

    def __init__(self) -> None:
        # by the set of connections, of which each server has one
        self._shared: dict[int, Shared] = {}
        self._has_complained = False

    def of(self, receive: Receive) -> Callable[[Callable[[OpenSocket], NewOwner]], NewOwner] | None:
        """What hands the socket over that ``receive`` belongs to (see ``wire.asgi``); None where that cannot be."""
        protocol = getattr(receive, "__self__", None)
        if uvicorn.__version__ not in TESTED:
            self._complain(f"uvicorn {uvicorn.__version__} is not one of the tested versions {', '.join(TESTED)}")
        elif type(protocol) is not WebSocketsSansIOProtocol:
            self._complain("this server is no uvicorn with ws=websockets-sansio, or a middleware wraps receive")
        elif not protocol.handshake_complete or protocol.close_sent or not _is_between_messages(protocol):
            # nobody to be taken over, or a client that talks before it has an answer
            return None
        else:
            return lambda make: self._take_over(protocol, make)
        return None

    def _complain(self, why: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning(
                "takeover=True has no effect: %s. Topics work over plain ASGI; for the fast wire serve with "
                "uvicorn app:app --ws tidewire.wire:Protocol",
                why,
            )

    def _take_over(self, protocol: WebSocketsSansIOProtocol, make: Callable[[OpenSocket], NewOwner]) -> NewOwner:
        config, transport = protocol.config, protocol.transport
        shared = self._shared.get(id(protocol.connections))
        if shared is None or shared.loop is not protocol.loop:
            shared = self._shared[id(protocol.connections)] = Shared(protocol.loop, protocol.connections)
        protocol.stop_keepalive()
        protocol.connections.discard(protocol)
        # the application's return closes what it finds here
        protocol.transport = _Nothing()  # type: ignore[assignment]
        socket = OpenSocket(
            transport,
            shared,
            _NOBODY,
            max_size=config.ws_max_size,
            ping_interval_s=config.ws_ping_interval,
            ping_timeout_s=config.ws_ping_timeout,
            extension=next(iter(protocol.conn.extensions), None),
        )
        owner = socket.owner = make(socket)
        if protocol.read_paused:
            # before the owner is given so much that it stops reading
            transport.resume_reading()
        waiting = _take_messages(protocol)
        if waiting:
            owner.received(waiting)
        socket.start()
        return owner


def _is_between_messages(protocol: WebSocketsSansIOProtocol) -> bool:
    """Whether all that has come is whole messages: what has begun to come could not be read on by us."""
    if protocol.frames or protocol.conn.reader.buffer:
        return False
    # the parser has taken a head out of the buffer before the rest is there
    reading: Any = protocol.conn.parser
    while getattr(reading, "gi_yieldfrom", None) is not None:
        reading = reading.gi_yieldfrom
    # where it waits for the next frame
    return getattr(reading, "gi_code", None) is StreamReader.at_eof.__code__


def _take_messages(protocol: WebSocketsSansIOProtocol) -> list[Message]:
    """What was received and the application has not taken."""
    messages: list[Message] = []
    while not protocol.queue.empty():
        event: Any = protocol.queue.get_nowait()
        if event["type"] == "websocket.receive":
            text = event.get("text")
            messages.append(event["bytes"] if text is None else text)
    return messages


class _Nothing:
    """In the place of the transport that was taken."""

    def is_closing(self) -> bool:
        """Nothing can be written."""
        return True

    def close(self) -> None:
        """Nothing is closed."""

    def write(self, data: bytes) -> None:
        """Nothing is written."""


class _Nobody:
    """The owner for the moment before there is one: nothing can come in it."""

    def received(self, messages: list[Message]) -> None:
        """Never called."""

    def ended(self, closed: Any) -> None:
        """Never called."""

    def must_wait(self) -> None:
        """Never called."""

    def may_write(self) -> None:
        """Never called."""


_NOBODY = _Nobody()
