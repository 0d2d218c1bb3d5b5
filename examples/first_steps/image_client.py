"""Send a picture as one binary message."""

import asyncio
import sys
from pathlib import Path

import tidewire as websockets

URL = sys.argv[1] if sys.argv[1:] else "ws://127.0.0.1:8765"
PICTURE = Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).with_name("picture.png")


async def main() -> None:
    async with websockets.connect(URL) as connection:
        await connection.send(PICTURE.read_bytes())
        print(f"sent {PICTURE.name}")
        print(f"the server says: {await connection.recv()}")


asyncio.run(main())
