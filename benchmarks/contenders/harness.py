"""What every contender in Python shares: the commands, and the loops that publish.

A contender reads commands from standard input, one JSON object a line, and answers each with one line of JSON:

``{"do": "flood", "seconds": 2, "burst": 20, "size": 128}``
    ticks as fast as they go: publish ``burst`` new messages, wait until they are handed to the sockets, yield
``{"do": "pace", "lead_in_s": 1, "seconds": 10, "rate": 20, "size": 128}``
    ``rate`` messages a second by the clock, each stamped with the time it was due (0 during the lead-in)
``{"do": "stream", "seconds": 2, "size": 128, "drain_every": 500}``
    as ``flood`` with one message a tick, but waits for the sockets only once in ``drain_every`` messages
``{"do": "keys", "keys": 2000, "rate": 10000, "seconds": 10, "size": 128}``
    ``rate`` messages a second by the clock, the ``id`` of each the next of so many keys
``{"do": "fill", "size": 16384, "patience_s": 0.3, "bytes_max": 16000000, "backlog": 900}``
    publish until a reader that does not read holds things up, then ``backlog`` small ones more

The answer of all but the last: ``{"published": messages, "last": sequence number of the last, "seconds": ..}``.
A message is JSON of exactly ``size`` bytes: ``{"seq": 1, 2, 3.., "t": monotonic ns, "id": key, "pad": "xx.."}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import uvicorn

import tidewire

Message = dict[str, Any]


class Publisher(Protocol):
    """How a contender publishes."""

    async def publish(self, message: Message) -> None:
        """Publish one message to all subscribers."""

    async def settle(self) -> None:
        """Return when what was published is handed to the sockets."""


# How many different keys the messages have, where that is not the question
KEYS = 100


def make_message(seq: int, due_ns: int, size_bytes: int, keys: int = KEYS) -> Message:
    """A new message whose compact JSON is ``size_bytes`` long."""
    key = seq % keys
    bare_bytes = len(f'{{"seq":{seq},"t":{due_ns},"id":{key},"pad":""}}')
    return {"seq": seq, "t": due_ns, "id": key, "pad": "x" * (size_bytes - bare_bytes)}


# between looks at the clock while many messages a millisecond are due
_SLICE_S = 0.002


class Driver:
    """Runs the commands against one publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._seq = 0

    async def run(self) -> None:
        """Answer commands until standard input ends; then the process ends too, whatever it is doing."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        running: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            running = {asyncio.create_task(self._answer(json.loads(line)))} | {t for t in running if not t.done()}
        os._exit(0)

    async def _answer(self, command: Message) -> None:
        try:
            answer = await getattr(self, "do_" + command.pop("do"))(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)

    async def _publish(self, due_ns: int, size: int) -> None:
        self._seq += 1
        await self._publisher.publish(make_message(self._seq, due_ns, size))

    async def do_flood(self, seconds: float, burst: int, size: int) -> Message:
        """As fast as it goes, ``burst`` messages a tick."""
        started, first = time.monotonic(), self._seq
        while time.monotonic() - started < seconds:
            for _ in range(burst):
                await self._publish(time.monotonic_ns(), size)
            await self._publisher.settle()
            await asyncio.sleep(0)
        return {"published": self._seq - first, "last": self._seq, "seconds": time.monotonic() - started}

    async def do_pace(self, lead_in_s: float, seconds: float, rate: float, size: int) -> Message:
        """By the clock. A publisher that is late catches up at once: its messages keep the time they were due."""
        started_ns, first, errors = time.monotonic_ns(), self._seq, 0
        for index in range(int((lead_in_s + seconds) * rate)):
            due_ns = started_ns + int((index + 1) * 1e9 / rate)
            await asyncio.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            try:
                await self._publish(due_ns if index >= lead_in_s * rate else 0, size)
            except Exception:  # the docs' ConnectionManager raises when it meets a dead socket; go on as a server would
                errors += 1
        elapsed_s = (time.monotonic_ns() - started_ns) / 1e9
        return {"published": self._seq - first, "last": self._seq, "seconds": elapsed_s, "errors": errors}

    async def do_stream(self, seconds: float, size: int, drain_every: int) -> Message:
        """One message a tick, as fast as it goes, handed over and not waited for."""
        started, first = time.monotonic(), self._seq
        while time.monotonic() - started < seconds:
            await self._publish(time.monotonic_ns(), size)
            await asyncio.sleep(0)
            if self._seq % drain_every == 0:
                await self._publisher.settle()
        await self._publisher.settle()
        return {"published": self._seq - first, "last": self._seq, "seconds": time.monotonic() - started}

    async def do_keys(self, keys: int, rate: float, seconds: float, size: int) -> Message:
        """By the clock, the keys in turn; ``late_s``: how far the publisher had fallen behind at worst."""
        started, first, late_s = time.monotonic(), self._seq, 0.0
        wanted = int(seconds * rate)
        while (done := self._seq - first) < wanted:
            due = min(wanted, int((time.monotonic() - started) * rate))
            late_s = max(late_s, (due - done) / rate)
            for _ in range(due - done):
                self._seq += 1
                await self._publisher.publish(make_message(self._seq, time.monotonic_ns(), size, keys))
            await asyncio.sleep(_SLICE_S)
        elapsed_s = time.monotonic() - started
        return {"published": wanted, "last": self._seq, "seconds": elapsed_s, "late_s": late_s}

    async def do_fill(self, size: int, patience_s: float, bytes_max: int, backlog: int) -> Message:
        """Fill the buffers of readers that do not read. Nobody else may listen: these messages have no ``seq``."""
        sent, held_up = 0, False
        while sent < bytes_max and not held_up:
            held_up = not await self._try(patience_s, {"fill": "x" * size}, settle=True)
            sent += size
        for _ in range(backlog):
            if not await self._try(patience_s, {"fill": "x" * 100}, settle=False):
                break
        return {"sent_bytes": sent, "held_up": held_up}

    async def _try(self, patience_s: float, message: Message, *, settle: bool) -> bool:
        try:
            async with asyncio.timeout(patience_s):
                await self._publisher.publish(message)
                if settle:
                    await self._publisher.settle()
        except TimeoutError:
            return False
        return True


def lifespan_with(publisher: Publisher) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """An application lifespan during which the commands are answered."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(Driver(publisher).run())
        yield
        task.cancel()

    return lifespan


def parser() -> argparse.ArgumentParser:
    """The command line of a contender; each adds what it has to choose from."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--server", choices=("tidewire", "uvicorn"), default="tidewire")
    parser.add_argument("--ws", default="websockets-sansio", help="the WebSocket implementation of stock uvicorn")
    parser.add_argument("--window-ms", type=float, default=1.0, help="Tidewire's flush window")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    return parser


def serve(app: Any, options: argparse.Namespace) -> None:
    """Run an application, or a Tidewire handler, on the server that was asked for.

    Stock uvicorn: its defaults, but for the loop (the same for all), the log, the newer ws implementation, and no
    compression (the same for all).
    """
    common = {"host": "127.0.0.1", "port": options.port, "loop": options.loop}
    common |= {"log_level": "warning", "access_log": False}
    if options.tls_cert:
        common |= {"ssl_certfile": options.tls_cert, "ssl_keyfile": options.tls_key}
    if options.server == "tidewire":
        tidewire.run(app, **common)
    else:
        uvicorn.run(app, ws=options.ws, ws_per_message_deflate=False, **common)


def run_in_loop(main: Coroutine[Any, Any, None], loop: str) -> None:
    """Run a contender that brings its own server."""
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)
