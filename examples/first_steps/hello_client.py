"""Say a name, hear the answer."""

import asyncio
import sys

import tidewire as websockets

URL = sys.argv[1] if sys.argv[1:] else "ws://127.0.0.1:8765"


async def main() -> None:
    async with websockets.connect(URL) as connection:
        await connection.send("Ada")
        print(">>> Ada")
        print(f"<<< {await connection.recv()}")


asyncio.run(main())
