"""A house with one hub, and topics' connections in it on lines without sockets: no ports, and time moved by hand."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from typing import Any

from tests.wire.fakes import FakeTransport
from tests.wire.frames import CLOSE, TEXT, Frame, close_payload, frame
from tidewire.brokers.base import Broker
from tidewire.brokers.memory import MemoryBroker
from tidewire.hub.hub import Hub
from tidewire.hub.policy import Log, Policy
from tidewire.hub.subscription import Reader, Subscription
from tidewire.limits import Limits
from tidewire.protocol.message import Draft, Kind
from tidewire.protocol.position import NOW, Position, Since
from tidewire.server.direct import SocketConnection
from tidewire.server.gate import Gate
from tidewire.server.inbound import Publishing
from tidewire.server.inner import Inner
from tidewire.server.origin import OriginRule
from tidewire.server.publisher import Publisher
from tidewire.server.readers import AS_FRAMES, BareReader, PositionsReader
from tidewire.server.site import Site
from tidewire.testing import ManualClock
from tidewire.wire.open import OpenSocket, Shared

TOPIC = "t"


class Line(FakeTransport):
    """A transport whose water mark a test can choose."""

    def __init__(self, high_water: int = 64 * 1024) -> None:
        super().__init__()
        self.high_water = high_water
        # what was written although the protocol had been told to wait
        self.imposed: list[bytes] = []

    def write(self, data: Any) -> None:
        if self._is_over_water:
            self.imposed.append(bytes(data))
        super().write(data)
        if len(self.buffered) > self.high_water and not self._is_over_water:
            self._is_over_water = True
            self._protocol.pause_writing()


class House:
    """A hub, a broker and a site, on a clock moved by hand. Needs a running loop; ``start`` it."""

    def __init__(self, *, broker: Broker | None = None, policy: Policy | None = None, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.clock = ManualClock()
        self.policy = policy or Log(keep=1000)
        self.broker = broker or MemoryBroker(clock=self.clock, limits=self.limits)
        self.hub = Hub(self.broker, limits=self.limits, clock=self.clock, flush_window_s=0.0)
        gate = Gate(Inner(deadline_s=10))
        publisher = Publisher(self.hub, gate, self.limits)
        self.site = Site(self.hub, gate, publisher, self.limits, OriginRule(()))
        self.shared = Shared(asyncio.get_running_loop(), set(), self.clock)

    async def start(self) -> House:
        await self.hub.start()
        return self

    async def publish(self, *texts: str | bytes) -> list[Position | None]:
        """Each is a message of its own; all in one pass of the loop unless they are many."""
        positions = []
        for text in texts:
            kind = Kind.TEXT if isinstance(text, str) else Kind.BYTES
            draft = Draft(text.encode() if isinstance(text, str) else text, kind)
            positions.append((await self.hub.publish(TOPIC, self.policy, draft)).position)
        return positions

    async def publish_value(self, value: dict[str, Any]) -> None:
        """One JSON object, keyed by its ``k`` on a ``Latest`` topic."""
        await self.hub.publish(TOPIC, self.policy, Draft(json.dumps(value).encode(), Kind.JSON, value.get("k")))

    async def finish(self, error: str | None = None) -> None:
        await self.hub.finish(TOPIC, self.policy, error)

    def check_empty(self) -> None:
        """Nothing is left of anybody."""
        assert not self.site.connections
        assert not self.site.addresses
        assert self.hub.subscriptions == 0
        assert not self.shared.connections
        assert len(self.shared.wheel) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


class Visitor:
    """One connection in a house, and its peer."""

    def __init__(
        self,
        house: House,
        *,
        publishing: Publishing | None = None,
        high_water: int = 64 * 1024,
        address: str = "10.0.0.1",
    ) -> None:
        self.house = house
        self.transport = Line(high_water)
        self.socket = OpenSocket(self.transport, house.shared, None, max_size=1 << 22)  # type: ignore[arg-type]
        self.connection = SocketConnection(
            self.socket, house.site, address, None if publishing is None else publishing.invite
        )
        self.socket.owner = self.connection
        self.socket.start()
        # what came of the subscription, once it is there
        self.subscription: Subscription | None = None
        self.is_bare = True

    def follow(self, *, bare: bool = True, since: Since = NOW, noted: Position | None = None) -> Visitor:
        """Subscribe to the house's topic, as the route does."""
        house = self.house
        self.is_bare = bare
        counts = isinstance(house.policy, Log)
        reader: Reader = (
            BareReader(self.connection, AS_FRAMES, every_message_counts=counts)
            if bare
            else PositionsReader(self.connection, AS_FRAMES)
        )

        async def subscribe() -> Subscription:
            self.subscription = await house.hub.subscribe(TOPIC, house.policy, reader, since=since, noted=noted)
            return self.subscription

        self.connection.follow(subscribe)
        return self

    # The peer

    def stall(self) -> None:
        self.transport.stall()

    def unstall(self) -> None:
        self.transport.unstall()

    def send(self, *messages: bytes) -> None:
        """Frames of the peer's."""
        self.transport.deliver(b"".join(messages))

    def say(self, *texts: str) -> None:
        self.send(*(frame(TEXT, text.encode()) for text in texts))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.send(frame(CLOSE, close_payload(code, reason)))

    def vanish(self) -> None:
        self.transport.lose()

    # What the peer has read

    @property
    def frames(self) -> list[Frame]:
        return self.transport.frames

    @property
    def texts(self) -> list[str]:
        return [one.payload.decode() for one in self.frames if one.opcode == TEXT]

    @property
    def envelopes(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]

    @property
    def goodbye(self) -> tuple[int, str] | None:
        """Code and reason of the close frame, which is the last frame."""
        found = [one for one in self.frames if one.opcode == CLOSE]
        if not found:
            return None
        assert self.frames[-1] is not None and self.frames[-1].opcode == CLOSE, "nothing comes after a close frame"
        assert len(found) == 1
        return found[0].close


async def passes(n: int = 10) -> None:
    """Let the event loop go round."""
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], what: str = "this") -> None:
    """Let the event loop go round until it holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{what} did not come about")


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


def opens(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test inside of an event loop, with a bound."""

    def wrapped(*given: Any, **values: Any) -> None:
        run(lambda: test(*given, **values))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    # what pytest fills in
    wrapped.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return wrapped
