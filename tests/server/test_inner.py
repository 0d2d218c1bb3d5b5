"""The inner app is asked: within a deadline, and what goes wrong is an answer."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.desk import Desk, let_time_pass, play, until
from tidewire.server.inner import Admission, Call, Inner, Operation, Refusal, make_endpoint


def test_a_deadline_of_the_application_is_not_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def own_deadline() -> None:
            raise TimeoutError("the database takes too long")

        async def hanging() -> None:
            begun.set()
            await asyncio.Event().wait()

        async def good() -> str:
            return "welcome"

        inner = Inner(deadline_s=10)
        for function in (own_deadline, hanging, good):
            inner.add(f"/{function.__name__}", make_endpoint(function, "function"))

        async def ask(path: str) -> Admission | Refusal:
            return await inner.call(path, Call(Operation("read", "t")), Desk().connection(), what="the function")

        assert await ask("/good") == Admission("welcome")
        assert await ask("/own_deadline") == Refusal(
            500, "the application failed in the function; its log has the error"
        )
        assert "took longer" not in caplog.text
        asking = asyncio.create_task(ask("/hanging"))
        await until(begun.is_set)
        let_time_pass(10)
        assert await asking == Refusal(503, "the function took too long: try again later")
        assert "the function took longer than 10 s" in caplog.text

    play(scenario)
    assert "the database takes too long" in caplog.text
