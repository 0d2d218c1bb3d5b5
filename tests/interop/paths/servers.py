"""The ways to serve ``app``: each a command line as users have it, and a table of what that server can do.

Whoever adds a way adds one line to ``WAYS``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.interop.paths.app import OPTIONS
from tests.project.files import ROOT
from tests.wire.servers import PATIENCE_S, until
from tests.wire.servers import Server as WireServer

KIB = 1024
WIRE_BYTES_MAX = 256 * KIB
"""What one message may have for the server itself, where it can be told."""

APP = "tests.interop.paths.app:app"
NOBODY = {"subscriptions": 0, "connections": 0, "outboxes": 0, "sockets": 0, "tasks": 0}
_COMPLAINT = re.compile(r"Traceback|\b(ERROR|CRITICAL)\b|Fatal error|^Task ")


@dataclass(frozen=True)
class Way:
    """One way to serve. The flags say what its server does; ``docs/running.md`` says the same in words."""

    name: str
    # after the interpreter; {config} is the server's configuration file, where it needs one
    command: Sequence[str]
    config: str = ""
    # what the application gives to ``Live`` beside its limits
    options: Mapping[str, Any] = field(default_factory=dict)
    # it has our WebSocket class, or both of ours: a reader that was given up is reset
    is_fast: bool = False
    is_fast_http: bool = False
    # headers given to ``accept`` reach the client
    accept_headers: bool = True
    # what the application hears of a client that closes with 4000, and of one that is cut
    hears_close: int = 4000
    hears_cut: int = 1006
    # what one message may have for the server itself; how it ends a larger one (code, and words of the reason), and
    # whether it does so when it sees the head of the frame
    wire_bytes_max: int = WIRE_BYTES_MAX
    too_large: tuple[int, str] = (1009, "")
    judges_by_the_head: bool = True
    # at SIGTERM: the close frame that WebSockets get (None: they are cut), whether event streams are ended with a last
    # chunk, whether its log shows how their tasks were cancelled, and whether the application's shutdown runs then
    stop_close: tuple[int, str] | None = (1012, "")
    stop_ends_streams: bool = False
    stop_is_noisy: bool = True
    stop_runs_shutdown: bool = True
    # it waits for the answer to a close frame before it drops the line
    waits_for_close: bool = True
    # errors in its log that are its way to speak of a refused handshake, and of a reader that was given up
    says_refused: Sequence[str] = ()
    says_given_up: Sequence[str] = ()


_UVICORN = (
    *("-m", "uvicorn", APP, "--port", "0", "--no-access-log"),
    *("--ws-max-size", str(WIRE_BYTES_MAX), "--timeout-graceful-shutdown", "1"),
)
_REFUSED = ("ASGI callable returned without completing handshake.",)
_LEFT_ALONE = ("ASGI callable returned without completing response.",)

WAYS = (
    Way(
        "ours",
        ("-m", "tests.interop.paths.app"),
        is_fast=True,
        is_fast_http=True,
        too_large=(1009, "262144"),
        stop_close=(1012, "the server stops"),
        stop_ends_streams=True,
        stop_is_noisy=False,
    ),
    # what the line in the log says, as it is said there
    Way(
        "our-ws",
        (*_UVICORN, "--ws", "tidewire.wire:Protocol"),
        is_fast=True,
        too_large=(1009, "262144"),
        says_given_up=_LEFT_ALONE,
    ),
    Way(
        "stock",
        _UVICORN,
        hears_cut=1005,
        too_large=(1009, "262144"),
        says_refused=_REFUSED,
        says_given_up=_LEFT_ALONE,
    ),
    Way(
        "takeover",
        _UVICORN,
        options={"takeover": True},
        is_fast=True,
        hears_cut=1005,
        too_large=(1009, "262144"),
        says_refused=_REFUSED,
        says_given_up=_LEFT_ALONE,
    ),
    Way("stock-websockets", (*_UVICORN, "--ws", "websockets"), says_given_up=_LEFT_ALONE),
    Way(
        "hypercorn",
        ("-m", "hypercorn", "--config", "{config}", "--bind", "127.0.0.1:0", "--workers", "1", APP),
        config=f"websocket_max_message_size = {WIRE_BYTES_MAX}\ngraceful_timeout = 1\n",
        hears_close=1006,
        judges_by_the_head=False,
        stop_close=(1011, ""),
    ),
    Way(
        "granian",
        (
            *("-m", "granian", "--interface", "asgi", "--port", "0", "--workers", "1"),
            *("--workers-kill-timeout", "1", APP),
        ),
        accept_headers=False,
        hears_cut=1005,
        waits_for_close=False,
        wire_bytes_max=16 * 1024 * KIB,
        too_large=(1005, ""),
        stop_close=None,
        stop_is_noisy=False,
        stop_runs_shutdown=False,
    ),
)


class Server(WireServer):
    """One server with ``app``. ``way``: how it is served."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, way: Way) -> None:
        self.way = way
        super().__init__(process, log, is_stock=not way.is_fast)

    def _find_url(self) -> str | None:
        assert self.process.poll() is None, self.log
        port = self._find_port() if "application started" in self.log else None
        return f"http://127.0.0.1:{port}" if port else None

    def _find_port(self) -> int | None:
        """Where one of its processes listens: not every server can be asked for a free port and says which."""
        for process in (found := psutil.Process(self.process.pid), *found.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        return int(connection.laddr.port)
        return None

    @property
    def live(self) -> str:
        """URL of the router."""
        return f"{self.url}/live"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def stats(self) -> dict[str, int]:
        """As ``app.stats`` says."""
        stats: dict[str, int] = self.ask_json("/control/stats")
        return stats

    def notes(self) -> list[str]:
        """What the application has noticed since the last time."""
        notes: list[str] = self.ask_json("/control/notes")
        return notes

    def until_notes(self, *wanted: str) -> None:
        """Wait until the application has noticed exactly this, in this order."""
        noticed: list[str] = []

        def all_there() -> bool:
            noticed.extend(self.notes())
            return len(noticed) >= len(wanted)

        until(all_there, f"the application notices {wanted}; it did notice {noticed}")
        assert noticed == list(wanted)

    def finish(self, topic: str, error: str | None = None) -> None:
        self.ask_json(f"/control/finish?topic={topic}" + (f"&error={error}" if error else ""), "POST")

    def check_clean(self) -> None:
        """Nobody is left, and nothing was complained about that the test did not ask for."""
        self.until_stats("everybody is gone", **NOBODY)
        self.notes()
        log = self.new_log()
        known = (*self.expected_errors, *self.way.says_refused)
        unexpected = [
            line for line in log.splitlines() if _COMPLAINT.search(line) and not any(words in line for words in known)
        ]
        self.expected_errors = []
        assert unexpected == [], log


@contextmanager
def serving(way: Way, folder: Path) -> Iterator[Server]:
    """A server process, and those it starts, until the end of the block."""
    log, config = folder / f"{way.name}-{time.monotonic_ns()}.log", folder / f"{way.name}.toml"
    config.write_text(way.config, encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(word.format(config=config) for word in way.command)],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", OPTIONS: json.dumps(way.options)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # workers too are to be gone at the end
            start_new_session=True,
        )
    try:
        yield Server(process, log, way)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
