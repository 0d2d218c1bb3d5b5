"""The ``websockets`` library: ``broadcast`` to all connections, or an echo."""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from benchmarks.contenders import harness

# ``broadcast`` knows no backpressure: how much may be published before the buffers of all connections are looked at
UNSEEN_BYTES_MAX = 256 * 1024


class BroadcastPublisher:
    """Publishes by ``broadcast``, which writes to every transport and waits for none."""

    def __init__(self) -> None:
        self.connections: set[ServerConnection] = set()
        self._unseen_bytes = 0

    async def handler(self, connection: ServerConnection) -> None:
        """Remember it while it is open."""
        self.connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            self.connections.remove(connection)

    async def publish(self, message: harness.Message) -> None:
        """Encode once, write to all."""
        text = json.dumps(message, separators=(",", ":"))
        self._unseen_bytes += len(text)
        broadcast(self.connections, text)

    async def settle(self) -> None:
        """Look now and then whether somebody's buffer is not empty, and wait for it."""
        if self._unseen_bytes < UNSEEN_BYTES_MAX:
            return
        while any(connection.transport.get_write_buffer_size() for connection in self.connections):
            await asyncio.sleep(0.001)
        self._unseen_bytes = 0


async def echo(connection: ServerConnection) -> None:
    """The echo of its documentation."""
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


async def main(handler: str, port: int) -> None:
    """Serve, answer commands."""
    publisher = BroadcastPublisher()
    chosen = {"broadcast": publisher.handler, "echo": echo}[handler]
    async with serve(chosen, "127.0.0.1", port, compression=None, backlog=4096):
        await harness.Driver(publisher).run()


if __name__ == "__main__":
    parser = harness.parser()
    parser.add_argument("--handler", choices=("broadcast", "echo"), required=True)
    options = parser.parse_args()
    harness.run_in_loop(main(options.handler, options.port), options.loop)
