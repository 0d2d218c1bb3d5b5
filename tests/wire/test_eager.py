"""A coroutine begun in the name of a sleeping task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tidewire.wire import eager


def play(work: Callable[[], Coroutine[Any, Any, None]], between: Callable[[Any], None] = lambda task: None) -> Any:
    """Sleep in a task, begin ``work`` for it from a plain callback, and go on there when it has to wait."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        begun: list[Any] = []

        async def sleep() -> str:
            await sleeper
            if begun[0] is None:
                return "finished at once"
            await eager.finish(begun[0])
            return "finished in the task"

        task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        before = asyncio.current_task()
        begun.append(eager.begin(work(), task, loop))
        assert asyncio.current_task() is before
        sleeper.set_result(None)
        between(task)
        return await task

    return asyncio.run(run())


def test_what_does_not_wait_is_done_at_once() -> None:
    seen = []

    async def work() -> None:
        seen.append(asyncio.current_task())

    assert play(work) == "finished at once"
    assert seen[0] is not None


def test_from_a_callback_no_task_has_to_step_aside() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.sleep(0)
        seen = []

        async def work() -> None:
            seen.append(asyncio.current_task())

        loop.call_soon(lambda: eager.begin(work(), task, loop))
        await asyncio.sleep(0)
        assert seen == [task]
        await task

    asyncio.run(run())


def test_what_waits_goes_on_in_the_task() -> None:
    seen = []

    async def work() -> None:
        first = asyncio.current_task()
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        seen.append(first is asyncio.current_task())

    assert play(work) == "finished in the task"
    assert seen == [True]


def test_a_deadline_around_the_first_step_belongs_to_the_task() -> None:
    async def work() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

    assert play(work) == "finished in the task"


def test_errors_reach_who_should_have_them() -> None:
    async def at_once() -> None:
        raise ValueError("at once")

    async def later() -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        play(later)
    with pytest.raises(ValueError, match="at once"):
        play(at_once)


def test_cancelling_the_task_cancels_the_coroutine() -> None:
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def cancel_soon(task: asyncio.Task[Any]) -> None:
        asyncio.get_running_loop().call_later(0.001, task.cancel)

    with pytest.raises(asyncio.CancelledError):
        play(work, cancel_soon)
    assert seen == ["cancelled"]


def test_an_awaited_error_is_thrown_into_the_coroutine() -> None:
    seen = []

    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, KeyError("from the future"))
        try:
            await future
        except KeyError:
            seen.append("caught")

    assert play(work) == "finished in the task"
    assert seen == ["caught"]
