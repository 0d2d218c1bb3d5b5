"""Take a file of any size: first its size as text, then its chunks as bytes, then "end"."""

import asyncio
import contextlib
import sys

import tidewire as websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


async def store(connection: "websockets.Connection") -> None:
    promised = int(await connection.recv())
    with open("received_file.bin", "wb") as file:
        while isinstance(chunk := await connection.recv(), bytes):
            file.write(chunk)
        outcome = "complete" if file.tell() == promised else "NOT complete"
        print(f"{outcome}: {file.tell()} of {promised} bytes in received_file.bin")
        await connection.send(f"{outcome}: {file.tell()} bytes")


async def main() -> None:
    async with websockets.serve(store, "127.0.0.1", PORT) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main())
