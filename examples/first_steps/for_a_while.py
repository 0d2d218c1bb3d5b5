"""An echo for 30 seconds. Without run_for_s the same line serves for ever."""

import sys

import tidewire

PORT = int(sys.argv[1]) if sys.argv[1:] else 8765
SECONDS = float(sys.argv[2]) if sys.argv[2:] else 30


async def echo(connection: tidewire.Connection) -> None:
    async for message in connection:
        await connection.send(message)


tidewire.run(echo, port=PORT, run_for_s=SECONDS)
print(f"{SECONDS:g} seconds are over")
