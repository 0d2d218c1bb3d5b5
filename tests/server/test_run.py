"""``run`` with handlers, by value and by name, and routes that forget ``accept()``."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import websockets
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_sync

from tidewire import Connection, Live, SeveralProcesses, run
from tidewire.server.handler import is_handler
from tidewire.server.run import Server, bind, make_config, url_of

PROGRAM = """
import asyncio
import sys

import tidewire


async def echo(connection):
    try:
        async for message in connection:
            await connection.send(message)
        print("ended with", connection.close_code, flush=True)
    finally:
        print("cleaned up", flush=True)


if __name__ == "__main__":
    tidewire.run(echo, "127.0.0.1", 0, on_listening=lambda url: print(url, flush=True), **eval(sys.argv[1]))
    print("after run", flush=True)
"""


def start(folder: Path, options: str) -> tuple[subprocess.Popen[str], str]:
    (folder / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "program.py", options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_ctrl_c_says_goodbye_and_returns(tmp_path: Path) -> None:
    process, url = start(tmp_path, "{}")
    assert url.startswith("ws://127.0.0.1:")
    with connect_sync(url) as client:
        client.send("hi")
        assert client.recv(timeout=5) == "hi"
        process.send_signal(signal.SIGINT)
        with pytest.raises(websockets.ConnectionClosedOK) as told:
            client.recv(timeout=5)
        assert told.value.rcvd is not None
        assert told.value.rcvd.code == 1001
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "ended with 1001\ncleaned up\nafter run\n")
    assert "Traceback" not in err


STUBBORN = """
import asyncio

import tidewire.server.run


async def stubborn(connection):
    await connection.send("here")
    while True:
        try:
            await asyncio.sleep(100)
        except:
            print("no!", flush=True)


tidewire.server.run._LAST_CALL_S = 0.2
tidewire.run(stubborn, port=0, on_listening=lambda url: print(url, flush=True), timeout_graceful_shutdown=1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_that_catches_its_cancellation_keeps_nobody_waiting(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(STUBBORN)
    process = subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with connect_sync(process.stdout.readline().strip()) as client:
        assert client.recv(timeout=5) == "here"
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    assert "no!" in out
    if number == signal.SIGINT:
        assert "ignores its cancellation" in err
        assert "program.py:11, in stubborn" in err


BUSY = """
import asyncio

import tidewire


async def busy(connection):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(push(connection))
        async for message in connection:
            await connection.send(message)


async def push(connection):
    while True:
        await connection.send("x" * 1000)
        await asyncio.sleep(0)


tidewire.run(busy, port=0, on_listening=lambda url: print(url, flush=True))
print("after", flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.2])
def test_ctrl_c_at_any_moment_is_clean(delay_s: float, tmp_path: Path) -> None:
    """Clients come, talk, stop reading and vanish, and in the middle of it the server is stopped."""
    (tmp_path / "program.py").write_text(BUSY)
    process = subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()

    async def visit(number: int) -> None:
        try:
            async with connect(url, open_timeout=5, close_timeout=0.1) as client:
                for _ in range(1000):
                    await client.send(f"{number}")
                    if number % 3:
                        await client.recv()
                    if number % 5 == 4:
                        client.transport.abort()
        except (OSError, websockets.WebSocketException):
            return

    async def scenario() -> None:
        visits = [asyncio.create_task(visit(number)) for number in range(10)]
        await asyncio.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate, timeout=15)
        assert (process.returncode, out) == (0, "after\n"), err
        assert "Traceback" not in err
        assert "never" not in err
        # the server is gone, and so are their connections
        async with asyncio.timeout(10):
            await asyncio.wait(visits)
            # what was aborted is closed on the next pass
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_server_for_a_while(tmp_path: Path) -> None:
    process, url = start(tmp_path, "{'run_for_s': 0.2}")
    assert url.startswith("ws://")
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "after run\n")
    assert "Traceback" not in err


def test_a_handler_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "-m", "tidewire", "run", "program:echo", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "Tidewire is listening on" in line)
        url = line.split("listening on ")[1].split()[0]
        assert url.startswith("ws://")
        with connect_sync(url) as client:
            client.send("hi")
            assert client.recv(timeout=5) == "hi"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0


async def handler(connection: Connection) -> None:
    """One required parameter."""


async def with_default(connection: Connection, greeting: str = "hi") -> None:
    """Still one required parameter."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """ASGI."""


class Application:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""


class Handling:
    async def __call__(self, connection: Connection) -> None:
        """A handler."""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (handler, True),
        (with_default, True),
        (functools.partial(with_default, greeting="ho"), True),
        (Handling(), True),
        (application, False),
        (Application(), False),
        (FastAPI(), False),
        (Application, False),
        (lambda *args: None, False),
        ("module:app", False),
        (None, False),
    ],
)
def test_handlers_are_told_from_applications(what: object, told: bool) -> None:
    assert is_handler(what) is told


def test_workers_and_reload_need_a_name() -> None:
    with pytest.raises(TypeError, match="by name"):
        run(handler, reload=True)
    in_memory = Live()
    with pytest.raises(SeveralProcesses):
        run(handler, workers=2)
    del in_memory


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    sockets = bind("127.0.0.1", 0)
    server = Server(make_config(app, log_config=None, log_level=None), signals=False)
    task = asyncio.create_task(server.serve(sockets=sockets))
    try:
        async with asyncio.timeout(10):
            await server.wait_listening()
            yield url_of(sockets[0], "ws")
    finally:
        server.stop()
        await task


async def greeting(name: str = "nobody") -> str:
    return f"hello {name}"


def make_routes() -> FastAPI:
    app = FastAPI()

    @app.websocket("/forgets")
    async def forgets(websocket: WebSocket) -> None:
        await websocket.receive_text()

    @app.websocket("/sends")
    async def sends(websocket: WebSocket) -> None:
        await websocket.send_text("too early")

    @app.websocket("/returns")
    async def returns(websocket: WebSocket) -> None:
        """It does nothing at all."""

    @app.websocket("/refuses")
    async def refuses(websocket: WebSocket) -> None:
        await websocket.close()

    @app.websocket("/fails")
    async def fails(websocket: WebSocket) -> None:
        raise RuntimeError("no database")

    @app.websocket("/works")
    async def works(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")

    @app.websocket("/everything/{kind}")
    async def everything(websocket: WebSocket, kind: str, hello: Annotated[str, Depends(greeting)]) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"x-kind", kind.encode())])
        await websocket.send_text(hello)
        try:
            while True:
                if kind == "text":
                    await websocket.send_text(await websocket.receive_text())
                elif kind == "bytes":
                    await websocket.send_bytes(await websocket.receive_bytes())
                elif (value := await websocket.receive_json()) == "close":
                    await websocket.close(4001, "as you wish")
                    return
                else:
                    await websocket.send_json(value)
        except WebSocketDisconnect as gone:
            app.state.gone = (gone.code, gone.reason)

    @app.websocket("/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        raise RuntimeError("accept is not what failed here")

    return app


@pytest.mark.parametrize("path", ["forgets", "sends", "returns"])
def test_a_route_that_forgets_accept_is_refused_with_one_line(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(make_routes()) as url:
            with pytest.raises(websockets.InvalidStatus) as told:
                await connect(f"{url}/{path}?token=secret")
            assert told.value.response.status_code == 403

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    (record,) = caplog.records
    assert f"the WebSocket route /{path} never accepted the connection" in record.getMessage()
    assert "await websocket.accept()" in record.getMessage()
    assert "Traceback" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("path", "status"), [("refuses", 403), ("fails", 500)])
def test_other_ends_before_accept_are_what_they_were(path: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(make_routes()) as url:
            with pytest.raises(websockets.InvalidStatus) as told:
                await connect(f"{url}/{path}")
            assert told.value.response.status_code == status

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "never accepted" not in caplog.text
    assert ("no database" in caplog.text) is (path == "fails")


def test_everything_fastapi_offers_works_beside_ours() -> None:
    app = make_routes()

    async def scenario() -> None:
        async with serving(app) as url:
            for kind, message in [("text", "ä"), ("bytes", b"\x00"), ("json", '{"a":[1]}')]:
                async with connect(f"{url}/everything/{kind}?name=you", subprotocols=["chat"]) as client:  # type: ignore[list-item]
                    assert client.subprotocol == "chat"
                    assert client.response is not None
                    assert client.response.headers["x-kind"] == kind
                    assert await client.recv() == "hello you"
                    await client.send(message)
                    assert await client.recv() == message
                    await client.close(4000, kind)
                while getattr(app.state, "gone", None) != (4000, kind):
                    await asyncio.sleep(0.001)
            async with connect(f"{url}/everything/json", subprotocols=["chat"]) as client:  # type: ignore[list-item]
                assert await client.recv() == "hello nobody"
                await client.send('"close"')
                with pytest.raises(websockets.ConnectionClosed) as told:
                    await client.recv()
                assert (told.value.rcvd and told.value.rcvd.code, told.value.rcvd and told.value.rcvd.reason) == (
                    4001,
                    "as you wish",
                )

    asyncio.run(scenario())


def test_untouched_routes_work_and_fail_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(make_routes()) as url:
            async with connect(f"{url}/works") as client:
                await client.send("hi")
                assert await client.recv() == "You said: hi"
            async with connect(f"{url}/late") as client:
                with pytest.raises(websockets.ConnectionClosed):
                    await client.recv()

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "accept is not what failed here" in caplog.text
    assert "never accepted" not in caplog.text
