"""Tidewire: a handler of raw connections. Echoes, or counts what comes and answers a message of one byte."""

from __future__ import annotations

from benchmarks.contenders import harness
from tidewire import Connection


async def echo(connection: Connection) -> None:
    """The first program of everybody."""
    async for message in connection:
        await connection.send(message)


async def streaming(connection: Connection) -> None:
    """Takes messages as they come in, piece by piece, and keeps nothing."""
    total = 0
    while True:
        size = 0
        async for piece in connection.recv_streaming():
            size += len(piece)
        total += size
        if size == 1:
            await connection.send(str(total))
            total = 0


async def recv(connection: Connection) -> None:
    """Takes whole messages."""
    total = 0
    async for message in connection:
        total += len(message)
        if len(message) == 1:
            await connection.send(str(total))
            total = 0


HANDLERS = {"echo": echo, "streaming": streaming, "recv": recv}


if __name__ == "__main__":
    parser = harness.parser()
    parser.add_argument("--handler", choices=tuple(HANDLERS), required=True)
    options = parser.parse_args()
    harness.serve(HANDLERS[options.handler], options)
