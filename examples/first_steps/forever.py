"""An echo for ever: every message comes back, whoever sends it, until Ctrl-C."""

import asyncio
import contextlib
import sys

import tidewire as websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


async def echo(connection: "websockets.Connection") -> None:
    async for message in connection:
        await connection.send(message)
    print("a client has left")


async def main() -> None:
    async with websockets.serve(echo, "127.0.0.1", PORT) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main())
