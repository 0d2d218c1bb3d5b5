"""The contenders: each a server process of its own, driven by lines (contenders/harness.py says how).

A contender in another language needs no more than an entry here: a command that listens on the given port,
reads commands from standard input and answers each with one line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks import tools

HERE = Path(__file__).parent

Dialect = Literal["websocket", "sse", "socketio", "session"]


@dataclass(frozen=True)
class Tls:
    """The files of a certificate and its key."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Launch:
    """How to start a contender. ``window_ms``: Tidewire's flush window where it is not the default."""

    port: int
    loop: str = "asyncio"
    window_ms: float | None = None
    tls: Tls | None = None


Command = Callable[[Launch], list[str]]


@dataclass(frozen=True)
class Contender:
    """``command`` starts it, clients open ``path`` in the dialect; it takes part in ``scenarios``.

    ``prepare`` raises ``BenchmarkError``, saying what to install, where something is missing.
    """

    name: str
    title: str
    command: Command
    path: str
    scenarios: frozenset[str]
    dialect: Dialect = "websocket"
    prepare: Callable[[], object] = lambda: None


def _tls_arguments(launch: Launch) -> list[str]:
    return ["--tls-cert", launch.tls.certificate, "--tls-key", launch.tls.key] if launch.tls else []


def _python(module: str, *arguments: str) -> Command:
    def command(launch: Launch) -> list[str]:
        window = [] if launch.window_ms is None else ["--window-ms", str(launch.window_ms)]
        argv = [sys.executable, "-m", f"benchmarks.contenders.{module}", "--port", str(launch.port)]
        return [*argv, "--loop", launch.loop, *window, *_tls_arguments(launch), *arguments]

    return command


def _node(script: str, *arguments: str) -> Command:
    def command(launch: Launch) -> list[str]:
        return tools.node(script, ["--port", str(launch.port), *_tls_arguments(launch), *arguments])

    return command


def _send_loop(launch: Launch) -> list[str]:
    return [str(tools.compiled(HERE / "send_loop.c")), "--port", str(launch.port)]


# ---------------------------------------------------------------- who takes part in what

FANOUT = frozenset({"fanout", "fixed-rate"})
EVERYTHING = FANOUT | {"memory", "connect"}
# Two packages on npm carry its binary; the second is the newer build, and the quicker one
_UWS_20_30 = ("--package", "@trufflesuite/uws-js-unofficial")
_UWS = ("--package", "uwebsockets")


def _topics() -> Iterable[Contender]:
    """A topic or what comes near to it: many subscribers, one publisher inside the server."""
    manager = partial(_python, "connection_manager", "--server")
    yield Contender(
        "connection_manager",
        "ConnectionManager of the FastAPI docs, uvicorn",
        manager("uvicorn"),
        "/ws/1",
        EVERYTHING | {"window", "stalled", "wss", "sessions"},
    )
    yield Contender(
        "manager_wsproto",
        "ConnectionManager, uvicorn with wsproto",
        manager("uvicorn", "--ws", "wsproto"),
        "/ws/1",
        FANOUT,
        prepare=partial(tools.need_package, "wsproto"),
    )
    yield Contender(
        "manager_websockets",
        "ConnectionManager, uvicorn with `websockets` (old)",
        manager("uvicorn", "--ws", "websockets"),
        "/ws/1",
        FANOUT,
    )
    yield Contender(
        "manager_tidewire", "ConnectionManager unchanged, `tidewire.run`", manager("tidewire"), "/ws/1", EVERYTHING
    )
    yield Contender(
        "websockets_broadcast",
        "`websockets.broadcast`",
        _python("websockets_server", "--handler", "broadcast"),
        "/",
        EVERYTHING,
    )
    yield Contender(
        "socketio",
        "python-socketio, uvicorn",
        _python("socketio_server"),
        "/socket.io/?EIO=4&transport=websocket",
        FANOUT | {"memory"},
        dialect="socketio",
        prepare=partial(tools.need_package, "socketio"),
    )
    everything = EVERYTHING | {"wss"}
    yield Contender("node_ws", "Node, `ws`", _node("ws.mjs"), "/topic", everything, prepare=tools.need_node)
    yield Contender(
        "node_uws", "Node, uWebSockets.js (C++)", _node("uws.mjs", *_UWS), "/topic", everything, prepare=tools.need_node
    )
    yield Contender(
        "node_uws_20_30",
        "Node, uWebSockets.js 20.30 (C++)",
        _node("uws.mjs", *_UWS_20_30),
        "/topic",
        frozenset({"fanout"}),
        prepare=tools.need_node,
    )
    yield Contender(
        "c_send",
        "the limit: one `send()` each, in C",
        _send_loop,
        "/",
        FANOUT,
        prepare=partial(tools.compiled, HERE / "send_loop.c"),
    )


def _tidewire_topics() -> Iterable[Contender]:
    topic = partial(_python, "tidewire_topic", "--policy")
    yield Contender(
        "tidewire_log",
        "Tidewire `Log`, `tidewire.run`",
        topic("log"),
        "/live/bench",
        EVERYTHING | {"window", "stalled", "wss", "sessions"},
    )
    yield Contender(
        "tidewire_session",
        "Tidewire `Log`, JSON session",
        topic("log"),
        "/live/-/session",
        frozenset({"sessions", "memory"}),
        dialect="session",
    )
    yield Contender("tidewire_storm", "Tidewire sessions", _python("tidewire_storm"), "", frozenset({"storm"}))
    yield Contender("tidewire_latest", "Tidewire `Latest`, `tidewire.run`", topic("latest"), "/live/bench", FANOUT)
    yield Contender("tidewire_signal", "Tidewire `Signal`, `tidewire.run`", topic("signal"), "/live/bench", FANOUT)
    yield Contender(
        "tidewire_uvicorn",
        "Tidewire `Log`, stock uvicorn (plain ASGI)",
        topic("log", "--server", "uvicorn"),
        "/live/bench",
        FANOUT | {"memory", "stalled"},
    )
    yield Contender(
        "tidewire_sse",
        "Tidewire `Log`, EventSource, `tidewire.run`",
        topic("log"),
        "/live/bench",
        FANOUT | {"memory", "stalled"},
        dialect="sse",
    )
    yield Contender(
        "tidewire_sse_uvicorn",
        "Tidewire `Log`, EventSource, stock uvicorn",
        topic("log", "--server", "uvicorn"),
        "/live/bench",
        frozenset({"fanout", "memory", "stalled"}),
        dialect="sse",
    )
    yield Contender(
        "tidewire_keys",
        'Tidewire `Latest(key="id", max_per_s=2)`, `tidewire.run`',
        topic("keys"),
        "/live/bench",
        frozenset({"latest"}),
    )


def _talkers() -> Iterable[Contender]:
    """One endpoint, which answers or counts what its clients send."""
    endpoint = partial(_python, "endpoints", "--server")
    handler = partial(_python, "tidewire_handler", "--handler")
    echo, upload = frozenset({"echo"}), frozenset({"upload"})
    yield Contender(
        "endpoint_uvicorn", "FastAPI endpoint, uvicorn", endpoint("uvicorn"), "/echo", echo | {"memory", "connect"}
    )
    yield Contender(
        "endpoint_tidewire",
        "FastAPI endpoint unchanged, `tidewire.run`",
        endpoint("tidewire"),
        "/echo",
        echo | {"memory", "connect"},
    )
    yield Contender(
        "tidewire_handler", "Tidewire handler, `tidewire.run`", handler("echo"), "/", echo | {"memory", "connect"}
    )
    yield Contender(
        "websockets_handler", "`websockets` library", _python("websockets_server", "--handler", "echo"), "/", echo
    )
    yield Contender("node_ws_echo", "Node, `ws`", _node("ws.mjs"), "/echo", echo, prepare=tools.need_node)
    yield Contender(
        "node_uws_echo",
        "Node, uWebSockets.js (C++)",
        _node("uws.mjs", *_UWS),
        "/echo",
        echo,
        prepare=tools.need_node,
    )
    yield Contender("upload_uvicorn", "FastAPI endpoint, uvicorn", endpoint("uvicorn"), "/upload", upload)
    yield Contender(
        "upload_tidewire", "FastAPI endpoint unchanged, `tidewire.run`", endpoint("tidewire"), "/upload", upload
    )
    yield Contender("upload_streaming", "Tidewire handler, `recv_streaming`", handler("streaming"), "/", upload)
    yield Contender("upload_recv", "Tidewire handler, `recv`", handler("recv"), "/", upload)
    yield Contender("node_ws_upload", "Node, `ws`", _node("ws.mjs"), "/upload", upload, prepare=tools.need_node)
    yield Contender(
        "node_uws_upload",
        "Node, uWebSockets.js (C++)",
        _node("uws.mjs", *_UWS),
        "/upload",
        upload,
        prepare=tools.need_node,
    )


CONTENDERS = {contender.name: contender for make in (_topics, _tidewire_topics, _talkers) for contender in make()}

# What the ratios of a scenario compare with
BASELINES = {
    "fanout": "connection_manager",
    "window": "connection_manager",
    "fixed-rate": "connection_manager",
    "stalled": "connection_manager",
    "wss": "connection_manager",
    "connect": "connection_manager",
    "memory": "endpoint_uvicorn",
    "echo": "endpoint_uvicorn",
    "upload": "upload_uvicorn",
    "latest": "tidewire_keys",
    "sessions": "connection_manager",
    "storm": "tidewire_storm",
}
