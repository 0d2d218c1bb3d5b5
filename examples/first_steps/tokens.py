"""An answer word by word, as a model gives it. Only whoever asked hears it, and only while connected."""

import asyncio
import contextlib
import sys

import tidewire as websockets

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765


async def answer(connection: "websockets.Connection") -> None:
    question = await connection.recv()
    for word in f"You asked: {question} The tide says yes.".split():
        await asyncio.sleep(0.02)  # here a real model thinks
        await connection.send(word)


async def main() -> None:
    async with websockets.serve(answer, "127.0.0.1", PORT) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C
    asyncio.run(main())
