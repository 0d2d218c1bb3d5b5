"""Calls that go on: callers who leave at any moment, and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import anyio.to_thread
import pytest
from fastapi import Depends

from tests.server.desk import Desk, let_time_pass, only_this_task, passes, play, until
from tidewire.errors import CallError
from tidewire.server.inner import current_call

PASSES_MAX = 2000


class Resources:
    """Dependencies and a function that wait at every turn, and note whether they are open."""

    def __init__(self) -> None:
        self.open: list[str] = []
        # how far the function got, over all calls
        self.reached: set[str] = set()

    async def outer(self) -> AsyncIterator[str]:
        await passes(2)
        self.open.append("outer")
        self.reached.add("outer opened")
        try:
            await passes(2)
            yield "outer"
        finally:
            try:
                await passes(2)
            finally:
                self.reached.add("outer closed")
                self.open.remove("outer")

    async def middle(self) -> None:
        self.reached.add("middle")
        await passes(2)

    async def work(self) -> None:
        """What the function does."""
        self.open.append("function")
        self.reached.add("function")
        try:
            await passes(3)
            self.reached.add("function done")
        finally:
            try:
                await passes(2)
            finally:
                self.open.remove("function")


def desk_of(resources: Resources) -> Desk:
    desk = Desk()

    async def function(outer: str = Depends(resources.outer), middle: None = Depends(resources.middle)) -> str:
        await resources.work()
        return outer

    async def stream(outer: str = Depends(resources.outer), middle: None = Depends(resources.middle)) -> Any:
        for n in range(3):
            await resources.work()
            resources.reached.add(f"item {n}")
            yield n

    desk.declare("function", function)
    desk.declare("stream", stream)
    return desk


async def read(desk: Desk) -> list[bytes]:
    async with aclosing(await desk.open("stream")) as items:
        got = []
        async for item in items:
            got.append(item)
            await passes(1)
        return got


# Callers who leave


@pytest.mark.parametrize("kind", ["function", "stream"])
@pytest.mark.parametrize("again_after", [None, 0, 1, 2, 3])
def test_whenever_the_caller_is_cancelled_everything_is_released(kind: str, again_after: int | None) -> None:
    """Cancelled after each number of passes of the loop in turn, until one run gets through."""

    async def scenario() -> None:
        resources = Resources()
        desk = desk_of(resources)
        stopped_at = set()
        for count in range(PASSES_MAX):
            resources.reached.clear()
            asking = asyncio.create_task(desk.ask("function") if kind == "function" else read(desk))
            await passes(count)
            if asking.done():
                break
            asking.cancel()
            if again_after is not None:
                await passes(again_after)
                asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            assert asking.cancelled()
            if again_after is None:
                # whoever is cancelled waits for that; cancelled again, it waits no more
                assert resources.open == []
                assert only_this_task()
            await until(only_this_task)
            assert resources.open == []
            stopped_at.add(frozenset(resources.reached))
        assert asking.done()
        assert asking.result() == ("outer" if kind == "function" else [b"0", b"1", b"2"])
        # before the dependency, in it, in the next, in the function, and while everything is being released
        assert len(stopped_at) >= 5

    play(scenario)


@pytest.mark.parametrize("items", [0, 1, 2, 3])
def test_a_stream_closed_early_releases_everything_before_it_is_closed(items: int) -> None:
    async def scenario() -> None:
        resources = Resources()
        desk = desk_of(resources)
        stream = await desk.open("stream")
        for n in range(items):
            assert await anext(stream) == str(n).encode()
        assert resources.open == ["outer"]
        await stream.aclose()
        assert resources.open == []
        assert only_this_task()
        await stream.aclose()
        assert [item async for item in stream] == []

    play(scenario)


def test_a_caller_who_is_cancelled_hears_it_whatever_the_function_makes_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def stubborn() -> str:
            with suppress(asyncio.CancelledError):
                desk.seen.append("begun")
                await asyncio.Event().wait()
            return "all the same"

        async def failing() -> None:
            try:
                desk.seen.append("begun")
                await asyncio.Event().wait()
            finally:
                raise RuntimeError("while cleaning up")

        desk.declare("stubborn", stubborn)
        desk.declare("failing", failing)
        for method in ("stubborn", "failing"):
            desk.seen.clear()
            asking = asyncio.create_task(desk.ask(method))
            await until(lambda: desk.seen)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert only_this_task()

    play(scenario)
    assert "while cleaning up" in caplog.text


def test_whoever_does_not_end_is_left_behind_and_still_cleans_up(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk(call_timeout_s=3000, call_close_s=2000, calls_left_max=2)
        may_end = asyncio.Event()

        async def slow_to_close() -> AsyncIterator[None]:
            yield
            desk.seen.append("released")

        async def function(db: None = Depends(slow_to_close)) -> None:
            try:
                desk.seen.append("begun")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                desk.seen.append("closing")
                await may_end.wait()

        desk.declare("a", function)
        for _ in range(2):
            desk.seen.clear()
            asking = asyncio.create_task(desk.fail("a"))
            await until(lambda: desk.seen)
            let_time_pass(3000)
            await until(lambda: "closing" in desk.seen)
            assert not asking.done()
            let_time_pass(2000)
            assert (await asking)[:2] == (100, "the call 'a' took longer than 3000 s: try again later")
        sentence = "the call 'a' is still busy with callers who left: try later"
        assert await desk.fail("a") == (111, sentence, True)
        assert "released" not in desk.seen
        may_end.set()
        await until(only_this_task)
        assert desk.seen.count("released") == 2
        may_end.clear()
        asking = asyncio.create_task(desk.fail("a"))
        await until(lambda: desk.seen.count("begun") == 2)
        asking.cancel()
        await passes(2)
        may_end.set()

    play(scenario)
    assert caplog.text.count("did not end within 2000 s of being cancelled, and is left behind") == 2
    assert "2 of the call 'a' go on without a caller" in caplog.text


# Threads


class Blocked:
    """A plain def that takes its time, with a dependency; ``desk.seen`` has what happened."""

    def __init__(self, **limits: Any) -> None:
        self.desk = Desk(**limits)
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.desk.declare("a", self.function_of(self))

    @staticmethod
    def function_of(blocked: Blocked) -> Any:
        async def database() -> AsyncIterator[None]:
            blocked.desk.seen.append("opened")
            try:
                yield
            except BaseException as error:
                blocked.desk.seen.append(type(error).__name__)
                raise
            finally:
                blocked.desk.seen.append("closed")

        def function(n: int = 0, db: None = Depends(database)) -> int:
            blocked.begun.release()
            assert blocked.may_end.wait(60)
            assert current_call() is not None
            blocked.desk.seen.append(n)
            return n

        return function

    async def wait_until_begun(self) -> None:
        await until(lambda: self.begun.acquire(blocking=False))


@pytest.mark.parametrize("way", ["cancelled", "deadline"])
def test_a_thread_is_left_to_its_end_with_its_dependencies(way: str) -> None:
    async def scenario() -> None:
        blocked = Blocked(call_timeout_s=3000)
        asking = asyncio.create_task(blocked.desk.ask("a", {"n": 7}))
        await blocked.wait_until_begun()
        if way == "cancelled":
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        else:
            let_time_pass(3000)
            with pytest.raises(CallError, match="took longer than 3000 s"):
                await asking
        assert blocked.desk.seen == ["opened"]
        blocked.may_end.set()
        await until(only_this_task)
        # it has done its work to the end, so that is not undone
        assert blocked.desk.seen == ["opened", 7, "closed"]

    play(scenario)


def test_what_comes_after_the_thread_is_ended_with_the_caller() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def slow_to_commit() -> AsyncIterator[None]:
            yield
            try:
                desk.seen.append("commits")
                await asyncio.Event().wait()
            finally:
                desk.seen.append("closed")

        def function(db: None = Depends(slow_to_commit)) -> None: ...

        desk.declare("a", function)
        asking = asyncio.create_task(desk.ask("a"))
        await until(lambda: desk.seen)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert desk.seen == ["commits", "closed"]

    play(scenario)


def test_threads_that_were_left_are_counted_and_further_calls_refused() -> None:
    async def scenario() -> None:
        blocked = Blocked(calls_left_max=2)
        blocked.desk.declare("other", lambda: "fine")
        for _ in range(2):
            asking = asyncio.create_task(blocked.desk.ask("a"))
            await blocked.wait_until_begun()
            asking.cancel()
            await asyncio.wait([asking])
        assert (await blocked.desk.fail("a"))[0] == 111
        assert await blocked.desk.ask("other") == "fine"
        blocked.may_end.set()
        await until(only_this_task)
        assert await blocked.desk.ask("a", {"n": 5}) == 5

    play(scenario)


def test_a_function_whose_caller_left_before_a_thread_was_free_is_not_begun() -> None:
    async def scenario() -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        blocked = Blocked()
        first = asyncio.create_task(blocked.desk.ask("a", {"n": 1}))
        await blocked.wait_until_begun()
        second = asyncio.create_task(blocked.desk.ask("a", {"n": 2}))
        await until(lambda: blocked.desk.seen == ["opened", "opened"])
        await passes(20)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        blocked.may_end.set()
        assert await first == 1
        await until(only_this_task)
        assert blocked.desk.seen.count(2) == 0
        assert blocked.desk.seen.count("CallError") == 1
        assert blocked.desk.seen.count("closed") == 2

    play(scenario)


# Functions with ways of their own


def test_a_function_that_cancels_itself_is_answered_for() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def function() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        desk.declare("a", function)
        assert await desk.fail("a") == (100, "the call 'a' was interrupted", True)

    play(scenario)


def test_a_decorator_that_hides_a_coroutine_is_no_hindrance() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def inner() -> str:
            await asyncio.sleep(0)
            return "awaited"

        def function() -> Any:
            return inner()

        desk.declare("a", function)
        assert await desk.ask("a") == "awaited"

    play(scenario)
