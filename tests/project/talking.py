"""A session by hand, for the programs of our documents: JSON over a WebSocket, one command at a time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import tidewire


class Talk:
    """``await talk.ask(subscribe={...})`` is the result of a command, or its error; ``pushes`` came in between."""

    def __init__(self, connection: tidewire.Connection) -> None:
        self._connection = connection
        self._last_id = 0
        # what the server said to the connect command
        self.welcome: Any = None
        self.pushes: list[dict[str, Any]] = []

    async def ask(self, **command: Any) -> Any:
        self._last_id += 1
        ((name, _),) = command.items()
        await self._connection.send(json.dumps({"id": self._last_id, **command}))
        while True:
            for reply in await self._read():
                if reply.get("id") == self._last_id:
                    return reply["error"] if "error" in reply else reply.get(name, {})

    async def tell(self, data: Any) -> None:
        """Send data without an answer."""
        await self._connection.send(json.dumps({"send": {"data": data}}))

    async def push(self, kind: str) -> Any:
        """The next push of a kind that was not taken yet: ``pub``, ``join``, ``message``."""
        while True:
            for at, push in enumerate(self.pushes):
                if kind in push:
                    return self.pushes.pop(at)[kind]
            await self._read()

    async def _read(self) -> list[dict[str, Any]]:
        frame = await self._connection.recv()
        packets = [json.loads(line) for line in str(frame).split("\n")]
        self.pushes += [packet["push"] for packet in packets if "push" in packet]
        return [packet for packet in packets if "id" in packet]


@asynccontextmanager
async def talking(url: str, *, headers: dict[str, str] | None = None, **connect: Any) -> AsyncIterator[Talk]:
    """A session at ``url`` (that of the router), connected; ``welcome`` is what the server said."""
    async with tidewire.connect(f"{url}/-/session", headers=headers or {}) as connection:
        talk = Talk(connection)
        talk.welcome = await talk.ask(connect=connect)
        yield talk
