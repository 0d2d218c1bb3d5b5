"""``tidewire echo``: a server that says everything again, for trying clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidewire.cli.serve import Host, Port, _start, _tell_listening

if TYPE_CHECKING:
    from tidewire.wire.connection import Connection


def echo(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="ORIGIN",
            help="Pages of this origin may connect, e.g. http://localhost:5173; * for all; may be repeated.",
        ),
    ] = None,
) -> None:
    """Serve an echo: every message comes back as it was, text as text and binary as binary.

    For trying clients. **tidewire echo**, then in a second terminal **tidewire cat ws://127.0.0.1:8000**, or in the
    console of a browser: `ws = new WebSocket("ws://127.0.0.1:8000"); ws.onmessage = e => console.log(e.data)`

    It listens on this machine only unless told otherwise. Programs may always connect; pages of other sites only with
    **--origin**. Ctrl-C stops it.

    Exit codes: 0 stopped; 1 it cannot start (the sentence says why); 2 wrong usage.
    """
    from tidewire.cli.show import say
    from tidewire.server.run import run

    def tell(url: str) -> None:
        _tell_listening(url)
        say(f"try it: tidewire cat {url}")

    _start(lambda: run(send_back, host, port, origins=origin, on_listening=tell, log_level="warning"))


async def send_back(connection: Connection) -> None:
    """The handler."""
    async for message in connection:
        await connection.send(message)
