"""python-socketio: an ``AsyncServer`` on uvicorn; its clients speak Engine.IO 4 over WebSocket."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.contenders import harness

# by name: it has no types, and is installed for the benchmarks only
socketio: Any = importlib.import_module("socketio")


class EmitPublisher:
    """Publishes by ``emit`` to everybody, which queues one packet for each client."""

    def __init__(self, server: Any) -> None:
        self._server = server

    async def publish(self, message: harness.Message) -> None:
        """Encoded by the library."""
        await self._server.emit("m", message)

    async def settle(self) -> None:
        """Wait until the writer of every client has emptied its queue: without that the queues grow for ever."""
        for client in list(self._server.eio.sockets.values()):
            await client.queue.join()


def make_app() -> Any:
    """The ASGI application of the documentation, WebSocket only, no compression (the same for all)."""
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], http_compression=False)
    commands = harness.lifespan_with(EmitPublisher(server))(None)

    async def start() -> None:
        await commands.__aenter__()

    async def stop() -> None:
        await commands.__aexit__(None, None, None)

    return socketio.ASGIApp(server, on_startup=start, on_shutdown=stop)


if __name__ == "__main__":
    options = harness.parser().parse_args()
    options.server = "uvicorn"
    harness.serve(make_app(), options)
