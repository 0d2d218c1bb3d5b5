"""Sockets: frames, an open WebSocket on a transport, and the classes that uvicorn runs.

``uvicorn app:app --ws tidewire.wire:Protocol --http tidewire.wire:HttpProtocol`` serves any application on our
classes; ``tidewire.run`` and ``tidewire run`` do so by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewire.wire.http import HttpProtocol
    from tidewire.wire.uvicorn import Protocol

__all__ = ["HttpProtocol", "Protocol"]


def __getattr__(name: str) -> Any:
    """The classes on first use: they bring uvicorn, which a client does not need."""
    if name == "Protocol":
        from tidewire.wire.uvicorn import Protocol

        return Protocol
    if name == "HttpProtocol":
        from tidewire.wire.http import HttpProtocol

        return HttpProtocol
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
