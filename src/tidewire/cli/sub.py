"""``tidewire sub``: print a topic's messages, and survive what happens to the line."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import typer

from tidewire.cli.options import Header, parse_headers


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asked for."""

    url: str
    count: int | None
    as_json: bool
    since: str | None
    headers: list[tuple[str, str]]
    max_per_s: float | None
    wait: bool
    quiet: bool


def sub(
    url: Annotated[str, typer.Argument(metavar="URL", help="The topic, e.g. http://127.0.0.1:8000/live/chat/7")],
    count: Annotated[int | None, typer.Option("-n", min=1, help="Leave after this many messages.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line: position, data, gap.")] = False,
    since: Annotated[
        str | None, typer.Option(metavar="POS", help="Go on after this position; -1 for everything that is kept.")
    ] = None,
    header: Header = None,
    max_per_s: Annotated[
        float | None, typer.Option("--max-per-s", metavar="R", help="On Latest topics: at most R updates a second.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a server that does not listen yet.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
) -> None:
    """Print the messages of a topic as they come.

    On a terminal they are coloured; into a pipe goes the plain payload, one per line. Everything else is said on
    stderr. A cut line or a restarted server is outlived: sub comes back by itself, asks for what it missed and says
    **reconnected, 37 recovered** or, when the server no longer has it, **history lost, live again**.

    Exit codes: 0 the topic has ended, -n is reached, or the reader of the pipe left; 1 refused, no topic,
    or nothing listens (the sentence says what to do); 2 wrong usage; 130 Ctrl-C.
    """
    if max_per_s is not None and not 0 < max_per_s < float("inf"):
        raise typer.BadParameter("give a positive number of updates a second", param_hint="--max-per-s")
    wanted = _Wanted(url, count, as_json, since, parse_headers(header), max_per_s, wait, quiet)
    from tidewire.cli.show import mute_stdout, say
    from tidewire.errors import ClientError

    try:
        asyncio.run(_follow(wanted))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        mute_stdout()
    except ClientError as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None


async def _follow(wanted: _Wanted) -> None:
    from tidewire.cli.show import choose_printer, say
    from tidewire.cli.words import Narrator
    from tidewire.client.target import parse_url
    from tidewire.client.topic import State, subscribe

    narrator = Narrator(parse_url(wanted.url).shown)

    def narrate(state: State) -> None:
        sentence = narrator.tell(state)
        if sentence is not None and not wanted.quiet:
            say(sentence, "yellow" if state.lost else "dim")

    printer = choose_printer(wanted.as_json)
    left = wanted.count
    messages = subscribe(
        wanted.url,
        since=wanted.since,
        headers=wanted.headers,
        max_per_s=wanted.max_per_s,
        wait=wanted.wait,
        on_state=narrate,
    )
    async with messages:
        async for message in messages:
            if printer.show(message) and left is not None:
                left -= 1
                if left == 0:
                    return
    if not wanted.quiet:
        say("the topic has ended")
