"""The contenders: each a server process of its own, driven by lines (contenders/harness.py says how).

A contender in another language needs no more than an entry here: a command that listens on the given port,
reads commands from standard input and answers each with one line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

Command = Callable[[int, str], list[str]]


@dataclass(frozen=True)
class Contender:
    """``command(port, loop)`` starts it; subscribers open ``path`` in the dialect."""

    name: str
    title: str
    command: Command
    path: str
    sse: bool = False


def _python(module: str, *arguments: str) -> Command:
    def command(port: int, loop: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            f"benchmarks.contenders.{module}",
            "--port",
            str(port),
            "--loop",
            loop,
            *arguments,
        ]

    return command


BASELINE = "connection_manager"

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            BASELINE,
            "ConnectionManager of the FastAPI docs, uvicorn",
            _python("connection_manager"),
            "/ws/1",
        ),
        Contender(
            "tidewire_ws",
            "Tidewire, bare WebSocket, `tidewire.run`",
            _python("tidewire_topic", "--server", "tidewire"),
            "/live/bench",
        ),
        Contender(
            "tidewire_ws_plain",
            "Tidewire, bare WebSocket, uvicorn (plain ASGI)",
            _python("tidewire_topic", "--server", "uvicorn"),
            "/live/bench",
        ),
        Contender(
            "tidewire_sse",
            "Tidewire, SSE, `tidewire.run`",
            _python("tidewire_topic", "--server", "tidewire"),
            "/live/bench",
            sse=True,
        ),
        Contender(
            "tidewire_sse_plain",
            "Tidewire, SSE, uvicorn (plain ASGI)",
            _python("tidewire_topic", "--server", "uvicorn"),
            "/live/bench",
            sse=True,
        ),
    )
}
