"""``Client`` against the real server, with a line between them that can be cut or go dead."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pydantic
import pytest

from tests.client.fakes import quick
from tests.client.servers import listening, run
from tests.client.test_with_server import serving
from tidewire import CallError, Deny, Latest, Limits, Live, Log, Operation, Signal, Tokens, Welcome
from tidewire.client.errors import CallRefused, CommandRefused, NotASession, Refused, TopicFailed, Unsubscribed
from tidewire.client.session.client import Client
from tidewire.client.session.messages import MemberChange
from tidewire.testing import ManualClock

SECRET = "a secret of at least thirty-two bytes"


class Order(pydantic.BaseModel):
    item: str
    n: int = 1


def make_live(**options: Any) -> Live:
    live = Live(**options)

    @live.topic("log/{name}", policy=Log(keep=100_000), publish=True)
    async def log(name: str) -> None: ...

    @live.topic("short/{name}", policy=Log(keep=10), publish=True)
    async def short(name: str) -> None: ...

    @live.topic("chain/{name}", policy=Latest(key="id"), publish=True)
    async def chain(name: str) -> None: ...

    @live.topic("typing/{name}", policy=Signal(), publish=True)
    async def typing(name: str) -> None: ...

    @live.topic("room/{name}", policy=Log(), presence=True, publish=True)
    async def room(name: str) -> None: ...

    @live.topic("members/{name}", policy=Log())
    async def members(name: str) -> None:
        raise Deny("members only, ask the door keeper")

    @live.call("order.place")
    async def place(order: Order) -> dict[str, Any]:
        if order.n > 10:
            raise CallError(1409, "there are only ten of these")
        return {"item": order.item.upper(), "n": order.n}

    return live


class Relay:
    """A line to a server: ``cut`` it, or let it go dead (``swallow``: sockets open, and nobody there)."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._server_port = port
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        # those of them that are dead
        self._swallowed: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection there is breaks."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()
        self._pairs.clear()

    def swallow(self) -> None:
        """Nothing gets through any more on the connections there are; neither side is told."""
        for pair in self._pairs:
            self._swallowed.update(pair)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if writer not in self._swallowed:
                    writer.write(data)
                    await writer.drain()
        if writer not in self._swallowed:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._pairs.append((writer, back))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                group.create_task(self._pump(there, writer))
        finally:
            back.transport.abort()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[tuple["Relay", str]]:
        """Stand before the server at ``url``; yields the relay and the URL through it."""
        port = int(url.split(":")[2].partition("/")[0])
        relay = cls(port)
        async with listening(relay._talk) as relay.port:
            yield relay, url.replace(f":{port}", f":{relay.port}")


async def until(condition: Any) -> None:
    """Let the loop go round until it holds; the test has a deadline."""
    while not condition():
        await asyncio.sleep(0.001)


# What it is for


@pytest.mark.parametrize("protobuf", [False, True])
def test_everything_once(protobuf: bool) -> None:
    async def main() -> None:
        live = make_live()

        @live.on_connect
        async def hello(op: Operation) -> dict[str, Any]:
            return {"you sent": op.data}

        heard: list[Any] = []

        @live.on_message
        async def take(op: Operation) -> None:
            heard.append(op.data)

        async with serving(live) as url, Client(url, protobuf=protobuf, data=[1]) as client:
            assert client.welcome == {"you sent": [1]}
            async with client.subscribe("room/a", members=True) as messages:
                for value in ({"a": 1}, [1, 2], "grüße\n", None, 1.5):
                    await client.publish("room/a", value)
                    assert (await messages.next()).data == value
                members = messages.members()
                change = await anext(members)
                assert change.kind == "join"
                assert change.member is not None
                assert change.member.client == client.id
                assert await client.presence("room/a") == [change.member]
                stats = await client.presence_stats("room/a")
                assert (stats.connections, stats.users) == (1, 1)
                history = await client.history("room/a", limit=2, reverse=True)
                assert [message.data for message in history.messages] == [1.5, None]
                assert history.position == messages.position
            assert await client.call("order.place", Order(item="tea", n=3), type=Order) == Order(item="TEA", n=3)
            with pytest.raises(CallRefused, match="only ten of these") as caught:
                await client.call("order.place", {"item": "tea", "n": 11})
            assert isinstance(caught.value, CallError)
            assert caught.value.code == 1409
            await client.send({"bye": 1})
            await until(lambda: heard)
            assert heard == [{"bye": 1}]

    run(main())


def test_bytes_travel_both_ways() -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Client(url, protobuf=True) as binary,
            Client(url) as readable,
            binary.subscribe("log/a") as first,
            readable.subscribe("log/a") as second,
        ):
            await binary.publish("log/a", b"\xff\x00")
            assert [(await each.next()).data for each in (first, second)] == [b"\xff\x00"] * 2

    run(main())


def test_refusals_are_sentences() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            async with Client(url) as client:
                with pytest.raises(CommandRefused, match="to subscribe to 'members/a' was refused: members only"):
                    async with client.subscribe("members/a"):
                        pass
                with pytest.raises(CommandRefused, match="no such topic here"):
                    await client.publish("nowhere", 1)
                with pytest.raises(CommandRefused, match="has no presence: declare it with presence=True"):
                    await client.presence("log/a")
                with pytest.raises(CallRefused, match="104"):
                    await client.call("nothing")
            with pytest.raises(Refused, match="by the URL of the router"):
                async with Client(url.replace("/live", "/nowhere")):
                    pass
            with pytest.raises(Refused, match="evil") as caught:
                async with Client(url, origin="https://evil.example"):
                    pass
            assert caught.value.status == 403

    run(main())


def test_what_is_no_session() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            with pytest.raises(NotASession, match="speaks no session"):
                # a topic, which echoes what it gets
                async with Client(f"{url}/log/websocket"):
                    pass

    run(main())


# Coming back


@pytest.mark.parametrize("protobuf", [False, True])
def test_cut_again_and_again_it_misses_nothing(protobuf: bool) -> None:
    async def main() -> None:
        live, chance = make_live(), random.Random(11)
        async with (
            serving(live) as url,
            Relay.before(url) as (relay, through),
            Client(through, protobuf=protobuf, backoff=quick()) as client,
            client.subscribe("log/a") as messages,
        ):

            async def publish() -> None:
                for number in range(3000):
                    await live.publish("log/a", number)
                    if chance.random() < 0.01:
                        await asyncio.sleep(chance.random() * 0.01)
                    if chance.random() < 0.01:
                        relay.cut()

            publishing = asyncio.create_task(publish())
            got = [await messages.next() for _ in range(3000)]
            await publishing
            assert [message.data for message in got] == list(range(3000))
            assert [message.gap for message in got if message.gap] == []

    run(main())


def test_away_for_too_long_is_told_how_much_is_lost() -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Relay.before(url) as (relay, through),
            Client(through, backoff=quick()) as client,
            client.subscribe("short/a") as messages,
        ):
            first = await live.publish("short/a", 0)
            assert (await messages.next()).data == 0
            relay.cut()
            for number in range(1, 31):
                await live.publish("short/a", number)
            await messages.wait_for("subscribing")
            await messages.wait_for("subscribed")
            assert messages.state.recovered is False
            await live.publish("short/a", 31)
            message = await messages.next()
            assert (message.data, message.gap) == (31, messages.state.lost)
            assert message.gap is not None
            assert (message.gap.from_position, message.gap.missing) == (first, 30)

    run(main())


def test_a_restarted_server_has_lost_its_history_and_says_so() -> None:
    async def main() -> None:
        reasons: list[str] = []
        async with contextlib.AsyncExitStack() as stack:
            first = contextlib.AsyncExitStack()
            live = make_live()
            url = await first.enter_async_context(serving(live))
            options = {"backoff": quick(), "on_state": lambda state: reasons.append(state.reason)}
            client = await stack.enter_async_context(Client(url, **options))
            messages = await stack.enter_async_context(client.subscribe("log/a"))
            before = await live.publish("log/a", "before")
            assert (await messages.next()).data == "before"
            await first.aclose()
            again = make_live()
            port = int(url.split(":")[2].partition("/")[0])
            await stack.enter_async_context(serving(again, port))
            await client.wait_for("connected")
            await messages.wait_for("subscribed")
            after = await again.publish("log/a", "after")
            message = await messages.next()
            assert (message.data, message.position) == ("after", after)
            assert message.gap is not None
            assert message.gap.from_position == before
            assert message.gap.is_history_lost
            assert "the server stops or restarts (3001, shutdown)" in reasons
            await messages.aclose()
            await client.__aexit__(None, None, None)

    run(main())


def test_a_signal_says_after_a_cut_that_it_cannot_know() -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Relay.before(url) as (relay, through),
            Client(through, backoff=quick()) as client,
            client.subscribe("typing/a") as messages,
        ):
            await live.publish("typing/a", 1)
            first = await messages.next()
            relay.cut()
            await messages.wait_for("subscribing")
            await messages.wait_for("subscribed")
            await live.publish("typing/a", 2)
            second = await messages.next()
            assert (first.data, first.position, first.gap) == (1, None, None)
            assert (second.data, second.gap is not None) == (2, True)
            assert second.gap is not None
            assert second.gap.missing is None

    run(main())


def test_a_half_open_predecessor_is_replaced() -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Relay.before(url) as (relay, through),
            Client(url) as watcher,
            watcher.subscribe("room/a", members=True) as watched,
            Client(through, backoff=quick()) as client,
            client.subscribe("room/a") as messages,
        ):
            members = watched.members()
            assert [(await anext(members)).kind for _ in range(2)] == ["join", "join"]
            name = client.id
            relay.swallow()
            # the client gives the line up; the server knows nothing of it
            assert client._shell._wire is not None
            client._shell._wire.abort()
            await client.wait_for("disconnected")
            await live.publish("room/a", "meanwhile")
            await messages.wait_for("subscribed")
            await live.publish("room/a", "after")
            assert [(await messages.next()).data for _ in range(2)] == ["meanwhile", "after"]
            assert client.id == name
            assert {member.client for member in await watcher.presence("room/a")} == {name, watcher.id}
            assert live.stats()["sessions"] == 2
            # it never left, so nobody hears that it came
            await client.publish("room/a", "still here")
            assert (await messages.next()).data == "still here"
            assert watched._track is not None
            assert len(watched._track.changes) == 0

    run(main())


def test_a_mirror_stays_current_over_cuts_and_restarts() -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Relay.before(url) as (relay, through),
            Client(through, backoff=quick()) as client,
        ):
            for key in ("x", "y", "z"):
                await live.publish("chain/a", {"id": key, "v": 1})
            async with client.mirror("chain/a", key="id") as values:
                await values.until(lambda values: len(values) == 3)
                relay.cut()
                await values.until(lambda values: not values.is_current)  # type: ignore[attr-defined]
                await live.publish("chain/a", {"id": "y", "v": 2})
                await live.forget("chain/a", "x")
                await values.until(lambda values: "x" not in values)
                assert dict(values) == {"y": {"id": "y", "v": 2}, "z": {"id": "z", "v": 1}}

    run(main())


def test_a_mirror_of_a_pattern_is_by_topic() -> None:
    async def main() -> None:
        live = make_live()

        @live.topic("quotes/{symbol}", policy=Latest(), patterns=True)
        async def quotes(symbol: str | None = None) -> None: ...

        async with serving(live) as url, Client(url) as client, client.mirror("quotes/*") as values:
            for symbol, price in (("A", 1), ("B", 2), ("A", 3)):
                await live.publish(f"quotes/{symbol}", price)
            await values.until(lambda values: values.get("quotes/A") == 3)
            assert dict(values) == {"quotes/A": 3, "quotes/B": 2}

    run(main())


# Consumers and ends


@pytest.mark.parametrize("protobuf", [False, True])
def test_a_slow_consumer_loses_nothing_that_is_kept(protobuf: bool) -> None:
    async def main() -> None:
        live = make_live()
        async with (
            serving(live) as url,
            Client(url, protobuf=protobuf) as client,
            client.subscribe("log/a", buffer_messages=50) as slow,
            client.subscribe("log/b") as other,
        ):
            for number in range(2000):
                await live.publish("log/a", number)
            await slow.wait_for("subscribing")
            # the other one is not held up
            await live.publish("log/b", "here")
            assert (await other.next()).data == "here"
            got = [await slow.next() for _ in range(2000)]
            assert [message.data for message in got] == list(range(2000))
            assert [message.gap for message in got if message.gap] == []

    run(main())


def test_the_end_of_a_topic() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url, Client(url) as client:
            async with client.subscribe("log/a") as messages:
                await live.publish("log/a", 1)
                await live.finish("log/a")
                assert [message.data async for message in messages] == [1]
            async with client.subscribe("log/b") as messages:
                await live.finish("log/b", error="model crashed")
                with pytest.raises(TopicFailed, match="model crashed"):
                    await messages.next()

    run(main())


def test_what_the_application_does_to_a_user() -> None:
    async def main() -> None:
        live = make_live(tokens=Tokens(secret=SECRET))
        token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")
        async with serving(live) as url, Client(url, token=token, backoff=quick()) as client:
            async with client.subscribe("room/a") as messages:
                assert [member.user for member in await client.presence("room/a")] == ["ann"]
                await live.send("ann", {"for": "you"})
                assert (await client.messages().next()).data == {"for": "you"}
                await live.unsubscribe("ann", "room/a")
                with pytest.raises(Unsubscribed, match="room/a"):
                    await messages.next()
            await live.disconnect("ann", may_come_back=True)
            await client.wait_for("disconnected")
            await client.wait_for("connected")
            await live.disconnect("ann")
            with pytest.raises(Refused) as caught:
                await client.messages().next()
            assert caught.value.code == 3503

    run(main())


def test_a_topic_of_the_servers_choice() -> None:
    async def main() -> None:
        live = make_live()

        @live.on_connect
        async def hello() -> Welcome:
            return Welcome(topics=["log/a"])

        async with serving(live) as url, Relay.before(url) as (relay, through):
            await live.publish("log/a", 0)
            async with Client(through, backoff=quick()) as client:
                assert client.offered == ["log/a"]
                await live.publish("log/a", 1)
                async with client.subscribe("log/a") as messages:
                    assert (await messages.next()).data == 1
                    relay.cut()
                    await messages.wait_for("subscribing")
                    await live.publish("log/a", 2)
                    message = await messages.next()
                    assert (message.data, message.gap) == (2, None)

    run(main())


# Tokens


def test_tokens_are_renewed_before_they_end() -> None:
    async def main() -> None:
        # time goes on for the client alone, so the server's pings do not come with it
        live = make_live(tokens=Tokens(secret=SECRET), limits=Limits(session_ping_s=100_000))
        clock, made, states = ManualClock(), Counter[str](), list[str]()

        def get_token() -> str:
            made["connection"] += 1
            return jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")

        async def get_topic_token(topic: str) -> str:
            made[topic] += 1
            claims = {"sub": "ann", "channel": topic, "exp": int(time.time()) + 600}
            return jwt.encode(claims, SECRET, algorithm="HS256")

        async with (
            serving(live) as url,
            Client(url, token=get_token, clock=clock, on_state=lambda state: states.append(state.name)) as client,
            client.subscribe("room/a", token=get_topic_token) as messages,
        ):
            for n in (2, 3):
                clock.advance(590)
                await until(lambda n=n: made == {"connection": n, "room/a": n})
                await client.publish("room/a", n)
                assert (await messages.next()).data == n
            assert messages.state.recovered is None, "it was never subscribed again"
            assert states == ["connecting", "connected"]

    run(main())


def test_an_expired_token_is_replaced_on_connecting() -> None:
    async def main() -> None:
        live = make_live(tokens=Tokens(secret=SECRET))
        moments = iter([-100, 600])

        def get_token() -> str:
            return jwt.encode({"sub": "ann", "exp": int(time.time()) + next(moments)}, SECRET, algorithm="HS256")

        async with serving(live) as url, Client(url, token=get_token, backoff=quick()) as client:
            assert client.state.name == "connected"

    run(main())


def test_a_forged_token_is_final() -> None:
    async def main() -> None:
        live = make_live(tokens=Tokens(secret=SECRET))
        token = jwt.encode({"sub": "ann"}, "another secret of thirty-two bytes, or more", algorithm="HS256")
        async with serving(live) as url:
            with pytest.raises((Refused, CommandRefused)) as caught:
                async with Client(url, token=token, wait=True):
                    pass
            assert token not in str(caught.value)

    run(main())


def test_members_hear_who_comes_and_who_goes() -> None:
    async def main() -> None:
        async with (
            serving(make_live()) as url,
            Client(url) as watcher,
            watcher.subscribe("room/a", members=True) as watched,
        ):
            changes: list[MemberChange] = []
            async with Client(url) as client, client.subscribe("room/a"):
                name = client.id
            members = watched.members()
            while len(changes) < 3:
                changes.append(await anext(members))
            assert [(one.kind, one.member and one.member.client) for one in changes] == [
                ("join", watcher.id),
                ("join", name),
                ("leave", name),
            ]

    run(main())
