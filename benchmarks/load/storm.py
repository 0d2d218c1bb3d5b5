"""The crowd of the storm: sessions that are dropped all at once and come back within a second, and some that stay.

``python -m benchmarks.load.storm --port N --sessions 5000 --topics 5 --stay 100``; commands on standard input,
answers in JSON: ``quiet SECONDS`` (delays of those who stay), ``drop``, ``storm MESSAGES`` (come back; ends when the
last one has so many missed messages of each topic).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import re
import struct
import sys
import time
from typing import Any, cast

TOPICS = 20
RETURN_WITHIN_S = 1.0
OPENING_AT_ONCE = 200
_UPGRADE = (
    b"GET /live/-/session HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PLACE = re.compile(rb'"epoch":"([0-9a-f]+)"(?:,"offset":([0-9]+))?')
_TIME = re.compile(rb'"t":([0-9]+)')


def frame(payload: bytes) -> bytes:
    """A text frame of a client's; an all-zero mask changes nothing."""
    size = len(payload)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + b"\0\0\0\0" + payload


class Session(asyncio.Protocol):
    """One session: subscribes as soon as it is there. ``wanted``: messages to wait for; None: for its answers."""

    def __init__(self, topics: list[int], places: dict[int, tuple[bytes, int]], wanted: int | None) -> None:
        self.topics = topics
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # where its topics are, in the order of the answers
        self.places: list[tuple[bytes, int]] = []
        self.transport: asyncio.Transport
        self._places = places
        self._wanted = wanted
        self._head = b""
        self._n = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Everything at once: the handshake, connect, subscribe."""
        self.transport = cast(asyncio.Transport, transport)
        lines = [b'{"id":1,"connect":{}}']
        for number, topic in enumerate(self.topics, 2):
            since = b""
            if topic in self._places:
                since = b',"recover":true,"epoch":"%s","offset":%d' % self._places[topic]
            lines.append(b'{"id":%d,"subscribe":{"channel":"storm/%d"%s}}' % (number, topic, since))
        self.transport.write(_UPGRADE + frame(b"\n".join(lines)))

    def data_received(self, data: bytes) -> None:
        """Count what was missed, or read the answers."""
        if self._wanted is None:
            self._head += data
            self.places = [(epoch, int(offset or 0)) for epoch, offset in _PLACE.findall(self._head)]
            is_done = len(self.places) == len(self.topics)
        else:
            self._n += data.count(b'"data":')
            is_done = self._n >= self._wanted
        if is_done and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Before it has everything, that is the end of the run."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"a session was cut with {self._n} messages"))


class Witness(asyncio.Protocol):
    """Somebody who stays, and notes how late each tick is."""

    def __init__(self, delays_ms: list[float]) -> None:
        self._delays_ms = delays_ms

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Follow the ticks."""
        asked = b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"tick"}}'
        cast(asyncio.Transport, transport).write(_UPGRADE + frame(asked))

    def data_received(self, data: bytes) -> None:
        """Ticks say when they were published."""
        now = time.monotonic_ns()
        self._delays_ms += [(now - int(found[1])) / 1e6 for found in _TIME.finditer(data)]


class Crowd:
    """Everybody."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        rng = random.Random(1)
        self._topics = [rng.sample(range(TOPICS), options.topics) for _ in range(options.sessions)]
        self._jitter = [rng.random() * RETURN_WITHIN_S for _ in range(options.sessions)]
        self._sessions: list[Session] = []
        self._places: dict[int, tuple[bytes, int]] = {}
        self._delays_ms: list[float] = []

    async def gather(self) -> dict[str, Any]:
        """Open all, some at a time."""
        loop = asyncio.get_running_loop()
        for _ in range(self._options.stay):
            await loop.create_connection(lambda: Witness(self._delays_ms), "127.0.0.1", self._options.port)
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def one(topics: list[int]) -> None:
            async with gate:
                await self._open(topics, None)

        await asyncio.gather(*map(one, self._topics))
        for session in self._sessions:
            self._places |= zip(session.topics, session.places, strict=True)
        return {"sessions": len(self._sessions)}

    async def _open(self, topics: list[int], wanted: int | None) -> None:
        places = {} if wanted is None else self._places
        make = lambda: Session(topics, places, wanted)  # noqa: E731 - what create_connection calls
        _, session = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", self._options.port)
        self._sessions.append(session)
        await session.done

    async def quiet(self, seconds: float) -> dict[str, Any]:
        """How late ticks are while nothing happens."""
        self._delays_ms.clear()
        await asyncio.sleep(seconds)
        return self._told()

    async def drop(self) -> dict[str, Any]:
        """All lines break at once."""
        for session in self._sessions:
            session.transport.abort()
        self._sessions.clear()
        await asyncio.sleep(0.5)
        return {}

    async def storm(self, messages: int) -> dict[str, Any]:
        """All come back, and have everything."""
        self._delays_ms.clear()
        started, cpu = time.monotonic(), time.process_time()

        async def one(topics: list[int], delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            await self._open(topics, messages * len(topics))

        await asyncio.gather(*map(one, self._topics, self._jitter))
        seconds = time.monotonic() - started
        return self._told() | {"seconds": seconds, "client_share": (time.process_time() - cpu) / seconds}

    def _told(self) -> dict[str, Any]:
        delays = sorted(self._delays_ms)
        return {"ticks": len(delays), "p50_ms": delays[len(delays) // 2], "max_ms": delays[-1]} | {
            "p99_ms": delays[int(len(delays) * 0.99)]
        }


async def main() -> None:
    """Answer commands until standard input ends."""
    parser = argparse.ArgumentParser()
    for name in ("port", "sessions", "topics", "stay"):
        parser.add_argument(f"--{name}", type=int, required=True)
    crowd = Crowd(parser.parse_args())
    print(json.dumps(await crowd.gather()), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).split():
        what, *more = line
        if what == b"quiet":
            answer = await crowd.quiet(float(more[0]))
        elif what == b"drop":
            answer = await crowd.drop()
        else:
            answer = await crowd.storm(int(more[0]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    # a pause of the collector here would be taken for one of the server's
    gc.disable()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
