"""The command ``tidewire``."""

from __future__ import annotations

from typing import Annotated

import typer

from tidewire.cli.call import call
from tidewire.cli.cat import cat
from tidewire.cli.echo import echo
from tidewire.cli.history import history
from tidewire.cli.presence import presence
from tidewire.cli.pub import pub
from tidewire.cli.serve import run, serve
from tidewire.cli.sub import sub

app = typer.Typer(
    name="tidewire",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"tidewire {version('tidewire')}")
        raise typer.Exit


@app.callback()
def _tidewire(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The real-time layer for Python web applications: one URL is one topic.

    Read a topic with **sub**, a browser or curl; publish with **pub** or a POST.
    Look at one with **history** and **presence**; invoke the application with **call**.
    Talk to any WebSocket with **cat**; try clients against **echo**.
    """


app.command(no_args_is_help=True)(run)
app.command()(serve)
app.command(no_args_is_help=True)(sub)
app.command(no_args_is_help=True)(pub)
app.command(no_args_is_help=True)(history)
app.command(no_args_is_help=True)(presence)
app.command(no_args_is_help=True)(call)
app.command(no_args_is_help=True)(cat)
app.command()(echo)


def main() -> None:
    """Run the command line."""
    app()
