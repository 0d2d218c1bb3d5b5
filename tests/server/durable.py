"""Topics declared as streams of their clients, and the URLs that they have beside those of every topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from tests.server.driver import Scenario
from tidewire import Live
from tidewire.hub.policy import Policy
from tidewire.protocol.message import Kind
from tidewire.testing.lifespan import Lifespan


def declare_stream(
    live: Live,
    pattern: str,
    function: Callable[..., Any] | None = None,
    *,
    policy: Policy | None = None,
    payload: Kind | None = None,
    publish: bool | Callable[..., Any] = True,
) -> None:
    """A stream that anybody may write, unless ``function`` or ``publish`` say otherwise."""

    async def anybody() -> None: ...

    kind = None if payload is None else payload.value
    live.topic(pattern, policy=policy, payload=kind, publish=publish, streams=True)(function or anybody)


def play_streams(declare: Callable[[Live], None], scenario: Scenario, **options: Any) -> None:
    """Run ``scenario`` against an application with these topics, its lifespan around it."""

    async def run() -> None:
        live = Live(**options)
        app = FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        async with Lifespan(app):
            await scenario(app, live)

    asyncio.run(run())
