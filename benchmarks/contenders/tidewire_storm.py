"""Tidewire: twenty topics for sessions that come back all at once, and one that ticks for those who never left.

Commands: ``{"do": "miss", "messages": 100, "size": 128}`` publishes to every topic; ``{"do": "usage"}`` answers what
the process has used and how many sessions there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from benchmarks.contenders import harness
from tidewire import Live, Log

TOPICS = 20
TICK_S = 0.01

live = Live()


@live.topic("storm/{n}", policy=Log(keep=500))
async def storm(n: int) -> None:
    """Open to everybody."""


@live.topic("tick", policy=Log(keep=10))
async def tick() -> None:
    """Open to everybody."""


async def keep_ticking() -> None:
    """A message that says when it was due, a hundred times a second: one that comes late is late by all of it."""
    due = time.monotonic()
    while True:
        await live.publish("tick", {"t": round(due * 1e9)})
        due += TICK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def do_miss(messages: int, size: int) -> dict[str, Any]:
    """Publish to everybody who is away."""
    for topic in range(TOPICS):
        for seq in range(messages):
            await live.publish(f"storm/{topic}", harness.make_message(seq + 1, 0, size))
    return {"published": TOPICS * messages}


def do_usage() -> dict[str, Any]:
    """What was used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": used.ru_utime + used.ru_stime, "rss_bytes": used.ru_maxrss * 1024, **live.stats()}


async def answer_commands() -> None:
    """Until standard input ends; then the process ends too."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        answer = await do_miss(command["messages"], command["size"]) if command["do"] == "miss" else do_usage()
        print(json.dumps(answer), flush=True)
    os._exit(0)


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work()) for work in (keep_ticking, answer_commands)]
    yield
    for task in tasks:
        task.cancel()


app = FastAPI(lifespan=lifespan)
app.include_router(live.router, prefix="/live")

if __name__ == "__main__":
    harness.serve(app, harness.parser().parse_args())
