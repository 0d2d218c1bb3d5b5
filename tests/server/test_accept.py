"""``accept`` in routes: who ends whom, and whose cancellation is swallowed. No ports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient

from tests.server.driver import SocketCall
from tidewire import Connection, ConnectionClosed, accept
from tidewire.limits import INBOX_MESSAGES_MAX

Route = Callable[[WebSocket], Awaitable[None]]


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def play(route: Route, scenario: Callable[[SocketCall], Awaitable[None]]) -> None:
    async def run() -> None:
        app = FastAPI()
        app.websocket("/ws")(route)
        before = asyncio.all_tasks()
        async with asyncio.timeout(5):
            await scenario(SocketCall(app, "/ws"))
        await turn()
        assert asyncio.all_tasks() == before, "nothing is left behind"

    asyncio.run(run())


def leave(call: SocketCall, code: int = 1001) -> None:
    call._to_app.put_nowait({"type": "websocket.disconnect", "code": code})


def test_an_echo_and_its_end() -> None:
    after: list[str] = []

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket, subprotocol="chat", headers={"X-Answer": "1"}) as connection:
            assert connection.subprotocol == "chat"
            async for message in connection:
                await connection.send(message)
            after.append(f"{connection.close_code}")
        after.append("route goes on")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        call.send("a")
        call.send(b"b")
        await call.until(lambda call: len(call.frames) == 2)
        assert call.frames == ["a", b"b"]
        leave(call)
        await call.finished()
        assert after == ["1001", "route goes on"]
        assert call.close_code is None, "it has closed itself"

    play(route, scenario)


def test_leaving_the_block_closes_with_1000() -> None:
    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            await connection.send("hello")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.finished()
        assert (call.frames, call.close_code) == (["hello"], 1000)

    play(route, scenario)


def test_an_error_in_the_block_closes_with_1011_and_is_raised() -> None:
    raised: list[BaseException] = []

    async def route(websocket: WebSocket) -> None:
        try:
            async with accept(websocket) as connection:
                await connection.recv()
                raise ValueError("a bug")
        except ValueError as error:
            raised.append(error)

    async def scenario(call: SocketCall) -> None:
        await call.open()
        call.send("go")
        await call.finished()
        assert call.close_code == 1011
        assert [str(error) for error in raised] == ["a bug"]

    play(route, scenario)


def test_one_that_was_accepted_already_is_fine() -> None:
    async def route(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("by hand")
        async with accept(websocket) as connection:
            await connection.send("by us")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.finished()
        assert (call.frames, call.close_code) == (["by hand", "by us"], 1000)

    play(route, scenario)


def test_a_block_that_never_receives_is_cancelled_when_its_client_leaves() -> None:
    seen: list[str] = []

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
        task = asyncio.current_task()
        assert task is not None
        seen.append(f"goes on, {task.cancelling()} cancellations")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        leave(call)
        await call.finished()
        assert seen == ["cancelled", "goes on, 0 cancellations"]

    play(route, scenario)


def test_a_block_that_pushes_only_is_cancelled_too() -> None:
    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            while True:
                await connection.send("tick")
                await asyncio.sleep(0)

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.until(lambda call: len(call.frames) > 3)
        leave(call)
        await call.finished()

    play(route, scenario)


def test_a_block_that_has_begun_to_receive_gets_all_that_was_queued() -> None:
    seen: list[Any] = []
    work = asyncio.Event()

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            seen.append(await connection.recv())
            await work.wait()
            async for message in connection:
                await asyncio.sleep(0)
                seen.append(message)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            with pytest.raises(ConnectionClosed):
                await connection.send("late")
            await connection.wait_closed()
            seen.append("end")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        for n in range(6):
            call.send(f"{n}")
        leave(call)
        await turn()
        work.set()
        await call.finished()
        assert seen == [*"012345", "end"]

    play(route, scenario)


def test_a_send_after_the_end_leaves_the_block_quietly() -> None:
    seen: list[str] = []

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            await connection.recv()
            await connection.wait_closed()
            await connection.send("too late")
        seen.append("route goes on")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        call.send("x")
        leave(call)
        await call.finished()
        assert seen == ["route goes on"]

    play(route, scenario)


def test_somebody_elses_connection_that_has_ended_is_an_error() -> None:
    async def route(websocket: WebSocket) -> None:
        async with accept(websocket):
            raise ConnectionClosed(None, None)

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.finished()
        assert call.close_code == 1011
        assert call._task is not None
        assert isinstance(call._task.exception(), ConnectionClosed)

    play(route, scenario)


@pytest.mark.parametrize("receives", [False, True])
@pytest.mark.parametrize("left_before", [False, True])
def test_an_outer_cancellation_is_never_swallowed(receives: bool, left_before: bool) -> None:
    reached: list[str] = []

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            if receives:
                await connection.recv()
            await asyncio.Event().wait()
        reached.append("after the block")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        call.send("x")
        await turn()
        assert call._task is not None
        if left_before:
            leave(call)
            call._task.cancel()
        else:
            call._task.cancel()
            leave(call)
        await call.finished()
        assert call._task.cancelled()
        assert not reached

    play(route, scenario)


def test_a_deadline_around_the_block_stays_a_deadline() -> None:
    seen: list[str] = []

    async def route(websocket: WebSocket) -> None:
        try:
            async with asyncio.timeout(0.01), accept(websocket):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("deadline")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.finished()
        assert seen == ["deadline"]
        assert call.close_code == 1001

    play(route, scenario)


def test_tasks_of_the_block_end_with_it() -> None:
    ended: list[str] = []

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection, asyncio.TaskGroup() as group:
            group.create_task(push(connection))
            group.create_task(push(connection))
        ended.append("route goes on")

    async def push(connection: Connection) -> None:
        try:
            while True:
                await connection.send("tick")
                await asyncio.sleep(0)
        finally:
            ended.append("push")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        await call.until(lambda call: len(call.frames) > 3)
        leave(call)
        await call.finished()
        assert ended == ["push", "push", "route goes on"]

    play(route, scenario)


def test_a_block_that_ends_while_its_client_leaves_is_not_cancelled_afterwards() -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def route(websocket: WebSocket) -> None:
        async with accept(websocket):
            await go.wait()
        await asyncio.sleep(0)
        seen.append("unharmed")

    async def scenario(call: SocketCall) -> None:
        await call.open()
        # the goodbye is under way, and the client leaves without having read it
        call.reading.clear()
        go.set()
        await turn()
        leave(call)
        await turn()
        call.reading.set()
        await call.finished()
        assert seen == ["unharmed"]

    play(route, scenario)


def test_what_a_block_that_never_receives_misses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def route(websocket: WebSocket) -> None:
        async with accept(websocket):
            await asyncio.Event().wait()

    async def scenario(call: SocketCall) -> None:
        await call.open()
        for n in range(INBOX_MESSAGES_MAX + 3):
            call.send(f"{n}")
        leave(call)
        await call.finished()

    with caplog.at_level(logging.WARNING):
        play(route, scenario)
    assert "3 messages were dropped" in caplog.text


@pytest.mark.parametrize(
    ("origin", "origins", "allowed"),
    [
        (None, (), True),
        ("http://test", (), True),
        ("https://evil.example", (), False),
        ("null", (), False),
        ("https://evil.example", ["https://app.example"], False),
        ("https://app.example", ["https://app.example"], True),
        ("https://app.example", ["*"], True),
    ],
)
def test_pages_of_other_sites(
    origin: str | None, origins: Any, allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        app = FastAPI()

        @app.websocket("/ws")
        async def route(websocket: WebSocket) -> None:
            async with accept(websocket, origins=origins) as connection:
                await connection.send("welcome")

        call = SocketCall(app, "/ws", headers={} if origin is None else {"origin": origin})
        await call.open()
        await call.finished()
        assert call.accepted is allowed
        assert call.close_code == (1000 if allowed else 1008)
        assert call._task is not None
        assert call._task.exception() is None

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert ("accept(websocket, origins=[" in caplog.text) is (not allowed and origin != "null")


def test_it_works_under_starlettes_own_test_client() -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def route(websocket: WebSocket) -> None:
        async with accept(websocket) as connection:
            async for message in connection:
                await connection.send_json({"you": message})
                if message == "bye":
                    await connection.close(4000, "bye")

    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        socket.send_text("hi")
        assert socket.receive_json() == {"you": "hi"}
        socket.send_text("bye")
        assert socket.receive_json() == {"you": "bye"}
        assert socket.receive() == {"type": "websocket.close", "code": 4000, "reason": "bye"}
