"""Store a picture that comes as one binary message."""

import asyncio
import contextlib
import sys
from pathlib import Path

import tidewire as websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


async def store(connection: "websockets.Connection") -> None:
    picture = await connection.recv()
    assert isinstance(picture, bytes), "a picture is binary: send bytes, not str"
    Path("received_file.png").write_bytes(picture)
    print(f"stored received_file.png, {len(picture)} bytes")
    await connection.send(f"received {len(picture)} bytes")


async def main() -> None:
    async with websockets.serve(store, "127.0.0.1", PORT) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main())
