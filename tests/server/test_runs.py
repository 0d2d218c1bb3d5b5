"""``live.publish_from``: runs that go to their end, outlive their request, are joined and bounded. No ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from tests.server.driver import HttpCall, request
from tests.server.producers import MANY, Producer, Unused, declare, play, read_all
from tidewire import (
    BadTopic,
    Limits,
    Live,
    NotRunning,
    RunCancelled,
    RunIdTaken,
    TooManyRuns,
    UnknownTopic,
)
from tidewire.testing import ManualClock, Probe
from tidewire.testing.lifespan import Lifespan

# To the end


def test_items_are_published_and_the_topic_is_finished() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", Producer("text", {"a": 1}, b"\x00", 5)())
        assert (run.topic, run.run_id, run.started, run.done, run.published) == ("out/a", None, True, False, 0)
        last = await run
        assert (run.done, run.published) == (True, 4)
        assert await read_all(app, "out/a") == (["text", {"a": 1}, "AA==", 5], None)
        kept = await request(app, "GET", "/live/out/a?offset=-1")
        assert kept.headers["stream-next-offset"] == last
        assert await run == last  # as often as one likes

    play(scenario)


def test_nothing_is_numbered_where_nothing_is_kept_and_an_empty_stream_ends_too() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        assert await live.publish_from("signal", Producer("a")()) is None
        assert await live.publish_from("out/empty", Producer()()) is None
        assert await read_all(app, "out/empty") == ([], None)

    play(scenario)


def test_an_iterable_that_makes_its_iterator_is_closed_with_it() -> None:
    class Stream(Unused):
        def __aiter__(self) -> Any:
            return Producer("a", "b")()

    async def scenario(app: FastAPI, live: Live) -> None:
        stream = Stream()
        await live.publish_from("out/a", stream)
        assert stream.closed.is_set()
        assert (await read_all(app, "out/a"))[0] == ["a", "b"]

    play(scenario)


def test_unfinished_topics_go_on_after_an_end_an_error_and_a_cancellation() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish_from("out/a", Producer("1")(), finish=False)
        with pytest.raises(ValueError, match="no"):
            await live.publish_from("out/a", Producer("2", error=ValueError("no"))(), finish=False)
        held = Producer("never", free=False)
        run = live.publish_from("out/a", held(), finish=False)
        await held.asked.wait()
        run.cancel()
        with pytest.raises(RunCancelled):
            await run
        await live.publish("out/a", "3")
        await live.finish("out/a")
        assert await read_all(app, "out/a") == (["1", "2", "3"], None)

    play(scenario)


def test_a_producer_that_never_waits_starves_nobody() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(MANY):
            yield number

    async def scenario() -> None:
        live, app = Live(), FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        async with asyncio.timeout(20), Probe(app) as probe:
            reader = await probe.subscribe("out/many")
            run = live.publish_from("out/many", numbers())
            # somebody else who wants to run meanwhile, and to see the run in the middle of it
            seen = set[int]()
            while not run.done:
                seen.add(run.published)
                await asyncio.sleep(0)
            assert len(seen) > 20
            assert [(await reader.next()).data for _ in range(MANY)] == list(range(MANY))
            with pytest.raises(StopAsyncIteration):
                await reader.next()
            assert live.stats()["evicted"] == 0

    asyncio.run(scenario())


# Detached


def test_a_run_outlives_the_request_that_began_it() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", "b", free=False)

        @app.post("/ask")
        async def ask() -> Any:
            return {"last": await live.publish_from("out/a", held(), run_id="r")}

        call = HttpCall(app, "POST", "/ask").begin()
        await held.asked.wait()
        assert call._task is not None
        call._task.cancel()
        await call.finished()
        run = live.run_of("r")
        assert run is not None
        assert not run.done
        held.go.set()
        await run
        assert await read_all(app, "out/a") == (["a", "b"], None)
        assert (held.began, held.closed) == (1, 1)

    play(scenario)


def test_several_wait_and_one_that_gives_up_stops_nothing() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", free=False)
        run = live.publish_from("out/a", held())

        async def wait() -> str | None:
            return await run

        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await held.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0)
        held.go.set()
        assert await second == await run is not None

    play(scenario)


# Joining


class Given(Unused):
    """Gives what another iterator gives."""

    def __init__(self, inner: AsyncIterator[Any]) -> None:
        super().__init__()
        self.inner = inner

    async def __anext__(self) -> Any:
        return await anext(self.inner)


def test_the_same_id_joins_and_the_producer_runs_once() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held, unused, generator = Producer("a", free=False), Unused(), Producer("b")
        first = live.publish_from("out/a", held(), run_id="r")
        await held.asked.wait()
        second = live.publish_from("out/a", unused, run_id="r")
        third = live.publish_from("out/a", generator(), run_id="r")
        assert (first.started, second.started, third.started) == (True, False, False)
        await unused.closed.wait()
        held.go.set()
        assert await first == await second == await third
        assert await read_all(app, "out/a") == (["a"], None)
        assert (held.began, unused.asked, generator.began) == (1, 0, 0)

    play(scenario)


def test_the_same_iterator_given_twice_is_not_closed_under_its_run() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", free=False)
        given = Given(held())
        live.publish_from("out/a", given, run_id="r")
        await held.asked.wait()
        run = live.publish_from("out/a", given, run_id="r")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not given.closed.is_set()
        held.go.set()
        await run
        assert given.closed.is_set()
        assert await read_all(app, "out/a") == (["a"], None)

    play(scenario)


def test_a_run_that_has_ended_is_joined_for_a_while() -> None:
    clock = ManualClock()

    async def scenario(app: FastAPI, live: Live) -> None:
        last = await live.publish_from("out/a", Producer("a")(), run_id="r")
        with pytest.raises(KeyError):
            await live.publish_from("out/failed", Producer(error=KeyError("k"))(), run_id="failed")
        clock.advance(9.9)
        again = Producer("b")
        run = live.publish_from("out/a", again(), run_id="r")
        assert (run.started, run.done, await run, again.began) == (False, True, last, 0)
        with pytest.raises(KeyError):
            await live.publish_from("out/failed", again(), run_id="failed")
        clock.advance(0.2)
        assert live.run_of("r") is None
        assert live.run_of("failed") is None
        assert live.publish_from("out/b", again(), run_id="r").started  # forgotten, so also free for another topic

    play(scenario, clock=clock, limits=Limits(run_remembered_s=10))


def test_a_run_that_goes_on_is_never_forgotten() -> None:
    clock = ManualClock()

    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", free=False)
        live.publish_from("out/a", held(), run_id="r")
        for number in range(5):
            await live.publish_from(f"out/{number}", Producer()(), run_id=f"{number}")
        clock.advance(100)
        run = live.run_of("r")
        assert run is not None
        assert (run.started, run.done) == (False, False)
        held.go.set()
        await run

    play(scenario, clock=clock, limits=Limits(run_remembered_s=10, runs_remembered_max=2))


def test_the_runs_remembered_are_bounded() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for number in range(5):
            await live.publish_from(f"out/{number}", Producer()(), run_id=f"{number}")
        assert [number for number in range(5) if live.run_of(f"{number}")] == [2, 3, 4]
        assert len(live._runs._by_id) == len(live._runs._ended) == 3

    play(scenario, limits=Limits(runs_remembered_max=3))


def test_an_id_is_that_of_one_topic_and_without_one_every_run_is_new() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        live.publish_from("out/a", Producer("a")(), run_id="r")
        source = Unused()
        sentence = "'r' is that of a run for 'out/a', and this one is for 'out/b': give each run an id of its own"
        with pytest.raises(RunIdTaken, match=sentence):
            live.publish_from("out/b", source, run_id="r")
        assert not source.closed.is_set()
        runs = [live.publish_from("out/c", Producer("c")(), finish=False) for _ in range(3)]
        assert all(run.started for run in runs)
        await asyncio.gather(*runs)
        await live.finish("out/c")
        assert (await read_all(app, "out/c"))[0] == ["c"] * 3

    play(scenario)


def test_what_a_remembered_run_produced_from_is_let_go() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        source = Unused()
        run = live.publish_from("out/a", source, run_id="r")
        await run
        assert source.closed.is_set()
        assert not run._work.publishes(source)
        assert run._work._source is run._work._iterator is None

    play(scenario)


# What is refused at once


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (["a"], "and this is a list: write an async def that yields the items"),
        ("text", "and this is a str"),
        (iter("ab"), "and this is a str_ascii_iterator|and this is a str_iterator"),
        (None, "and this is a NoneType"),
        (Producer.__call__, "call it, as in publish_from\\(topic, __call__\\(\\)\\)"),
    ],
)
def test_only_async_iterators_are_taken(source: Any, words: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        with pytest.raises(TypeError, match=words):
            live.publish_from("out/a", source)

    play(scenario)


def test_a_coroutine_is_to_be_awaited_first() -> None:
    async def make() -> AsyncIterator[str]:
        return Producer("a")()

    async def scenario(app: FastAPI, live: Live) -> None:
        coroutine: Any = make()
        with pytest.raises(TypeError, match="this is a coroutine: await it first"):
            live.publish_from("out/a", coroutine)
        await live.publish_from("out/a", await coroutine)

    play(scenario)


@pytest.mark.parametrize("run_id", ["", 5, b"r"])
def test_an_id_is_a_text(run_id: Any) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        with pytest.raises(TypeError, match="run_id is a text that is not empty"):
            live.publish_from("out/a", Producer()(), run_id=run_id)

    play(scenario)


def test_a_topic_that_cannot_be_is_refused_at_the_call() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        source = Unused()
        with pytest.raises(UnknownTopic):
            live.publish_from("elsewhere", source)
        with pytest.raises(BadTopic):
            live.publish_from("out/*", source)
        assert not source.closed.is_set()
        assert live._runs._running == set()

    play(scenario)


def test_so_many_runs_at_once_and_no_more() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held = [Producer("a", free=False) for _ in range(3)]
        runs = [live.publish_from(f"out/{n}", held[n](), run_id=f"{n}") for n in range(2)]
        with pytest.raises(TooManyRuns, match="2 runs go on already: try again"):
            live.publish_from("out/2", held[2](), run_id="2")
        assert live.run_of("2") is None
        assert not live.publish_from("out/1", Unused(), run_id="1").started  # joining takes no room
        held[0].go.set()
        await runs[0]
        assert live.publish_from("out/2", held[2](), run_id="2").started
        held[1].go.set()
        held[2].go.set()

    play(scenario, limits=Limits(runs_max=2))


def test_it_needs_the_running_application_and_its_loop() -> None:
    live, app = Live(), FastAPI()
    app.include_router(live.router, prefix="/live")
    declare(live)
    source = Unused()

    def refused(words: str) -> None:
        with pytest.raises(NotRunning, match=words):
            live.publish_from("out/a", source)

    async def refused_here(words: str) -> None:
        refused(words)

    async def scenario() -> None:
        refused("call it after startup")
        async with Lifespan(app):
            await asyncio.to_thread(refused, "call it in the event loop, from an async def route or task")
            await asyncio.to_thread(lambda: asyncio.run(refused_here("another event loop than the application's")))
            await live.drain()
            refused("before shutdown")
        refused("call it after startup")

    refused("call it in the event loop")
    asyncio.run(scenario())
    assert not source.closed.is_set()
