"""Tell me your name. Ctrl-C stops the server."""

import asyncio
import contextlib
import sys

import tidewire as websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


async def hello(connection: "websockets.Connection") -> None:
    name = await connection.recv()
    print(f"<<< {name}")
    await connection.send(f"Hello {name}!")
    print(f">>> Hello {name}!")


async def main() -> None:
    async with websockets.serve(hello, "127.0.0.1", PORT) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main())
