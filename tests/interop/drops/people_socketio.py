"""People with the client of python-socketio; it comes back by itself, and joins the room again."""

from __future__ import annotations

import asyncio
from typing import Any

import socketio

from tests.interop.drops.people import Notes, meet


async def chat(url: str, room: str, notes: Notes) -> None:
    # as soon as the other: what is compared is what is done about the time away, not how long it is
    client = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5)

    @client.event
    async def connect() -> None:
        await client.emit("join", room, callback=notes.arrive)

    @client.event
    async def message(said: dict[str, Any]) -> None:
        notes.take(said)

    await client.connect(url, transports=["websocket"])
    try:
        await asyncio.Event().wait()
    finally:
        await client.shutdown()


if __name__ == "__main__":
    asyncio.run(meet(chat))
