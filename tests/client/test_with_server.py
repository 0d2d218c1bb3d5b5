"""subscribe() and publish() against the real server, in one process."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from tests.client.fakes import States, quick, run
from tidewire import Deny, Latest, Limits, Live, Log, Signal
from tidewire.client.errors import Refused, TopicFailed
from tidewire.client.publish import publish
from tidewire.client.resume import Gap, Received
from tidewire.client.topic import Subscription, subscribe
from tidewire.server.run import Server, bind, make_config

KEEP = 50


def make_live(**options: Any) -> Live:
    live = Live(**options)

    @live.topic("log/{name}", policy=Log(keep=KEEP), publish=True)
    async def log(name: str) -> None: ...

    @live.topic("chain/{name}", policy=Latest(key="id"), publish=True)
    async def chain(name: str) -> None: ...

    @live.topic("state/{name}", policy=Latest())
    async def state(name: str) -> dict[str, int]:
        return {"now": 1}

    @live.topic("typing/{name}", policy=Signal(), publish=True)
    async def typing(name: str) -> None: ...

    @live.topic("members/{name}", policy=Log(), publish=True)
    async def members(name: str) -> None:
        raise Deny("members only, ask the door keeper")

    @live.topic("quiet/{name}", policy=Log())
    async def quiet(name: str) -> None: ...

    return live


@asynccontextmanager
async def serving(live: Live, port: int = 0) -> AsyncIterator[str]:
    """The server on loopback; yields the URL of the router and is gone afterwards."""
    app = FastAPI()
    app.include_router(live.router, prefix="/live")
    (sock,) = bind("127.0.0.1", port)
    listening = asyncio.Event()
    server = Server(make_config(app, log_config=None, log_level=None), lambda url: listening.set())
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        async with asyncio.timeout(10):
            await listening.wait()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/live"
    finally:
        server.should_exit = True
        await task
        sock.close()


def cut(messages: Subscription) -> None:
    """The line breaks: no close frame, no word."""
    assert messages._link is not None
    messages._link.abort()


def test_every_kind_arrives_as_it_was_published() -> None:
    things: list[Any] = [{"a": [1]}, [1, 2], [], "grüße\n[1]", b"\x00\xff", None, 7, 1.5]

    async def main() -> None:
        async with serving(make_live()) as url, subscribe(f"{url}/log/a") as messages:
            positions = [await publish(f"{url}/log/a", thing) for thing in things]
            got = [await messages.next() for _ in things]
        assert [message.data for message in got] == things
        assert [message.position for message in got] == positions
        assert [message.kind for message in got if isinstance(message.data, bytes)] == ["bytes"]

    run(main())


def test_cut_line_recovers_exactly_what_was_missed() -> None:
    async def main() -> None:
        live, states = make_live(), States()
        async with serving(live) as url:
            async with subscribe(f"{url}/log/a", on_state=states.append, backoff=quick()) as messages:
                await live.publish("log/a", 1)
                assert (await messages.next()).data == 1
                cut(messages)
                for number in range(2, 39):
                    await live.publish("log/a", number)
                assert [(await messages.next()).data for _ in range(37)] == list(range(2, 39))
            assert [(s.name, s.recovered, s.lost) for s in states if s.name == "live"] == [
                ("live", None, None),
                ("live", 37, None),
            ]

    run(main())


def test_away_for_too_long_is_told_how_much_is_lost() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url, subscribe(f"{url}/log/a", backoff=quick()) as messages:
            first = await live.publish("log/a", 0)
            await messages.next()
            cut(messages)
            for number in range(1, KEEP + 8):
                await live.publish("log/a", number)
            message = await messages.next()
            assert message.gap is not None
            assert (message.gap.from_position, message.gap.missing) == (first, 7)
            assert message.data == 8

    run(main())


def test_everything_kept() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url:
            for number in range(5):
                await live.publish("log/a", number)
            async with subscribe(f"{url}/log/a", since="-1") as messages:
                got = [await messages.next() for _ in range(5)]
        assert [(message.data, message.gap) for message in got] == [(number, None) for number in range(5)]

    run(main())


def test_position_goes_on_in_another_subscription() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url:
            positions = [await live.publish("log/a", number) for number in range(5)]
            async with subscribe(f"{url}/log/a", since=positions[2]) as messages:
                assert [(await messages.next()).data for _ in range(2)] == [3, 4]

    run(main())


def test_restarted_server_has_lost_its_history_and_says_so() -> None:
    async def main() -> None:
        states = States()
        async with serving(make_live()) as url:
            messages = subscribe(f"{url}/log/a", on_state=states.append, backoff=quick())
            await messages.__aenter__()
            await publish(f"{url}/log/a", "before")
            assert (await messages.next()).data == "before"
        again = make_live()
        async with serving(again, int(url.split(":")[2].partition("/")[0])), messages:
            task = asyncio.create_task(messages.next())
            while states.names.count("live") < 2:
                await asyncio.sleep(0.005)
            await again.publish("log/a", "after")
            message = await task
        assert message.data == "after"
        assert message.gap is not None
        assert message.gap.is_history_lost
        assert any(state.reason.startswith("the server is restarting (1012") for state in states)

    run(main())


def test_finished_topic_ends_the_loop_now_and_later() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url:
            async with subscribe(f"{url}/log/a") as messages:
                await live.publish("log/a", 1)
                await live.finish("log/a")
                assert [m.data async for m in messages] == [1]
            assert [m.data async for m in subscribe(f"{url}/log/a", since="-1")] == [1]
            await live.publish("log/b", 1)
            await live.finish("log/b", error="model crashed")
            with pytest.raises(TopicFailed, match="model crashed"):
                await subscribe(f"{url}/log/b").next()
            with pytest.raises(Refused):
                await publish(f"{url}/log/a", 2)

    run(main())


def test_latest_shows_the_state_and_what_changed_meanwhile() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url:
            for key in ("x", "y", "z"):
                await live.publish("chain/a", {"id": key, "v": 1})
            async with subscribe(f"{url}/chain/a", backoff=quick()) as messages:
                got = [await messages.next() for _ in range(3)]
                assert [(m.key, m.data["v"]) for m in got] == [("x", 1), ("y", 1), ("z", 1)]
                cut(messages)
                await live.publish("chain/a", {"id": "y", "v": 2})
                await live.forget("chain/a", "x")
                got = [await messages.next() for _ in range(2)]
                assert [(m.key, m.removed, m.data) for m in got] == [
                    ("y", False, {"id": "y", "v": 2}),
                    ("x", True, None),
                ]
                assert [m.gap for m in got] == [None, None]

    run(main())


def test_snapshot_of_the_topic_function_is_marked() -> None:
    async def main() -> None:
        live = make_live()
        async with serving(live) as url, subscribe(f"{url}/state/a", backoff=quick()) as messages:
            message = await messages.next()
            assert (message.data, message.snapshot, message.gap) == ({"now": 1}, True, None)
            await live.publish("state/a", {"now": 2})
            assert (await messages.next()).data == {"now": 2}

    run(main())


def test_signal_says_after_a_cut_that_it_cannot_know() -> None:
    async def main() -> None:
        live, states = make_live(), States()
        async with (
            serving(live) as url,
            subscribe(f"{url}/typing/a", on_state=states.append, backoff=quick()) as messages,
        ):
            assert await publish(f"{url}/typing/a", 1) is None
            assert await messages.next() == Received(1)
            cut(messages)
            task = asyncio.create_task(messages.next())
            while states.names.count("live") < 2:
                await asyncio.sleep(0.005)
            await live.publish("typing/a", 2)
            assert await task == Received(2, gap=Gap(None, None))

    run(main())


@pytest.mark.parametrize(
    ("topic", "status", "sentence"),
    [
        ("members/a", 403, "members only, ask the door keeper"),
        ("unknown/a", 404, "unknown/a"),
        ("log//a", 404, "a segment between slashes is empty"),
        ("log/a?since=bogus", 400, "is not a position"),
    ],
)
def test_refusals_of_a_reader(topic: str, status: int, sentence: str) -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            with pytest.raises(Refused, match=sentence) as caught:
                await subscribe(f"{url}/{topic}", wait=True, backoff=quick()).next()
            assert caught.value.status == status

    run(main())


def test_foreign_origin_is_refused() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            with pytest.raises(Refused) as caught:
                await subscribe(f"{url}/log/a", origin="https://evil.example").next()
            assert caught.value.status == 403

    run(main())


@pytest.mark.parametrize(
    ("topic", "obj", "status"),
    [("members/a", 1, 403), ("unknown/a", 1, 404), ("log/a", "x" * 2000, 413), ("chain/a", {"no": "key"}, 400)],
)
def test_refusals_of_a_publisher(topic: str, obj: object, status: int) -> None:
    async def main() -> None:
        async with serving(make_live(limits=Limits(message_bytes_max=1000))) as url:
            with pytest.raises(Refused) as caught:
                await publish(f"{url}/{topic}", obj)
            assert caught.value.status == status
            assert len(caught.value.detail) > 10

    run(main())


def test_publishing_where_it_is_not_allowed() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            with pytest.raises(Refused) as caught:
                await publish(f"{url}/quiet/a", 1)
            assert caught.value.status in (403, 405)

    run(main())


def test_same_id_publishes_once() -> None:
    async def main() -> None:
        async with serving(make_live()) as url:
            first = await publish(f"{url}/log/a", 1, id="order-7")
            assert await publish(f"{url}/log/a", 1, id="order-7") == first
            async with subscribe(f"{url}/log/a", since="-1") as messages:
                await publish(f"{url}/log/a", 2)
                assert [(await messages.next()).data for _ in range(2)] == [1, 2]

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_random_cuts_lose_nothing_silently(seed: int) -> None:
    """The oracle is a plain list: what arrives is a contiguous slice, or the break is told and counted."""
    rng = random.Random(seed)

    async def main() -> None:
        live, published = make_live(), 600
        async with serving(live) as url, subscribe(f"{url}/log/a", backoff=quick()) as messages:

            async def produce() -> None:
                for number in range(1, published + 1):
                    await live.publish("log/a", number)
                    if rng.random() < 0.05:
                        await asyncio.sleep(0.001)

            producer = asyncio.create_task(produce())
            last = gaps = 0
            while last < published:
                message = await messages.next()
                missing = message.data - last - 1
                assert missing == (0 if message.gap is None else message.gap.missing)
                gaps += message.gap is not None
                last = message.data
                if rng.random() < 0.01:
                    cut(messages)
            await producer

    run(main())


def test_reader_that_stalls_is_evicted_comes_back_and_is_told() -> None:
    async def main() -> None:
        live, states, published = make_live(), States(), 2000
        async with serving(live) as url:
            async with subscribe(f"{url}/log/a", on_state=states.append, backoff=quick()) as messages:
                for number in range(1, published + 1):
                    await live.publish("log/a", {"n": number, "padding": "x" * 10_000})
                last = gaps = 0
                while last < published:
                    message = await messages.next()
                    missing = message.data["n"] - last - 1
                    assert missing == (0 if message.gap is None else message.gap.missing)
                    gaps += message.gap is not None
                    last = message.data["n"]
            assert gaps >= 1
            assert "reconnecting" in states.names

    run(main())
