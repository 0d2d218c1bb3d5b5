"""The servers under test, on the product's own path: ``python -m conformance.server handler|fastapi``.

Each is an echo with permessage-deflate switched on. The URL it listens on is its first line of output. It stops by a
signal, and by itself after ``--run-for`` seconds.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import tidewire

if TYPE_CHECKING:
    from tidewire.wire.connection import Connection

# section 9 sends messages of 16 MiB
MESSAGE_BYTES_MAX = 32 * 1024 * 1024


async def echo(connection: Connection) -> None:
    """The handler of a raw connection."""
    async for message in connection:
        await connection.send(message)


app = FastAPI()


@app.websocket("/")
async def echo_endpoint(websocket: WebSocket) -> None:
    """An endpoint as anybody writes it, that knows nothing of Tidewire."""
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return


def main() -> None:
    """Serve until told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["handler", "fastapi"])
    parser.add_argument("--run-for", type=float, required=True, metavar="SECONDS")
    words = parser.parse_args()
    tidewire.run(
        echo if words.kind == "handler" else app,
        port=0,
        run_for_s=words.run_for,
        on_listening=lambda url: print(url, flush=True),
        log_level="warning",
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=True,
    )


if __name__ == "__main__":
    main()
