"""The demo's server: a FastAPI app, five topics, and the sources that feed them.

Run it with `python -m examples.demo`, or `tidewire run examples.demo.app:app`, from the root of the repository.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, ValidationError

from tidewire import Deny, Latest, Live, Log, Operation, Signal

from .chain import DAYS, Market
from .pulse import Busiest, Meter

log = logging.getLogger("tidewire.demo")

STATIC = Path(__file__).parent / "static"
EXPIRY = f"{DAYS}d"
BEAT_S = 0.1
SCAN_S = 1.0
STEP_S = 0.02
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

live = Live()


# The topics: who may read and write them, and what is kept of each. That is all Tidewire needs to know.


@live.topic("pulse", policy=Latest(max_per_s=10))
async def pulse() -> None:
    """This machine's vital signs now; only the newest matters."""


@live.topic("pulse/history", policy=Log(keep=600))
async def pulse_history() -> None:
    """The last minute, point by point: a page that was away for a while gets the points it missed."""


@live.topic("chain/{expiry}", policy=Latest(key="id", max_per_s=20))
async def chain(expiry: str) -> None:
    """The options chain: one key per strike, newest row per strike, as often as the subscriber asks for."""
    if expiry != EXPIRY:
        raise HTTPException(404, f"The demo simulates one expiry: chain/{EXPIRY}")


class Line(BaseModel):
    """One line of the chat, as a page writes it."""

    id: str = Field(max_length=64)
    at: float
    name: str = Field(min_length=1, max_length=24)
    text: str = Field(min_length=1, max_length=280)


@live.topic("chat/lobby", policy=Log(keep=200), payload="json", publish=True)
async def chat(op: Operation) -> None:
    """Everybody on the page may read, and write what is a line."""
    if op.name == "publish":
        try:
            Line.model_validate(op.data)
        except ValidationError as error:
            raise Deny(f"not a line of chat: {error.errors()[0]['msg']}") from None


@live.topic("echo/{client}", policy=Signal(), publish=True)
async def echo(client: str) -> None:
    """A page publishes here and hears itself: that is the round trip it shows."""
    if not re.fullmatch(r"[a-z0-9]{8,32}", client):
        raise HTTPException(404, "Choose 8 to 32 of a-z and 0-9 as the name of your echo topic")


# The sources: what happens on this machine, whether somebody watches or not.


async def every(period_s: float, step: Callable[[], Awaitable[None]]) -> None:
    """Calls `step` at a steady beat until cancelled. A failed step is logged, a late beat is skipped."""
    clock = asyncio.get_running_loop().time
    due_s = clock()
    while True:
        try:
            await step()
        except Exception:
            log.exception("%s failed; trying again in %.2f s", getattr(step, "__qualname__", step), period_s)
        due_s = max(due_s + period_s, clock())
        await asyncio.sleep(due_s - clock())


class PulseSource:
    """Publishes the pulse and its history; the list of busiest processes is refreshed more rarely."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._busiest = Busiest()
        self._processes: list[dict[str, Any]] = []  # as of the last scan
        self._system = f"{platform.system()} {platform.machine()}"

    async def beat(self) -> None:
        """Reads the machine once, in a thread, and publishes what it says."""
        sample = await asyncio.to_thread(self._meter.read)
        await pulse.publish({**sample, "system": self._system, "processes": self._processes})
        disk, network = sample["disk"] or [None, None], sample["network"] or [None, None]
        await pulse_history.publish([sample["at"], sample["cpu"], *network, *disk])

    async def scan(self) -> None:
        """Looks for the busiest processes; the next beats carry the result."""
        self._processes = await asyncio.to_thread(self._busiest.scan)


class ChainSource:
    """Publishes the simulated chain, and how many rows a second it really publishes."""

    def __init__(self) -> None:
        self._market = Market(random.Random())
        self._last_s = time.monotonic()
        self._published: deque[tuple[float, int]] = deque([(self._last_s, 0)], maxlen=50)  # (when, rows so far)

    async def open(self) -> None:
        """Publishes every row once, so that nobody sees half a chain."""
        await self._publish(self._market.all_rows())

    async def step(self) -> None:
        """Moves the market on by the time that has passed and publishes the rows that changed."""
        now_s = time.monotonic()
        rows = self._market.step(min(1.0, now_s - self._last_s))
        self._last_s = now_s
        await self._publish(rows)

    async def _publish(self, rows: list[dict[str, Any]]) -> None:
        since_s, count = self._published[0]
        total = self._published[-1][1] + len(rows)
        self._published.append((self._last_s, total))
        rows[0]["published_per_s"] = round((total - count) / max(0.5, self._last_s - since_s))
        for row in rows:
            await chain.publish(row, expiry=EXPIRY)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Starts the sources with the app and cancels them with it."""
    machine, market = PulseSource(), ChainSource()
    await market.open()
    async with asyncio.TaskGroup() as sources:
        beats = [(BEAT_S, machine.beat), (SCAN_S, machine.scan), (STEP_S, market.step)]
        tasks = [sources.create_task(every(period_s, step)) for period_s, step in beats]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


app = FastAPI(title="Tidewire demo", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(live.router, prefix="/live")
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page. Its policy allows nothing that does not come from this server, and nothing inline."""
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(STATIC / "index.html", headers=headers)
