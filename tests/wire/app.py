"""The application under test, as a process of its own: topics, broken code, and a control plane for the tests.

``python -m tests.wire.app FLAVOUR '{"limits": {...}, "options": {...}, "constants": {...}}'``. Flavours: ``ours`` is
``tidewire.run``, ``stock`` is uvicorn with its own classes, ``open`` the open server. Says where it listens.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import sys
from collections import defaultdict
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from uvicorn.server import ServerState

from tidewire import Deny, Limits, Live, Log, Operation, limits, run
from tidewire.cli.openserver import serve_open
from tidewire.server.run import bind, url_of
from tidewire.wire.asgi import EXTENSION


def say(url: str) -> None:
    """Tell the test where to find us."""
    print(f"listening on {url}", flush=True)


def make_live(settings: dict[str, Any]) -> Live:
    live = Live(limits=Limits(**settings.get("limits", {})))

    @live.topic("log/{name}", policy=Log(keep=10), publish=True)
    async def log(name: str) -> None: ...

    @live.topic("json/{name}", policy=Log(keep=10), payload="json", publish=True)
    async def json_only(name: str) -> None: ...

    @live.topic("quiet/{name}")
    async def quiet(name: str) -> None: ...

    @live.topic("boom/{name}", publish=True)
    async def boom(name: str) -> None:
        raise LookupError("broken topic function")

    @live.topic("moody/{name}", publish=True)
    async def moody(name: str, op: Operation) -> None:
        if op.data == "raise":
            raise LookupError("broken publish")

    @live.topic("members/{name}")
    async def members(name: str) -> None:
        raise Deny("members only")

    return live


def add_control(app: FastAPI, live: Live) -> None:
    """What a test asks for over plain HTTP."""

    @functools.cache
    def server_state() -> ServerState:
        # what is there at the start is frozen, and not listed (server.memory)
        gc.unfreeze()
        return next(thing for thing in gc.get_objects() if isinstance(thing, ServerState))

    @app.get("/control/stats")
    async def stats() -> dict[str, Any]:
        return {
            **live.stats(),
            "rss": psutil.Process().memory_info().rss,
            "sockets": len(server_state().connections),
            "tasks": len(server_state().tasks),
        }

    @app.post("/control/publish")
    async def publish(topic: str, first: int = 0, n: int = 1, size: int = 0) -> dict[str, Any]:
        """Messages ``first`` to ``first + n - 1``, each of about ``size`` bytes, in one go."""
        for number in range(first, first + n):
            await live.publish(topic, {"n": number, "pad": "x" * size})
        return live.stats()


def add_broken_code(app: FastAPI) -> None:
    """Application code that raises, hangs, or does not do what it said."""

    @app.get("/broken/route")
    async def route() -> None:
        raise LookupError("broken route")

    @app.get("/broken/stream")
    async def stream() -> StreamingResponse:
        async def body() -> Any:
            yield b"begun"
            raise LookupError("broken stream")

        return StreamingResponse(body())

    @app.websocket("/broken/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        raise LookupError("broken socket")

    @app.get("/hang")
    async def hang() -> None:
        await asyncio.Event().wait()

    @app.websocket("/hang")
    async def hang_websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.Event().wait()

    @app.post("/length")
    async def length(request: Request) -> dict[str, Any]:
        """How long the body was, and the headers that the application sees afterwards."""
        body = await request.body()
        return {"length": len(body), "headers": [name.decode() for name, _ in request.scope["headers"]]}


def add_extension(app: FastAPI) -> None:
    """Routes of the application's own that use what our protocol classes offer in the scope."""

    @app.get("/extension")
    async def names(request: Request) -> list[str]:
        return sorted(request.scope.get("extensions", {}).get(EXTENSION, {}))

    @app.websocket("/extension")
    async def websocket_names(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(sorted(websocket.scope["extensions"].get(EXTENSION, {})))
        await websocket.close()

    @app.websocket("/extension/abort")
    async def abort_websocket(websocket: WebSocket) -> None:
        """Queue more than any socket takes, keep count of it, and abort when the peer says so."""
        await websocket.accept()
        extension = websocket.scope["extensions"][EXTENSION]
        empty = extension["pending_bytes"]()
        await websocket.send_bytes(bytes(32 * limits.MIB))
        app.state.pending = [empty, extension["pending_bytes"]()]
        await websocket.receive()
        extension["abort"]()

    @app.websocket("/stuck")
    async def stuck(websocket: WebSocket) -> None:
        """Send more than any socket takes."""
        await websocket.accept()
        await websocket.send_bytes(bytes(32 * limits.MIB))
        await websocket.receive()

    @app.get("/extension/abort")
    async def abort_stream(request: Request) -> StreamingResponse:
        extension = request.scope["extensions"][EXTENSION]

        async def body() -> Any:
            app.state.pending = [extension["pending_bytes"]()]
            yield bytes(32 * limits.MIB)

        async def give_up() -> None:
            while not extension["pending_bytes"]():
                await asyncio.sleep(0.01)
            app.state.pending.append(extension["pending_bytes"]())
            extension["abort"]()

        app.state.task = asyncio.create_task(give_up())
        return StreamingResponse(body())

    @app.get("/extension/pending")
    async def pending() -> list[int]:
        return list(app.state.pending)


def add_late(app: FastAPI) -> None:
    """A route that accepts when a test says so, and counts what comes until an empty message."""
    signs: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @app.websocket("/late/{name}")
    async def late(websocket: WebSocket, name: str) -> None:
        await signs[name].wait()
        await websocket.accept()
        sizes = []
        while data := await websocket.receive_bytes():
            sizes.append(len(data))
        await websocket.send_json(sizes)
        await websocket.close()

    @app.post("/control/accept/{name}")
    async def accept(name: str) -> None:
        signs[name].set()


def make_app(settings: dict[str, Any]) -> FastAPI:
    live = make_live(settings)
    app = FastAPI(openapi_url=None)
    app.include_router(live.router, prefix="/live")
    add_control(app, live)
    add_broken_code(app)
    add_extension(app)
    add_late(app)
    return app


class Announcing(uvicorn.Server):
    """Stock uvicorn that says where it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        say(url_of(sockets[0]))


def main(flavour: str, settings: dict[str, Any]) -> None:
    for name, value in settings.get("constants", {}).items():
        setattr(limits, name, value)
    options = settings.get("options", {})
    if flavour == "open":
        serve_open(port=0, on_listening=say)
    elif flavour == "ours":
        run(make_app(settings), port=settings.get("port", 0), on_listening=say, **options)
    else:
        Announcing(uvicorn.Config(make_app(settings), **options)).run(sockets=bind("127.0.0.1", 0))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
