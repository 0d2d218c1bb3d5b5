"""The chat on python-socketio: one room, published to by POST.

Connection state recovery, which the server for JavaScript can be asked for, is not in it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import socketio
import uvicorn
from fastapi import FastAPI

sio = socketio.AsyncServer(async_mode="asgi")
web = FastAPI(openapi_url=None)


@sio.event
async def join(sid: str, room: str) -> None:
    await sio.enter_room(sid, room)


@web.post("/publish/{room}")
async def publish(room: str, message: dict[str, Any]) -> None:
    await sio.emit("message", message, room=room)


app = socketio.ASGIApp(sio, web)


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        # the queue of a listening socket holds who comes before uvicorn takes it over
        print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await server.serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(main())
