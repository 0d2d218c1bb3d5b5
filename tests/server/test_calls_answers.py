"""Calls: what comes back, what their failures are to clients, and their limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import (
    BackgroundTasks,
    Depends,
    HTTPException,
)
from pydantic import BaseModel

from tests.server.desk import Desk, let_time_pass, passes, play, until
from tidewire.errors import CallError, Deny
from tidewire.server.inner import Operation, current_call


class Order(BaseModel):
    symbol: str
    quantity: int = 1


async def by_name(symbol: str, quantity: int = 1) -> Any:
    return [symbol, quantity]


@dataclass
class Ticket:
    row: int
    seat: int = 1


# What it returns


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        ("text", b'"text"'),
        (b"bytes", b'"Ynl0ZXM="'),
        (Order(symbol="A"), b'{"symbol":"A","quantity":1}'),
        ([Order(symbol="A")], b'[{"symbol":"A","quantity":1}]'),
        (Ticket(1), b'{"row":1,"seat":1}'),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, b'{"at":"2026-01-01T00:00:00Z"}'),
    ],
)
def test_a_value_is_json(value: Any, text: bytes) -> None:
    async def scenario() -> None:
        async def function() -> Any:
            return value

        def in_thread() -> Any:
            return value

        def decorated() -> Any:
            return function()

        desk = Desk()
        for function_of in (function, in_thread, decorated):
            desk.declare(function_of.__name__, function_of)
            assert await desk.invoke(function_of.__name__) == text

    play(scenario)


@pytest.mark.parametrize("is_async", [True, False])
def test_the_value_is_encoded_while_its_dependencies_are_there(is_async: bool) -> None:
    async def scenario() -> None:
        desk = Desk()

        class Lazy(BaseModel):
            def model_dump(self, **options: Any) -> Any:
                assert desk.seen == ["opened"]
                return {"loaded": True}

        async def database() -> AsyncIterator[str]:
            desk.seen.append("opened")
            yield "db"
            desk.seen.append("closed")

        async def function(db: str = Depends(database)) -> Any:
            return Lazy()

        def in_thread(db: str = Depends(database)) -> Any:
            return Lazy()

        desk.declare("a", function if is_async else in_thread)
        assert await desk.ask("a") == {"loaded": True}
        assert desk.seen == ["opened", "closed"]

    play(scenario)


def test_a_plain_def_runs_in_a_thread_with_its_context() -> None:
    async def scenario() -> None:
        desk = Desk()
        loop_thread = threading.get_ident()

        def function(op: Operation) -> Any:
            call = current_call()
            assert call is not None
            return [threading.get_ident() == loop_thread, call.operation.topic, op.topic]

        desk.declare("a", function)
        assert await desk.ask("a") == [False, "a", "a"]

    play(scenario)


def test_background_tasks_run_before_the_answer() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def function(background: BackgroundTasks) -> str:
            background.add_task(desk.seen.append, "afterwards")
            return "answer"

        desk.declare("a", function)
        assert await desk.ask("a") == "answer"
        assert desk.seen == ["afterwards"]

    play(scenario)


# What went wrong


def test_an_unknown_method() -> None:
    async def scenario() -> None:
        assert await Desk().fail("order.place") == (104, "method not found", False)

    play(scenario)


FAILED = "the call 'a' failed; the log of the application has the error"


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (CallError(409, "sold out"), (409, "sold out", False)),
        (CallError(400, ""), (400, "", False)),
        (CallError(1999, "later", temporary=True), (1999, "later", True)),
        (CallError(103, "passed on"), (103, "passed on", False)),
        (CallError(500, "own"), (500, "own", False)),
        (CallError(409, "lone \ud800"), (409, "lone ?", False)),
        (CallError(2000, "secret"), (100, FAILED, True)),
        (CallError(399, "secret"), (100, FAILED, True)),
        (CallError(1, "secret"), (100, FAILED, True)),
        (CallError("409", "secret"), (100, FAILED, True)),  # type: ignore[arg-type]
        (Deny("not you"), (103, "not you", False)),
        (Deny("who", status=401), (101, "who", False)),
        (Deny("slower", status=429), (111, "slower", True)),
        (HTTPException(401), (101, "Unauthorized", False)),
        (HTTPException(403, "no"), (103, "no", False)),
        (HTTPException(404, "no such order"), (404, "no such order", False)),
        (HTTPException(409, {"left": 3}), (409, '{"left":3}', False)),
        (HTTPException(422, "too odd"), (422, "too odd", False)),
        (HTTPException(429, "slow down"), (111, "slow down", True)),
        (HTTPException(499, "x" * 1000), (499, "x" * 300, False)),
        (HTTPException(1200, "of our own"), (1200, "of our own", False)),
        (HTTPException(500, "secret"), (100, FAILED, True)),
        (HTTPException(503, "secret"), (100, FAILED, True)),
        (HTTPException(599, "secret"), (100, FAILED, True)),
        (HTTPException(302, "secret"), (100, FAILED, True)),
        (HTTPException(204, "secret"), (100, FAILED, True)),
        (HTTPException(2000, "secret"), (100, FAILED, True)),
        (RuntimeError("secret"), (100, FAILED, True)),
        (TimeoutError("secret"), (100, FAILED, True)),
        (asyncio.CancelledError("secret"), (100, FAILED, True)),
        (StopAsyncIteration("secret"), (100, FAILED, True)),
        (ExceptionGroup("secret", [CallError(409, "sold out")]), (100, FAILED, True)),
    ],
)
@pytest.mark.parametrize("where", ["function", "thread", "dependency", "stream", "before a stream"])
def test_errors_are_what_the_protocol_has_for_them(
    error: BaseException, answer: tuple[int, str, bool], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def function() -> None:
            raise error

        def thread() -> None:
            raise error

        async def dependency(value: None = Depends(function)) -> None: ...

        async def stream() -> AsyncIterator[int]:
            yield 1
            raise error

        async def before(value: None = Depends(function)) -> AsyncIterator[int]:
            yield 1

        functions: dict[str, Any] = {"function": function, "thread": thread, "dependency": dependency}
        desk.declare("a", {**functions, "stream": stream, "before a stream": before}[where])
        if where == "stream":
            items = await desk.open("a")
            assert await anext(items) == b"1"
            with pytest.raises(CallError) as caught:
                await anext(items)
            assert (caught.value.code, caught.value.message, caught.value.temporary) == answer
            assert [item async for item in items] == []
        else:
            assert await desk.fail("a") == answer

    play(scenario)
    assert bool(caplog.text) == (answer[1] == FAILED)
    assert ("secret" in caplog.text or "raised a status of success" in caplog.text) == bool(caplog.text)


def test_a_function_that_awaits_what_was_cancelled_has_failed_and_is_answered_for() -> None:
    async def scenario() -> None:
        desk = Desk()

        async def function() -> None:
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

        desk.declare("a", function)
        assert await desk.fail("a") == (100, FAILED, True)

    play(scenario)


def test_a_value_that_json_has_no_form_for_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def function() -> Any:
            return object()

        async def stream() -> AsyncIterator[Any]:
            yield 1
            yield object()

        desk.declare("a", function)
        assert await desk.fail("a") == (100, FAILED, True)
        desk.declare("b", stream)
        items = await desk.open("b")
        assert await anext(items) == b"1"
        with pytest.raises(CallError) as caught:
            await anext(items)
        assert caught.value.code == 100

    play(scenario)
    assert "a object cannot be published as JSON" in caplog.text


def test_dependencies_see_what_went_wrong_and_may_fail_themselves(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk()

        async def transaction() -> AsyncIterator[None]:
            try:
                yield
            except BaseException as error:
                desk.seen.append(f"rolled back: {type(error).__name__}")
                raise
            desk.seen.append("committed")

        async def unreliable() -> AsyncIterator[None]:
            yield
            raise RuntimeError("the disk is full")

        async def swallowing() -> AsyncIterator[None]:
            try:  # noqa: SIM105
                yield
            except Exception:
                pass

        async def function(fail: bool, db: None = Depends(transaction)) -> Any:
            if fail:
                raise CallError(409, "sold out")
            return "done"

        async def unsaved(disk: None = Depends(unreliable)) -> str:
            return "done"

        async def swallowed(swallow: None = Depends(swallowing)) -> None:
            raise CallError(409, "sold out")

        desk.declare("order", function)
        assert await desk.ask("order", {"fail": False}) == "done"
        assert (await desk.fail("order", {"fail": True}))[:2] == (409, "sold out")
        assert desk.seen == ["committed", "rolled back: CallError"]
        desk.declare("a", unsaved)
        assert await desk.fail("a") == (100, FAILED, True)
        desk.declare("swallowed", swallowed)
        assert (await desk.fail("swallowed"))[0] == 100

    play(scenario)
    assert "the disk is full" in caplog.text


# Limits


def test_data_over_the_limit_is_refused_naming_both_numbers() -> None:
    async def scenario() -> None:
        desk = Desk(message_bytes_max=20)
        desk.declare("a", by_name)
        assert await desk.invoke("a", b'{"symbol": "123456"}') == b'["123456",1]'
        with pytest.raises(CallError) as caught:
            await desk.invoke("a", b'{"symbol": "1234567"}')
        assert (caught.value.code, caught.value.temporary) == (106, False)
        assert caught.value.message == "the data of a call of 21 bytes exceeds the limit of 20 bytes"

    play(scenario)


def test_a_result_over_the_limit_is_refused_naming_both_numbers() -> None:
    async def scenario() -> None:
        desk = Desk(message_bytes_max=20)

        async def echo(size: int) -> str:
            return "x" * size

        async def stream(size: int) -> AsyncIterator[str]:
            yield "x" * size

        desk.declare("a", echo)
        desk.declare("b", stream)
        sentence = "the result of a call of 21 bytes exceeds the limit of 20 bytes: ask for less"
        assert await desk.ask("a", {"size": 18}) == "x" * 18
        assert await desk.fail("a", {"size": 19}) == (106, sentence, False)
        assert len([item async for item in await desk.open("b", {"size": 18})]) == 1
        with pytest.raises(CallError, match="ask for less"):
            await anext(await desk.open("b", {"size": 19}))

    play(scenario)


def test_a_call_has_its_time_and_then_it_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk(call_timeout_s=3000)

        async def database() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await asyncio.sleep(0)
                desk.seen.append("released")

        async def function(db: None = Depends(database)) -> None:
            desk.seen.append("begun")
            await asyncio.Event().wait()

        async def hanging() -> None:
            desk.seen.append("begun")
            await asyncio.Event().wait()

        async def depending(value: None = Depends(hanging)) -> None: ...

        desk.declare("usual", function)
        desk.declare("quick", function, timeout_s=2000)
        desk.declare("depending", depending, timeout_s=2000)
        for method, timeout_s in (("usual", 3000), ("quick", 2000), ("depending", 2000)):
            desk.seen.clear()
            asking = asyncio.create_task(desk.fail(method))
            await until(lambda: desk.seen)
            let_time_pass(timeout_s - 1000)
            await passes(10)
            assert desk.seen == ["begun"]
            let_time_pass(1000)
            sentence = f"the call '{method}' took longer than {timeout_s} s: try again later"
            assert await asking == (100, sentence, True)
            assert desk.seen == ["begun"] + ["released"] * (method != "depending")

    play(scenario)
    assert "the call 'usual' took longer than 3000 s" in caplog.text
