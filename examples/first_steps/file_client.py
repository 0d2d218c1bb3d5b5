"""Send a file of any size in chunks, each a message of its own, so that no side ever holds it whole."""

import asyncio
import sys
from pathlib import Path

import tidewire as websockets

FILE = Path(sys.argv[1])
URL = sys.argv[2] if sys.argv[2:] else "ws://127.0.0.1:8765"
CHUNK_BYTES = 256 * 1024


async def main() -> None:
    async with websockets.connect(URL) as connection:
        await connection.send(str(FILE.stat().st_size))
        with FILE.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                await connection.send(chunk)
        await connection.send("end")
        print(f"sent {FILE.stat().st_size} bytes")
        print(f"the server says: {await connection.recv()}")


asyncio.run(main())
