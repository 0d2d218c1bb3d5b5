"""The inner app is asked: within a deadline, and what goes wrong is an answer."""

from __future__ import annotations

import asyncio
import threading

import pytest
from anyio import to_thread
from fastapi import WebSocket

from tests.server.desk import Desk, let_time_pass, play, until
from tidewire import DeclarationError, Log
from tidewire.protocol.topics import Template
from tidewire.server.gate import Declaration, Gate
from tidewire.server.hooks import Hooks
from tidewire.server.identity import ANONYMOUS
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


def test_a_thread_that_nobody_waits_for_keeps_its_place_in_the_pool() -> None:
    async def scenario() -> None:
        release = threading.Event()
        begun: list[int] = []

        def slow() -> None:
            begun.append(1)
            release.wait(20)

        inner = Inner(deadline_s=10)
        inner.add("/slow", make_endpoint(slow, "function"))
        asking = [
            asyncio.create_task(
                inner.call("/slow", Call(Operation("read", "t")), Desk().connection(), what="the function")
            )
            for _ in range(60)
        ]
        limiter = to_thread.current_default_thread_limiter()
        await until(lambda: len(begun) == limiter.total_tokens)
        let_time_pass(10)
        for one in asking:
            assert await one == Refusal(503, "the function took too long: try again later")
        assert limiter.borrowed_tokens == limiter.total_tokens
        release.set()
        await until(lambda: limiter.borrowed_tokens == 0)
        assert len(begun) <= limiter.total_tokens, "who waited for a place and was given up is not begun"

    play(scenario)


def test_nothing_is_left_of_a_declaration_that_fails() -> None:
    async def scenario() -> None:
        gate = Gate(Inner(deadline_s=10))

        async def bad(websocket: WebSocket) -> None: ...

        async def good() -> str:
            return "good"

        with pytest.raises(DeclarationError):
            gate.declare(Declaration(Template("t"), Log(), bad, None, False))
        declaration = Declaration(Template("t"), Log(), good, None, False)
        gate.declare(declaration)
        assert await gate.ask(declaration, Operation("read", "t"), Desk().connection()) == Admission("good")
        hooks = Hooks(gate.inner)
        with pytest.raises(DeclarationError):
            hooks.declare("connect", bad)
        hooks.declare("connect", good)
        assert await hooks.run("connect", Desk().connection(), ANONYMOUS) == Admission("good")

    play(scenario)
