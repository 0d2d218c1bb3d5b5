"""Push and receive at once: two tasks share one connection. An echo server (forever.py) answers."""

import asyncio
import sys

import tidewire as websockets

URL = sys.argv[1] if sys.argv[1:] else "ws://127.0.0.1:8765"


async def push(connection: "websockets.Connection") -> None:
    for number in range(1, 4):
        await connection.send(f"reading {number}")
        await asyncio.sleep(0.1)  # the next reading takes a while, and what comes is not kept waiting
    await connection.send("that is all")


async def main() -> None:
    async with websockets.connect(URL) as connection, asyncio.TaskGroup() as tasks:
        tasks.create_task(push(connection))
        async for message in connection:
            print(f"<<< {message}")
            if message == "that is all":
                break


asyncio.run(main())
