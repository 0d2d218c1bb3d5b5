"""Say something to any server and print what it answers until it closes: talk.py URL MESSAGE..."""

import asyncio
import contextlib
import sys

import tidewire as websockets


async def main() -> None:
    url, *messages = sys.argv[1:]
    async with websockets.connect(url) as connection:
        for message in messages:
            await connection.send(message)
        async for answer in connection:
            print(f"<<< {answer}")
    print(f"closed by the server: {connection.close_code} {connection.close_reason}")


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C leaves
    asyncio.run(main())
