"""A ``Client`` on lines in memory: the test is the server, and moves the clock."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.client.servers import run
from tests.client.session.fakes import subscribed
from tidewire.client.dial import Cut
from tidewire.client.errors import NothingListens
from tidewire.client.reconnect import Advice, Backoff, ComeBack
from tidewire.client.session.client import Client
from tidewire.client.session.mirror import Mirror
from tidewire.client.session.subscription import Subscription
from tidewire.errors import Close, closed_error
from tidewire.protocol import packets
from tidewire.protocol.codecs import JSON, PROTOBUF, Codec
from tidewire.protocol.packets import Command, ConnectResult, Push, Reply, SubscribeResult
from tidewire.testing import ManualClock

__all__ = ["Line", "Lines", "connected", "mirrored", "passes", "run", "subscribed_to", "until"]

URL = "http://h/live"


async def until(is_true: Callable[[], object]) -> None:
    """Let the loop go round until it is true; one that never is fails the test by its deadline."""
    while not is_true():
        await asyncio.sleep(0)


async def passes(n: int = 20) -> None:
    """Let the loop go round: what was begun gets as far as it can."""
    for _ in range(n):
        await asyncio.sleep(0)


class Line:
    """One connection; ``wire.Wire`` for the client, and the rest for the test."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        # every frame of the client's, and its commands that the test has not taken
        self.frames: list[str | bytes] = []
        self._commands: deque[Command] = deque()
        self._replies: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._end: tuple[Close | None, Close | None] = (None, None)
        # how the client ended it
        self.closed: int | None = None
        self.aborted = False
        # clear: the server does not read
        self.reads = asyncio.Event()
        self.reads.set()
        # how many frames wait to be read by it
        self.unread = 0

    # The client's

    async def send(self, message: str | bytes) -> None:
        self.unread += 1
        await self.reads.wait()
        self.unread -= 1
        if self._is_over:
            raise closed_error(*self._end)
        assert isinstance(message, str) == self.codec.is_text
        self.frames.append(message)
        self._commands += self.codec.read_commands(message)

    async def receive(self) -> str | bytes:
        frame = await self._replies.get()
        if frame is None:
            self._replies.put_nowait(None)
            raise closed_error(*self._end)
        return frame

    async def close(self, code: int, reason: str) -> None:
        self.closed = code
        self._finish(None, Close(code, reason))

    def abort(self) -> None:
        self.aborted = True
        self._finish(None, None)

    @property
    def _is_over(self) -> bool:
        return self.aborted or self.closed is not None or self._end != (None, None)

    def _finish(self, rcvd: Close | None, sent: Close | None) -> None:
        self._end = (rcvd, sent)
        self._replies.put_nowait(None)

    # The test's

    async def take(self) -> Command:
        """The client's next command."""
        await until(lambda: self._commands)
        return self._commands.popleft()

    @property
    def is_quiet(self) -> bool:
        """Whether every command was taken."""
        return not self._commands

    def say(self, *replies: Reply) -> None:
        """One frame."""
        frame = self.codec.join([self.codec.write(reply) for reply in replies])
        self._replies.put_nowait(frame.decode() if self.codec.is_text else frame)

    def reply(self, to: Command, **result: packets.Packet) -> None:
        self.say(Reply(id=to.id, **result))  # type: ignore[arg-type]

    def refuse(self, to: Command, code: int, message: str = "no", *, temporary: bool = False) -> None:
        self.reply(to, error=packets.Error(code, message, temporary))

    def push(self, topic: str, **what: packets.Packet) -> None:
        self.say(Reply(push=Push(channel=topic, **what)))  # type: ignore[arg-type]

    async def welcome(self, **result: Any) -> Command:
        """Answer the connect command; returns it."""
        command = await self.take()
        assert command.connect is not None
        self.reply(command, connect=ConnectResult(**({"client": "c1"} | result)))
        return command

    async def admit(self, result: SubscribeResult | None = None) -> Command:
        """Answer a subscribe command; returns it."""
        command = await self.take()
        assert command.subscribe is not None, command
        self.reply(command, subscribe=result or SubscribeResult())
        return command

    def hang_up(self, code: int, reason: str = "") -> None:
        """The server closes."""
        self._finish(Close(code, reason), None)

    def cut(self) -> None:
        """The line is gone."""
        self._finish(None, None)


class Lines:
    """Where the lines of a client come from. ``fail`` the next one with what ``fails`` holds."""

    def __init__(self, *, protobuf: bool = False) -> None:
        self.clock = ManualClock()
        self.opened: list[Line] = []
        self.fails: deque[Cut] = deque()
        self.asked = 0
        # clear: a handshake takes for ever
        self.answers = asyncio.Event()
        self.answers.set()
        self._protobuf = protobuf

    async def open(self) -> Line:
        self.asked += 1
        await self.answers.wait()
        if self.fails:
            raise self.fails.popleft()
        line = Line(PROTOBUF if self._protobuf else JSON)
        self.opened.append(line)
        return line

    def fail(self, n: int = 1) -> None:
        """Nothing listens, so many times."""
        for _ in range(n):
            self.fails.append(Cut(Advice(ComeBack.FAST, "nothing listens there"), NothingListens(URL)))

    async def line(self, number: int) -> Line:
        """The connection of that number, counted from 1, when it is open; time goes on for it."""
        while len(self.opened) < number:
            await passes()
            self.clock.advance(1)
        return self.opened[number - 1]

    def client(self, **options: Any) -> Client:
        backoff = Backoff(rng=random.Random(5))
        options = {
            "backoff": backoff,
            "clock": self.clock,
            "open_wire": self.open,
            "protobuf": self._protobuf,
        } | options
        return Client(URL, **options)


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Client, Line, Lines]]:
    """A client that is connected, its first line, and where its next ones come from."""
    lines = Lines(protobuf=options.get("protobuf", False))
    client = lines.client(**options)
    entering = asyncio.ensure_future(client.__aenter__())
    await (await lines.line(1)).welcome()
    async with _exiting(await entering):
        yield client, lines.opened[0], lines


@asynccontextmanager
async def subscribed_to(
    client: Client, line: Line, result: SubscribeResult | None = None, **options: Any
) -> AsyncIterator[Subscription[Any]]:
    """A subscription to "t" that the server admits."""
    subscription = client.subscribe("t", **options)
    entering = asyncio.ensure_future(subscription.__aenter__())
    await line.admit(subscribed() if result is None else result)
    async with _exiting(await entering):
        yield subscription


@asynccontextmanager
async def mirrored(client: Client, line: Line, **options: Any) -> AsyncIterator[Mirror[Any]]:
    """A mirror of "t" that the server admits."""
    mirror = client.mirror("t", **options)
    entering = asyncio.ensure_future(mirror.__aenter__())
    await line.admit(subscribed())
    async with _exiting(await entering):
        yield mirror


@asynccontextmanager
async def _exiting(entered: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await entered.__aexit__(None, None, None)
