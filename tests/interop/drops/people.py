"""People of a chat, in a process of their own: what they say to the scenario, which has started it.

One line of JSON comes in: where each of them connects, and the room. "ready" goes out when all of them are in it, and
what each has got when all have seen the last message, which is sent until then.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any


class Notes:
    """What one of them has got, in the order it came; ``last`` is set by the first message that says so."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.is_there = asyncio.Event()
        self.is_over = asyncio.Event()
        # times it came back, and times it was told that something is lost
        self.returns_n = self.gaps_n = 0

    def take(self, message: dict[str, Any]) -> None:
        if message["number"] is None:
            self.is_over.set()
        elif not self.is_over.is_set():
            self.numbers.append(message["number"])

    def arrive(self, *, is_lossy: bool = False) -> None:
        """It is in the room, for the first time or again."""
        self.returns_n += self.is_there.is_set()
        self.gaps_n += is_lossy
        self.is_there.set()


Chat = Callable[[str, str, Notes], Awaitable[None]]
"""``chat(url, room, notes)`` takes part until it is cancelled."""


async def meet(chat: Chat) -> None:
    """Run all of them to the end."""
    asked = json.loads(sys.stdin.readline())
    everybody = [Notes() for _ in asked["urls"]]
    tasks = [
        asyncio.create_task(chat(url, asked["room"], notes))
        for url, notes in zip(asked["urls"], everybody, strict=True)
    ]
    try:
        await asyncio.gather(*(notes.is_there.wait() for notes in everybody))
        print("ready", flush=True)
        await asyncio.gather(*(notes.is_over.wait() for notes in everybody))
        print(json.dumps([[notes.numbers, notes.returns_n, notes.gaps_n] for notes in everybody]), flush=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
