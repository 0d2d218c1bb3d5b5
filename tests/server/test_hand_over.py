"""A topic's socket handed over by its route, on real servers in this process: what ends with it, what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import Depends, FastAPI, Header
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.wire.frames import CLOSE, TEXT, Frame, close_payload, frame, split, upgrade
from tidewire import Deny, Live, Log, Operation
from tidewire.hub.outbox import Outbox
from tidewire.hub.subscription import Subscription
from tidewire.protocol.position import START
from tidewire.server.direct import SocketConnection
from tidewire.server.run import Server, bind, make_config
from tidewire.server.session.reader import SessionReader
from tidewire.server.session.session import Session
from tidewire.wire.http import HttpProtocol
from tidewire.wire.open import OpenSocket
from tidewire.wire.uvicorn import Protocol

PATIENCE_S = 20.0
"""How long a condition may take before a test fails; nothing is measured with it."""
WAYS = ["ours", "our-ws", "takeover"]
EVERY_WAY = pytest.mark.parametrize("way", [*WAYS, "stock"])
HANDED_OVER = pytest.mark.parametrize("way", WAYS)


class Quiet(uvicorn.Server):
    """Stock uvicorn, which leaves this process its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def serving(way: str, app: Any, **options: Any) -> AsyncIterator[tuple[int, Any]]:
    """``app`` on loopback; yields the port and the server's state."""
    (sock,) = bind("127.0.0.1", 0)
    listening = asyncio.Event()
    # uvicorn leaves the loggers of this process alone
    options = {"log_config": None, "log_level": None, **options}
    if way == "ours":
        server: uvicorn.Server = Server(make_config(app, **options), lambda url: listening.set())
    else:
        if way == "our-ws":
            options["ws"] = "tidewire.wire:Protocol"
        server = Quiet(uvicorn.Config(app, **options))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        yield sock.getsockname()[1], server.server_state
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task
        sock.close()


class World:
    """An application with topics, and what was noticed."""

    def __init__(self, way: str) -> None:
        self.notes: list[str] = []
        self.markers: list[weakref.ref[Any]] = []
        self.live = live = Live(takeover=way == "takeover", isolated=True)
        self.banned = False
        # the topic function of ``late`` waits for it
        self.go = asyncio.Event()
        self.app = app = FastAPI()
        app.include_router(live.router, prefix="/live", dependencies=[Depends(self.resource)])

        async def inner() -> AsyncIterator[None]:
            self.notes.append("inner opened")
            yield
            self.notes.append(f"inner released, {live.stats()['delivered']} delivered")

        @live.topic("log/{name}", policy=Log(keep=100), publish=True)
        async def log(
            name: str, op: Operation, user: Annotated[str, Header()] = "", there: None = Depends(inner)
        ) -> None:
            self.notes.append(f"{op.name} {op.data!r} by {user}")
            if op.name == "publish" and self.banned:
                raise Deny("not any more")

        @live.topic("quiet/{name}", policy=Log(keep=100))
        async def quiet(name: str) -> None: ...

        @live.topic("late/{name}", policy=Log(keep=100), publish=True)
        async def late(name: str, op: Operation) -> None:
            self.notes.append(f"asked {op.name}")
            if op.name == "subscribe":
                await self.go.wait()

    async def resource(self) -> AsyncIterator[None]:
        self.notes.append("opened")
        yield
        self.notes.append(f"released, {self.live.stats()['delivered']} delivered")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        class Marker:
            pass

        scope["marker"] = marker = Marker()
        self.markers.append(weakref.ref(marker))
        del marker
        await self.app(scope, receive, send)
        self.notes.append("the task ends")

    def is_marked(self) -> bool:
        gc.collect()
        return self.markers[-1]() is not None

    @property
    def opened(self) -> int:
        return self.live.stats()["subscriptions"]

    async def texts(self, topic: str) -> list[str]:
        """What was published."""
        history = await self.live._hub.read(topic, START, 1000)
        return [] if history is None else [message.payload.decode() for message in history.messages]

    async def until_texts(self, topic: str, expected: list[str]) -> None:
        """Wait until so many were published, and see that they are the ones."""
        async with asyncio.timeout(PATIENCE_S):
            while len(texts := await self.texts(topic)) < len(expected):
                await asyncio.sleep(0.002)
        assert texts == expected


def play(way: str, scenario: Callable[[World, int, Any], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        world = World(way)
        async with asyncio.timeout(2 * PATIENCE_S), serving(way, world, **options) as (port, state):
            await scenario(world, port, state)

    asyncio.run(run())


async def eventually(condition: Callable[[], Any], what: str, *, pause_s: float = 0.002) -> None:
    """Across sockets: the kernel's time is waited for, and never measured."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(pause_s)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about within {PATIENCE_S:g} s") from None


def open_client(port: int, path: str, **options: Any) -> Any:
    return connect(f"ws://127.0.0.1:{port}/live/{path}", **options)


class Hand:
    """A peer by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Hand]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def accepted(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    async def frames(self, count: int) -> list[Frame]:
        while len(split(self.received)[0]) < count:
            data = await self._reader.read(1 << 16)
            assert data, self.received
            self.received += data
        return split(self.received)[0]


@HANDED_OVER
def test_the_task_ends_and_dependencies_are_released_before_anything_is_delivered(way: str) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        for n in range(3):
            await world.live.publish("log/a", f"m{n}")
        async with open_client(port, "log/a?since=-1", additional_headers={"user": "me"}) as client:
            assert [await client.recv() for _ in range(3)] == ["m0", "m1", "m2"]
            await eventually(lambda: "the task ends" in world.notes, "the end of the task")
            assert not state.tasks
            assert world.notes == [
                "opened",
                "inner opened",
                "subscribe None by me",
                "inner released, 0 delivered",
                "released, 0 delivered",
                "the task ends",
            ]
            assert [type(one) for one in state.connections] == [OpenSocket]
            await world.live.publish("log/a", "after")
            assert await client.recv() == "after"
        await eventually(lambda: not state.connections, "the end of the connection")
        assert world.live.stats()["connections"] == world.opened == 0

    play(way, scenario)


@HANDED_OVER
def test_the_scope_goes_and_what_rights_are_asked_with_stays(way: str) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        for topic in ("quiet/a", "log/a"):
            async with open_client(port, topic, additional_headers={"user": "me"}) as client:
                await eventually(lambda: world.opened == 1, "the subscription")
                await eventually(lambda: not world.is_marked(), "the end of the scope", pause_s=0.05)
                await world.live.publish(topic, "x")
                assert await client.recv() == "x"
                if topic == "log/a":
                    await client.send("y")
                    assert await client.recv() == "y"
            await eventually(lambda: world.opened == 0, "the end of the subscription")
        assert "publish 'y' by me" in world.notes

    play(way, scenario)


@pytest.mark.parametrize("way", ["ours", "our-ws"])
def test_nothing_that_has_ended_waits_for_the_garbage_collector(way: str) -> None:
    """Thousands of connections may end at once, and each cycle among what they were would hold up the loop."""

    async def scenario(world: World, port: int, state: Any) -> None:
        commands = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"quiet/a"}}'
        gc.collect()
        gc.disable()
        # of other tests
        before = _living()
        try:
            for path in ("quiet/a", "log/a", "-/session"):
                async with open_client(port, path) as client:
                    if path == "-/session":
                        await client.send(commands)
                    await eventually(lambda: world.opened == 1, "the subscription")
                    await world.live.publish("log/a" if path == "log/a" else "quiet/a", "x")
                    while "x" not in await client.recv():
                        pass
                    assert len(_living()) > len(before), "what a connection is"
                await eventually(lambda: not state.connections, "the end of the connection")
            await eventually(lambda: len(_living()) == len(before), "the end of all that they were")
        finally:
            gc.enable()

    play(way, scenario, **({"http": HttpProtocol} if way == "our-ws" else {}))


def _living() -> list[Any]:
    kinds = (OpenSocket, Protocol, HttpProtocol, SocketConnection, Outbox, Subscription, Session, SessionReader)
    return [one for one in gc.get_objects() if type(one) in kinds]


@EVERY_WAY
def test_rights_are_asked_for_with_each_message(way: str) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with open_client(port, "log/a", additional_headers={"user": "me"}) as client:
            await client.send("one")
            assert await client.recv() == "one"
            await client.send("two")
            assert await client.recv() == "two"
            world.banned = True
            await client.send("three")
            await client.send("four")
            with pytest.raises(ConnectionClosed) as told:
                await client.recv()
            assert told.value.rcvd is not None
            assert (told.value.rcvd.code, told.value.rcvd.reason) == (1008, "not any more")
        asked = [note for note in world.notes if note.startswith("publish")]
        assert asked == [f"publish '{text}' by me" for text in ("one", "two", "three")]
        assert await world.texts("log/a") == ["one", "two"]

    play(way, scenario)


@EVERY_WAY
def test_messages_behind_the_handshake_are_published_in_order(way: str) -> None:
    """Some are there before the route has accepted, some come while the socket changes hands."""

    async def scenario(world: World, port: int, state: Any) -> None:
        async with Hand.to(port) as hand:
            expected = [f"m{n}" for n in range(100)]
            frames = [frame(TEXT, text.encode()) for text in expected]
            hand.send(upgrade("/live/late/a"))
            await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
            hand.send(b"".join(frames[:40]))
            await asyncio.sleep(0)
            hand.send(b"".join(frames[40:60]))
            for _ in range(10):
                await asyncio.sleep(0)
            world.go.set()
            hand.send(b"".join(frames[60:80]))
            await hand.accepted()
            for each in frames[80:]:
                hand.send(each)
                await asyncio.sleep(0)
            await world.until_texts("late/a", expected)

    play(way, scenario)


def test_messages_in_the_packet_of_the_handshake_are_published_in_order() -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        async with Hand.to(port) as hand:
            expected = [f"m{n}" for n in range(50)]
            hand.send(upgrade("/live/log/a") + b"".join(frame(TEXT, text.encode()) for text in expected))
            await hand.accepted()
            await world.until_texts("log/a", expected)

    play("ours", scenario)


@HANDED_OVER
def test_a_message_and_goodbye_is_a_publish(way: str) -> None:
    """Many programs do nothing else."""

    async def scenario(world: World, port: int, state: Any) -> None:
        for n in range(20):
            client: ClientConnection
            async with open_client(port, "log/a") as client:
                for m in range(3):
                    await client.send(f"{n}.{m}")
            # it has gone, and what it said may still be on its way
            await world.until_texts("log/a", [f"{k}.{m}" for k in range(n + 1) for m in range(3)])
        async with Hand.to(port) as hand:
            hand.send(upgrade("/live/log/a"))
            await hand.accepted()
            hand.send(frame(TEXT, b"last") + frame(CLOSE, close_payload(1000)))
            assert (await hand.frames(1))[-1].opcode in (TEXT, CLOSE)
        expected = [f"{n}.{m}" for n in range(20) for m in range(3)] + ["last"]
        await world.until_texts("log/a", expected)
        await eventually(lambda: not world.live.stats()["connections"], "the end of all connections")
        assert len(asyncio.all_tasks()) < 10

    play(way, scenario)


@HANDED_OVER
def test_a_client_that_goes_while_it_is_being_asked_for_leaves_nothing(way: str) -> None:
    async def scenario(world: World, port: int, state: Any) -> None:
        for how in ("cut", "closed"):
            world.go.clear()
            world.notes.clear()
            async with Hand.to(port) as hand:
                hand.send(upgrade("/live/late/a"))
                await eventually(lambda: "asked subscribe" in world.notes, "the topic function")
                if how == "closed":
                    hand.send(frame(CLOSE, close_payload(1000)))
                    for _ in range(10):
                        await asyncio.sleep(0)
            world.go.set()
            await eventually(lambda: "the task ends" in world.notes, "the end of the task")
            await eventually(lambda: not state.connections and not state.tasks, "the end of the connection")
            assert world.live.stats()["connections"] == world.opened == 0

    play(way, scenario)
