"""Runs that fail, are cancelled, or are ended by a shutdown: who is told what, and what is left. No ports."""

from __future__ import annotations

import asyncio
import gc
import json
import traceback
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from tests.server.driver import HttpCall, SocketCall
from tests.server.producers import Producer, Unused, declare, errors, play, read_all
from tidewire import (
    BadPayload,
    Limits,
    Live,
    Run,
    RunCancelled,
    TopicFailed,
    TopicFinished,
)
from tidewire.testing import Probe
from tidewire.testing.lifespan import Lifespan

# What fails on the way


def test_a_producer_that_fails_is_logged_told_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        failing = Producer("a", "b", error=ValueError("the password is 1234"))
        reader = await SocketCall(app, "/live/out/a").open()
        with pytest.raises(ValueError, match="1234"):
            await live.publish_from("out/a", failing())
        await reader.closed()
        assert reader.frames == ["a", "b"]
        assert (reader.close_code, reader.close_reason) == (1000, "the producer failed (ValueError)")
        assert await read_all(app, "out/a") == (["a", "b"], "the producer failed (ValueError)")
        assert failing.closed == 1

    play(scenario)
    assert errors(caplog) == ["the producer for 'out/a' failed after 2 items"]
    assert "the password is 1234" in caplog.text  # the log has the traceback


def test_readers_with_the_python_client_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        live, app = Live(), FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        async with asyncio.timeout(20), Probe(app) as probe:
            run = live.publish_from("out/a", Producer("a", error=OSError("x"))())
            assert (await probe.next("out/a")).data == "a"
            with pytest.raises(TopicFailed, match="the producer failed \\(OSError\\)"):
                await probe.next("out/a")
            with pytest.raises(OSError, match="x"):
                await run

    asyncio.run(scenario())


def test_a_failure_that_nobody_awaits_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", Producer(error=ValueError("x"))())
        await run._work.over.wait()

    play(scenario)
    gc.collect()
    assert errors(caplog) == ["the producer for 'out/a' failed after 0 items"]


def test_tracebacks_of_several_waiters_do_not_pile_up() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", Producer(error=ValueError("x"))())
        depths = []
        for _ in range(5):
            with pytest.raises(ValueError, match="x") as caught:
                await run
            depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert len(set(depths)) == 1

    play(scenario)


def test_an_item_that_cannot_be_published_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        for topic, item, words in (
            ("json", "text", "takes json, and this is text"),
            ("out/object", object(), "JSON"),
            ("out/large", "x" * 101, "101 bytes exceeds the limit of 100"),
        ):
            producer = Producer({"n": 1}, item, {"n": 3})
            run = live.publish_from(topic, producer())
            with pytest.raises(BadPayload, match=words) as caught:
                await run
            assert (producer.closed, run.published) == (1, 1)
            kind = type(caught.value).__name__
            assert await read_all(app, topic) == ([{"n": 1}], f"an item could not be published ({kind})")

    play(scenario, limits=Limits(message_bytes_max=100))
    assert len(errors(caplog)) == 3
    assert errors(caplog)[0].startswith("item 2 for 'json' was not published: ")


def test_a_topic_finished_by_somebody_else_ends_the_run() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        producer = Producer("a", "b", free=False)
        run = live.publish_from("out/a", producer())
        await producer.asked.wait()
        await live.finish("out/a", "enough")
        producer.go.set()
        with pytest.raises(TopicFinished):
            await run
        assert producer.closed == 1
        assert await read_all(app, "out/a") == ([], "enough")

    play(scenario)


@pytest.mark.parametrize("topic", ["out/a", "signal"])
def test_a_producer_does_not_begin_for_a_finished_topic(topic: str) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        await live.finish(topic)
        producer, closing = Producer("a"), Unused()
        for source in (producer(), closing):
            with pytest.raises(TopicFinished):
                await live.publish_from(topic, source)
        assert producer.began == closing.asked == 0
        assert closing.closed.is_set()

    play(scenario)


def test_a_topic_that_cannot_be_finished_is_told_to_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        async def broken(*_: object) -> None:
            raise ConnectionError("the broker is gone")

        live._hub.finish = broken  # type: ignore[assignment]
        with pytest.raises(ConnectionError, match="the broker is gone"):
            await live.publish_from("out/a", Producer("a")())

    play(scenario)
    assert errors(caplog) == ["the topic 'out/a' of a run that has ended could not be finished"]


# Cancelling


@pytest.mark.parametrize("when", ["before it begins", "while it waits", "while it publishes"])
def test_cancelling_closes_the_iterator_and_tells(when: str) -> None:
    async def endless() -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield (number := number + 1)
        finally:
            closed.set()

    closed = asyncio.Event()

    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", free=False)
        publishing = when == "while it publishes"
        run = live.publish_from("out/a", endless() if publishing else held(), run_id="r")
        if when == "while it waits":
            await held.asked.wait()
        while publishing and not run.published:
            await asyncio.sleep(0)
        run.cancel()
        run.cancel()
        with pytest.raises(RunCancelled, match="the stream of 'out/a' is not complete: the run was cancelled"):
            await run
        run.cancel()
        messages, end = await read_all(app, "out/a")
        assert (len(messages), end) == (run.published, "the run was cancelled")
        assert held.closed == held.began == (1 if when == "while it waits" else 0)
        assert closed.is_set() is publishing
        joined = live.run_of("r")
        assert joined is not None
        assert joined.done

    play(scenario)


def test_a_run_is_told_as_cancelled_by_what_its_producer_does_with_it() -> None:
    async def swallows() -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "too late"

    async def ends() -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return
        yield "never"

    async def ends_itself() -> AsyncIterator[str]:
        try:
            yield "first"
            runs["itself"].cancel()
            yield "too late"
        finally:
            await asyncio.sleep(0)
            cleaned.append("itself")

    runs, cleaned = dict[str, Run](), list[str]()

    async def scenario(app: FastAPI, live: Live) -> None:
        for name, source in (("swallows", swallows()), ("ends", ends()), ("itself", ends_itself())):
            run = runs[name] = live.publish_from(f"out/{name}", source)
            for _ in range(3):
                await asyncio.sleep(0)
            run.cancel()
            with pytest.raises(RunCancelled):
                await run
            expected = ["first"] if name == "itself" else []
            assert await read_all(app, f"out/{name}") == (expected, "the run was cancelled")
        assert cleaned == ["itself"]

    play(scenario)


def test_cancelling_again_leaves_the_producer_its_time_to_clean_up(caplog: pytest.LogCaptureFixture) -> None:
    async def cleans_up() -> AsyncIterator[str]:
        try:
            began.set()
            await asyncio.Event().wait()
            yield "never"
        finally:
            cleaning.set()
            await may_end.wait()
            cleaned.append(True)

    began, cleaning, may_end, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[bool]()

    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", cleans_up())
        await began.wait()
        run.cancel()
        await cleaning.wait()
        run.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not run.done
        may_end.set()
        with pytest.raises(RunCancelled):
            await run
        assert cleaned == [True]

    play(scenario)
    assert errors(caplog) == []


def test_a_producer_that_fails_while_it_is_cancelled_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def stumbles() -> AsyncIterator[str]:
        try:
            await began.wait()
            await asyncio.Event().wait()
            yield "never"
        finally:
            raise RuntimeError("the connection was gone already")

    began = asyncio.Event()

    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", stumbles())
        while not began._waiters:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(RuntimeError, match="gone already"):
            await run
        assert await read_all(app, "out/a") == ([], "the producer failed (RuntimeError)")

    play(scenario)
    assert errors(caplog) == ["the producer for 'out/a' failed after 0 items"]


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_an_iterator_that_does_not_close_holds_nothing_up(how: str, caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Unused):
        async def aclose(self) -> None:
            if how == "raises":
                raise RuntimeError("I will not")
            await asyncio.Event().wait()

    async def scenario(app: FastAPI, live: Live) -> None:
        await live.publish_from("out/a", Stubborn(), run_id="r")
        live.publish_from("out/a", Stubborn(), run_id="r")
        assert await read_all(app, "out/a") == ([], None)

    play(scenario, limits=Limits(run_close_s=0.01))
    words = "could not be closed" if how == "raises" else "did not close within 0.01 s"
    assert errors(caplog) == [f"the iterator of a run for 'out/a' {words}"] * 2


# Stopping


def test_a_shutdown_ends_runs_tells_their_readers_and_leaves_no_task() -> None:
    async def scenario() -> None:
        live, app = Live(), FastAPI()
        app.include_router(live.router, prefix="/live")
        declare(live)
        held, waits, began = Producer("a", free=False), Producer("b", free=False), Producer("c", free=False)
        async with asyncio.timeout(20):
            before = asyncio.all_tasks()
            async with Lifespan(app):
                socket = await SocketCall(app, "/live/out/a?positions=1").open()
                events = HttpCall(app, "GET", "/live/out/a", headers={"accept": "text/event-stream"}).begin()
                await events.until(lambda call: call.events)
                runs = [live.publish_from("out/a", held(), run_id="r"), live.publish_from("out/b", waits())]
                await held.asked.wait()
                await waits.asked.wait()
                runs.append(live.publish_from("out/c", began()))
                await live.drain()
            why = "the server stopped before the run had ended"
            for run in runs:
                assert run.done
                with pytest.raises(RunCancelled, match=why):
                    await run
            await socket.closed()
            await events.finished()
            assert (socket.close_code, socket.envelopes[-1]["end"]["error"]) == (1000, why)
            assert (events.events[-1]["event"], json.loads(events.events[-1]["data"])) == ("end", {"error": why})
            assert (held.closed, waits.closed, began.began) == (1, 1, 0)
            assert asyncio.all_tasks() == before

    asyncio.run(scenario())


def test_a_drain_ends_runs_before_the_readers_are_sent_away() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        held = Producer("a", free=False)
        reader = await SocketCall(app, "/live/out/a").open()
        live.publish_from("out/a", held())
        await held.asked.wait()
        await live.drain()
        await reader.closed()
        assert (reader.close_code, reader.close_reason) == (1000, "the server stopped before the run had ended")

    play(scenario)


def test_a_producer_that_swallows_one_cancellation_is_ended_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def clings() -> AsyncIterator[str]:
        for _ in range(2):
            try:
                began.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                attempts.append("cancelled")
        yield "too late"

    began, attempts = asyncio.Event(), list[str]()

    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", clings())
        await began.wait()
        await live.drain()
        assert run.done
        assert attempts == ["cancelled"] * 2

    play(scenario, limits=Limits(run_close_s=0.01))
    assert errors(caplog) == []


def test_a_producer_that_cannot_be_ended_is_left_behind_and_its_readers_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def deaf() -> AsyncIterator[str]:
        while not let_go.is_set():
            try:
                began.set()
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        yield "too late"

    began, let_go = asyncio.Event(), asyncio.Event()

    async def scenario(app: FastAPI, live: Live) -> None:
        reader = await SocketCall(app, "/live/out/a").open()
        run = live.publish_from("out/a", deaf())
        await began.wait()
        try:
            await live.drain()
            await reader.closed()
            assert (reader.close_code, reader.close_reason) == (1000, "the server stopped before the run had ended")
            assert run.done
            with pytest.raises(RunCancelled):
                await run
        finally:
            let_go.set()
            assert run._work.task is not None
            await run._work.task
        assert run.published == 0

    play(scenario, limits=Limits(run_close_s=0.01))
    assert errors(caplog) == ["the producer for 'out/a' ignores that it was cancelled, and is left behind"]


def test_a_task_that_somebody_cancels_before_it_begins_is_not_waited_for_in_vain() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", Producer("a")())
        assert run._work.task is not None
        run._work.task.cancel()
        with pytest.raises(RunCancelled):
            await run

    play(scenario)


def test_a_new_life_remembers_no_runs() -> None:
    live, app = Live(), FastAPI()
    app.include_router(live.router, prefix="/live")
    declare(live)

    async def life() -> None:
        async with Lifespan(app):
            assert live.run_of("r") is None
            run = live.publish_from("out/a", Producer("a")(), run_id="r")
            assert run.started
            await run

    asyncio.run(life())
    asyncio.run(life())


def test_a_run_shows_what_it_is() -> None:
    async def scenario(app: FastAPI, live: Live) -> None:
        run = live.publish_from("out/a", Producer("a")(), run_id="r")
        assert repr(run) == "<Run of 'out/a', id 'r': running, 0 published>"
        await run
        assert repr(run) == "<Run of 'out/a', id 'r': ended, 1 published>"

    play(scenario)
