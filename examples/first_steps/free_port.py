"""A server on whatever port is free, and a client that asks the server which."""

import asyncio

import tidewire as websockets


async def shout(connection: "websockets.Connection") -> None:
    async for message in connection:
        await connection.send(str(message).upper())


async def main() -> None:
    async with websockets.serve(shout, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"the free port is {port}")
        async with websockets.connect(f"ws://127.0.0.1:{port}") as connection:
            await connection.send("found you")
            print(await connection.recv())


asyncio.run(main())
