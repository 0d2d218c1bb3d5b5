"""The router inside a plain Starlette application, and under other prefixes."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.server.driver import HttpCall, SocketCall, request
from tidewire import Live
from tidewire.testing.lifespan import Lifespan


def test_a_mounted_fastapi_with_the_lifespan_said_outside() -> None:
    async def scenario() -> None:
        live = Live()

        @live.topic("a/{name}", publish=True)
        async def topic(name: str) -> None: ...

        inner = FastAPI(openapi_url=None)
        inner.include_router(live.router)
        app = Starlette(routes=[Mount("/live", inner)], lifespan=live.lifespan)
        async with Lifespan(app):
            live.publish_soon("a/b", "from a thread or sync code")
            posted = await request(app, "POST", "/live/a/b", body=b"x", headers={"content-type": "text/plain"})
            assert posted.status == 204
            read = await request(app, "GET", "/live/a/b")
            assert sorted(read.body_so_far.splitlines()) == [b"from a thread or sync code", b"x"]
            socket = await SocketCall(app, "/live/a/b").open()
            await live.publish("a/b", "hi")
            await socket.until(lambda s: s.frames)
            assert socket.frames == ["hi"]
            await socket.leave()

    asyncio.run(scenario())


def test_two_lives_in_one_application_are_both_drained() -> None:
    async def scenario() -> None:
        app = FastAPI()
        lives = [Live(), Live()]
        for index, live in enumerate(lives):

            @live.topic("t")
            async def topic() -> None: ...

            app.include_router(live.router, prefix=f"/live{index}")
        lifespan = Lifespan(app)
        state = await lifespan.__aenter__()
        assert {value for name, value in state.items() if name.startswith("tidewire.")} == set(lives)
        calls = [
            HttpCall(app, "GET", f"/live{index}/t", headers={"accept": "text/event-stream"}).begin()
            for index in range(2)
        ]
        for call in calls:
            await call.until(lambda c: c.events)
        await lifespan.__aexit__(None, None, None)
        for call in calls:
            await call.finished()
            assert call.complete

    asyncio.run(scenario())
