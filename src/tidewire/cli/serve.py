"""``tidewire run`` and ``tidewire serve``: a server from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every one this machine has.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")]


def run(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the application is, e.g. main:app")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a source file changes.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; more than one needs a shared broker.")] = 1,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Several processes that know nothing of one another, on purpose.")
    ] = False,
) -> None:
    """Serve an application with Tidewire's own wire.

    Like uvicorn, with graceful drain: on Ctrl-C or SIGTERM readers are told, and the server is gone within five
    seconds even when some of them are stalled.

    Exit codes: 0 stopped; 1 it cannot start (the sentence says why); 2 wrong usage.
    """
    from tidewire.server.run import run as serve_app

    if "" not in sys.path:
        sys.path.insert(0, "")
    _start(lambda: serve_app(app, host, port, reload=reload, workers=workers, isolated=isolated))


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    broker: Annotated[
        str, typer.Option(metavar="URL", help="What keeps the messages, e.g. sqlite:///live.db, there after a restart.")
    ] = "memory://",
) -> None:
    """Start an open server: any topic, no application needed.

    Everybody who reaches it may read and publish, so it listens on this machine only unless told otherwise. Try it:

    **tidewire serve**, then **tidewire sub http://127.0.0.1:8000/chat** in a second terminal and
    **tidewire pub http://127.0.0.1:8000/chat hello** in a third.

    Exit codes: 0 stopped; 1 it cannot start (the sentence says why); 2 wrong usage.
    """
    from tidewire.cli.openserver import serve_open

    _start(lambda: serve_open(host, port, broker=broker, on_listening=_tell_listening))


def _tell_listening(url: str) -> None:
    typer.echo(f"Tidewire is listening on {url}")


def _start(server: Callable[[], None]) -> None:
    """Run it; what keeps it from starting becomes a sentence and exit code 1."""
    from tidewire.cli.show import say
    from tidewire.errors import TidewireError

    try:
        server()
    except TidewireError as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None
