"""One application for every server: topics of each policy, doors that refuse, raw connections, and what a test asks.

A server imports it by its name and its own command line, as users do; ``main`` runs it with ``tidewire.run``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
from fastapi import Cookie, Depends, FastAPI, Header, HTTPException, WebSocket

import tidewire
from tidewire import Deny, Latest, Limits, Live, Log, Operation, Signal, accept, run
from tidewire.hub.outbox import Outbox
from tidewire.wire.raw import RawSocket
from tidewire.wire.socket import ServerSocket

OPTIONS = "TIDEWIRE_TEST_OPTIONS"
"""The environment variable with what is given to ``Live`` (``servers.Way.options``). Server processes have it."""
KIB = 1024
KEEP = 50
MESSAGE_BYTES_MAX = 64 * KIB

if OPTIONS in os.environ:
    # tests import this module too, and have loggers of their own
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")

live = Live(
    limits=Limits(
        message_bytes_max=MESSAGE_BYTES_MAX,
        outbox_bytes_max=256 * KIB,
        evict_drain_s=0.2,
        shutdown_s=2.0,
    ),
    **json.loads(os.environ.get(OPTIONS, "{}")),
)
# what the application has noticed, in order
notes: list[str] = []
lifespans: list[str] = []


@live.topic("log/{name}", policy=Log(keep=KEEP), publish=True)
async def log(name: str) -> None: ...


@live.topic("latest/{name}", policy=Latest(key="id"), publish=True)
async def latest(name: str) -> None: ...


@live.topic("signal/{name}", policy=Signal(), publish=True)
async def signal(name: str) -> None: ...


@live.topic("room/{name}", policy=Log(keep=KEEP), publish=True, join_leave=True)
async def room(name: str) -> None: ...


@live.topic("quiet/{name}", policy=Log(keep=KEEP))
async def quiet(name: str) -> None: ...


@live.topic("members/{name}", policy=Log(keep=KEEP), publish=True)
async def members(
    name: str,
    op: Operation,
    authorization: Annotated[str | None, Header()] = None,
    session: Annotated[str | None, Cookie()] = None,
) -> None:
    notes.append(f"{op.name} {op.topic} since={op.since} authorization={authorization} session={session}")
    if authorization is None and session is None:
        raise HTTPException(401, "say who you are", headers={"WWW-Authenticate": "Bearer"})
    if "banned" in (authorization, session) or (op.name == "publish" and session == "reader"):
        raise Deny("not you, not here")


async def refuse_strangers(x_friend: Annotated[str | None, Header()] = None) -> None:
    if x_friend is None:
        raise HTTPException(403, "friends only")


@live.topic("friends/{name}", policy=Log(keep=KEEP), publish=True)
async def friends(name: str, friend: Annotated[None, Depends(refuse_strangers)]) -> None: ...


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    lifespans.append("started")
    # what is there already is not looked at again, each time somebody asks what is left of a connection
    gc.collect()
    gc.freeze()
    print(f"application started in process {os.getpid()}", flush=True)
    yield
    print(f"application stopped in process {os.getpid()}", flush=True)


app = FastAPI(openapi_url=None, lifespan=lifespan)
app.include_router(live.router, prefix="/live")
app.include_router(live.router, prefix="/guarded", dependencies=[Depends(refuse_strangers)])


# What a test asks for over plain HTTP


@app.get("/control/stats")
async def stats() -> dict[str, Any]:
    """What the hub counts, and what is left of connections: objects of ours, and tasks inside of our code."""
    gc.collect()
    things = gc.get_objects()
    return {
        **live.stats(),
        "rss": psutil.Process().memory_info().rss,
        "outboxes": sum(isinstance(thing, Outbox) for thing in things),
        "sockets": sum(isinstance(thing, ServerSocket | RawSocket) for thing in things),
        "tasks": sum(map(_serves, asyncio.all_tasks())),
    }


_SERVES = tuple(
    str(Path(tidewire.__file__).parent / name)
    for name in ("server/connection.py", "server/streams.py", "server/accept.py", "server/body.py", "wire/socket.py")
)


def _serves(task: asyncio.Task[Any]) -> bool:
    """Whether ``task`` waits somewhere inside of what serves one connection of ours."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        code = getattr(coroutine, "cr_code", None)
        if code is not None and code.co_filename in _SERVES:
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


@app.get("/control/notes")
async def take_notes() -> list[str]:
    """What was noticed since the last time somebody asked."""
    taken = list(notes)
    notes.clear()
    return taken


@app.get("/control/lifespans")
async def count_lifespans() -> dict[str, Any]:
    return {"lifespans": lifespans, "started": live._started, "process": os.getpid()}


@app.post("/control/publish")
async def publish(topic: str, first: int = 0, n: int = 1, size: int = 0) -> dict[str, int]:
    """Messages ``first`` to ``first + n - 1``, each of about ``size`` bytes, in one go."""
    for number in range(first, first + n):
        await live.publish(topic, {"n": number, "id": number % 5, "pad": "x" * size})
    return live.stats()


@app.post("/control/publish-each")
async def publish_each(topic: str) -> None:
    """One message of each kind."""
    for value in ({"a": [1, "ü"]}, "grüße\nzwei", b"\x00\xff\x80"):
        await live.publish(topic, value)


@app.post("/control/finish")
async def finish(topic: str, error: str | None = None) -> None:
    await live.finish(topic, error)


# Raw connections


@app.websocket("/raw/echo")
async def echo(websocket: WebSocket) -> None:
    async with accept(websocket) as connection:
        async for message in connection:
            await connection.send(message)
    notes.append("echo is over")


@app.websocket("/raw/chosen")
async def chosen(websocket: WebSocket) -> None:
    """The second subprotocol that was offered."""
    name = websocket.scope["subprotocols"][1]
    async with accept(websocket, subprotocol=name, headers={"x-greeting": "hello"}) as connection:
        await connection.send(f"{connection.subprotocol}")


@app.websocket("/raw/ending")
async def ending(websocket: WebSocket) -> None:
    """Says how it ended, to the notes."""
    async with accept(websocket) as connection:
        try:
            while True:
                notes.append(f"got {await connection.recv()!r}")
        except tidewire.ConnectionClosed as closed:
            notes.append(f"{type(closed).__name__} {closed.code}")
        try:
            await connection.send("too late")
        except tidewire.ConnectionClosed as closed:
            notes.append(f"send: {type(closed).__name__}")
        await connection.wait_closed()
        notes.append("closed")


@app.websocket("/raw/deaf")
async def deaf(websocket: WebSocket) -> None:
    """Never receives; says when it is cancelled."""
    async with accept(websocket) as connection:
        await connection.send("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise
    notes.append("the route goes on")


@app.websocket("/raw/pushing")
async def pushing(websocket: WebSocket) -> None:
    """Sends until it is stopped."""
    async with accept(websocket) as connection:
        while True:
            await connection.send("tick")
            await asyncio.sleep(0.005)
    notes.append("the pushing is over")


@app.websocket("/raw/closing")
async def closing(websocket: WebSocket) -> None:
    async with accept(websocket) as connection:
        await connection.recv()
        await connection.close(4321, "enough")


@app.websocket("/raw/broken")
async def broken(websocket: WebSocket) -> None:
    async with accept(websocket) as connection:
        await connection.recv()
        raise LookupError("broken on purpose")


@app.websocket("/raw/unchanged")
async def unchanged(websocket: WebSocket) -> None:
    """An endpoint of FastAPI's own, with nothing of ours."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())
    notes.append("unchanged is over")


def main() -> None:
    run(
        app,
        port=0,
        on_listening=lambda url: print(f"listening on {url}", flush=True),
        ws_max_size=256 * KIB,
        access_log=False,
    )


if __name__ == "__main__":
    main()
