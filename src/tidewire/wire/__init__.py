"""Sockets: frames, an open WebSocket on a transport, and the classes that uvicorn runs.

``uvicorn app:app --ws tidewire.wire:Protocol`` serves any application on our WebSocket class; ``tidewire.run`` and
``tidewire run`` do so by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewire.wire.uvicorn import Protocol

__all__ = ["Protocol"]


def __getattr__(name: str) -> Any:
    """``Protocol`` on first use: it brings uvicorn, which a client does not need."""
    if name == "Protocol":
        from tidewire.wire.uvicorn import Protocol

        return Protocol
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
