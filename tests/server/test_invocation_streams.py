"""Calls that are streams: made as they are asked for, with their dependencies, and closed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, HTTPException

from tests.server.desk import Desk, let_time_pass, only_this_task, passes, play, until
from tidewire.errors import CallError


def counting(desk: Desk) -> Any:
    async def database() -> AsyncIterator[str]:
        desk.seen.append("opened")
        try:
            yield "db"
        except BaseException as error:
            desk.seen.append(type(error).__name__)
            raise
        finally:
            desk.seen.append("closed")

    async def count(n: int, fail: bool = False, db: str = Depends(database)) -> AsyncIterator[dict[str, int]]:
        try:
            for i in range(n):
                desk.seen.append(i)
                yield {"n": i}
            if fail:
                raise CallError(410, "no more", temporary=True)
        finally:
            await asyncio.sleep(0)
            desk.seen.append("finally")

    return count


def test_a_generator_is_a_stream_whose_dependencies_live_to_its_end() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        stream = await desk.open("count", {"n": 3})
        assert desk.seen == ["opened"]
        assert [item async for item in stream] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
        assert desk.seen == ["opened", 0, 1, 2, "finally", "closed"]
        assert only_this_task()
        assert [item async for item in stream] == []
        await stream.aclose()
        assert [item async for item in await desk.open("count", {"n": 0})] == []

    play(scenario)


def test_nothing_is_made_before_it_is_asked_for() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        stream = await desk.open("count", {"n": 3})
        await passes(20)
        assert desk.seen == ["opened"]
        await anext(stream)
        await passes(20)
        assert desk.seen == ["opened", 0]
        await stream.aclose()
        assert desk.seen == ["opened", 0, "finally", "CancelledError", "closed"]

    play(scenario)


def test_items_before_an_error_arrive_and_then_the_error() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        stream = await desk.open("count", {"n": 2, "fail": True})
        assert await anext(stream) == b'{"n":0}'
        assert await anext(stream) == b'{"n":1}'
        with pytest.raises(CallError) as caught:
            await anext(stream)
        assert (caught.value.code, caught.value.message, caught.value.temporary) == (410, "no more", True)
        assert desk.seen == ["opened", 0, 1, "finally", "CallError", "closed"]
        assert only_this_task()
        assert [item async for item in stream] == []

    play(scenario)


def test_a_dependency_that_fails_at_the_end_of_a_stream_is_told() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def unreliable() -> AsyncIterator[None]:
            yield
            raise RuntimeError("the disk is full")

        async def stream(disk: None = Depends(unreliable)) -> AsyncIterator[int]:
            yield 1

        desk.declare("a", stream)
        items = await desk.open("a")
        assert await anext(items) == b"1"
        with pytest.raises(CallError) as caught:
            await anext(items)
        assert caught.value.code == 100

    play(scenario)


def test_what_is_refused_before_the_first_item_is_raised_by_invoke() -> None:
    async def scenario() -> None:
        desk = Desk()

        def nobody() -> None:
            raise HTTPException(401)

        async def guarded(user: None = Depends(nobody)) -> AsyncIterator[int]:
            yield 1

        desk.declare("guarded", guarded)
        desk.declare("count", counting(desk))
        assert (await desk.fail("guarded"))[0] == 101
        assert (await desk.fail("count", {"n": "x"}))[0] == 107
        assert "finally" not in desk.seen

    play(scenario)


def test_the_deadline_of_a_stream_is_that_of_each_item() -> None:
    async def scenario() -> None:
        desk = Desk(call_timeout_s=3000)
        go_on = asyncio.Event()

        async def database() -> AsyncIterator[None]:
            try:
                yield
            finally:
                desk.seen.append("closed")

        async def stream(db: None = Depends(database)) -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
                desk.seen.append("waits")
                await go_on.wait()
                go_on.clear()
                yield 3
                desk.seen.append("waits")
                await go_on.wait()
                yield 4
            finally:
                await asyncio.sleep(0)
                desk.seen.append("finally")

        desk.declare("a", stream)
        items = await desk.open("a")
        assert await anext(items) == b"1"
        # the reader takes its time: that is not the function's
        let_time_pass(10_000)
        await passes(10)
        assert await anext(items) == b"2"
        third = asyncio.ensure_future(anext(items))
        await until(lambda: desk.seen == ["waits"])
        let_time_pass(2000)
        await passes(10)
        go_on.set()
        assert await third == b"3"
        fourth = asyncio.ensure_future(anext(items))
        await until(lambda: desk.seen == ["waits"] * 2)
        let_time_pass(2000)
        await passes(10)
        assert not fourth.done()
        let_time_pass(1000)
        with pytest.raises(CallError, match="took longer than 3000 s") as caught:
            await fourth
        assert (caught.value.code, caught.value.temporary) == (100, True)
        assert desk.seen == ["waits", "waits", "finally", "closed"]
        assert only_this_task()
        assert [item async for item in items] == []

    play(scenario)


def test_dependencies_of_a_stream_have_the_deadline_too() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def hanging() -> None:
            desk.seen.append("hangs")
            await asyncio.Event().wait()

        async def stream(value: None = Depends(hanging)) -> AsyncIterator[int]:
            yield 1

        desk.declare("a", stream, timeout_s=5)
        opening = asyncio.create_task(desk.fail("a"))
        await until(lambda: desk.seen)
        let_time_pass(5)
        assert (await opening)[1] == "the call 'a' took longer than 5 s: try again later"

    play(scenario)


def test_a_stream_may_be_closed_while_its_reader_waits() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def stream() -> AsyncIterator[int]:
            try:
                desk.seen.append("waits")
                await asyncio.Event().wait()
                yield 1
            finally:
                desk.seen.append("finally")

        desk.declare("a", stream)
        items = await desk.open("a")
        reading = asyncio.ensure_future(anext(items, "the end"))
        await until(lambda: desk.seen)
        with pytest.raises(RuntimeError, match="waited for already"):
            await anext(items)
        await items.aclose()
        assert await reading == "the end"
        assert desk.seen == ["waits", "finally"]

    play(scenario)


def test_a_stream_may_be_collected_into_one_answer() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        assert await (await desk.open("count", {"n": 0})).collect(2) == b"[]"
        assert await (await desk.open("count", {"n": 2})).collect(17) == b'[{"n":0},{"n":1}]'
        desk.seen.clear()
        with pytest.raises(CallError, match="exceed the limit of 16 bytes: ask for fewer") as caught:
            await (await desk.open("count", {"n": 1000})).collect(16)
        assert caught.value.code == 106
        assert desk.seen == ["opened", 0, 1, "finally", "CancelledError", "closed"]
        with pytest.raises(CallError, match="no more"):
            await (await desk.open("count", {"n": 2, "fail": True})).collect(1000)

    play(scenario)


def test_closing_twice_does_not_interrupt_the_cleaning_up() -> None:
    async def scenario() -> None:
        desk = Desk()
        may_end = asyncio.Event()

        async def stream() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await may_end.wait()
                desk.seen.append("cleaned up")

        desk.declare("a", stream)
        items = await desk.open("a")
        assert await anext(items) == b"1"
        closing = [asyncio.create_task(items.aclose()) for _ in range(2)]
        await passes(10)
        may_end.set()
        await asyncio.gather(*closing)
        assert desk.seen == ["cleaned up"]

    play(scenario)


def test_a_reader_that_is_cancelled_has_closed_the_stream() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def stream() -> AsyncIterator[int]:
            try:
                yield 1
                desk.seen.append("waits")
                await asyncio.Event().wait()
            finally:
                desk.seen.append("finally")

        desk.declare("a", stream)
        items = await desk.open("a")
        assert await anext(items) == b"1"
        reading = asyncio.ensure_future(anext(items))
        await until(lambda: desk.seen)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert desk.seen == ["waits", "finally"]
        assert [item async for item in items] == []

    play(scenario)


@pytest.mark.parametrize("items", [0, 1])
def test_a_stream_that_is_dropped_is_closed(items: int) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        stream = await desk.open("count", {"n": 3})
        for _ in range(items):
            await anext(stream)
        del stream
        await until(only_this_task)
        assert desk.seen[-2:] == ["CancelledError", "closed"]

    play(scenario)


def test_a_stream_dropped_after_its_loop_is_nothing() -> None:
    kept: list[Any] = []

    async def scenario() -> None:
        desk = Desk()
        desk.declare("count", counting(desk))
        kept.append(await desk.open("count", {"n": 3}))

    with asyncio.Runner() as runner:
        runner.run(scenario())
    kept.clear()
