"""Pings that find a peer which is gone, on a connection of the ``websockets`` library.

The library's own wait for the closing handshake after a missing pong, drop a program that reads slowly (its pongs wait
behind what it has not read), and hang for ever where a write is stuck. Here a missing pong is the end at once, unless
nothing is read or written: then the pong may be stuck too, and the kernel judges the peer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tidewire.wire.peers import let_kernel_judge

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_NO_PONG = "keepalive ping timeout"
"""The reason ``websockets`` gives, so that logs say the same."""

# the loop holds tasks weakly
_watching: set[asyncio.Task[None]] = set()


def watch(connection: ClientConnection, interval_s: float, timeout_s: float) -> None:
    """Ping every ``interval_s``, and drop a peer that has answered nothing ``timeout_s`` later; ends with it."""
    let_kernel_judge(connection.transport)
    task = asyncio.create_task(_watch(connection, interval_s, timeout_s))
    _watching.add(task)
    task.add_done_callback(_watching.discard)


async def _watch(connection: ClientConnection, interval_s: float, timeout_s: float) -> None:
    from websockets.exceptions import ConnectionClosed

    while not await _has_closed(connection, interval_s):
        try:
            async with asyncio.timeout(timeout_s):
                await (await connection.ping())
        except TimeoutError:
            if _is_flowing(connection.transport):
                _drop(connection)
        except ConnectionClosed:
            return


async def _has_closed(connection: ClientConnection, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await connection.wait_closed()
    except TimeoutError:
        return False
    return True


def _is_flowing(transport: asyncio.Transport) -> bool:
    """Whether a pong would have come through: what is not read or not written holds it up."""
    return transport.is_reading() and not transport.get_write_buffer_size()


def _drop(connection: ClientConnection) -> None:
    """Say why, for whoever asks how it ended; nobody is there to answer."""
    connection.protocol.fail(1011, _NO_PONG)
    connection.send_data()
    connection.transport.abort()
