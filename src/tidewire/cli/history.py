"""``tidewire history``: what is kept of a topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tidewire.cli.asking import AsJson, Caller, TimeoutS, Token, run_asking, session_at
from tidewire.cli.options import Header, parse_headers

if TYPE_CHECKING:
    from tidewire.client.resume import Received
    from tidewire.client.session.messages import Message


def history(
    url: Annotated[str, typer.Argument(metavar="URL", help="The topic, e.g. http://127.0.0.1:8000/live/room/1")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many messages.")] = 100,
    since: Annotated[
        str | None, typer.Option(metavar="POS", help="Those after this position (-1: all); before it with --reverse.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The newest first.")] = False,
    token: Token = None,
    header: Header = None,
    as_json: AsJson = False,
    timeout_s: TimeoutS = 10.0,
) -> None:
    """Print the messages that are kept of a topic, the oldest first, as **sub** prints them.

    With --json every line has its position, to go on from with --since, here and in **sub**.
    Where a path could be read in two ways say which part is the topic: .../live/-/session/room/1

    Exit codes: 0 answered; 1 refused, or no answer (the sentence says what to do); 2 wrong usage; 130 Ctrl-C.
    """
    caller = Caller(token, parse_headers(header), timeout_s)
    from tidewire.cli.show import say
    from tidewire.client.session.place import places_of_topic
    from tidewire.errors import ClientError

    try:
        places = places_of_topic(url)
    except ClientError as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None
    start = None if since == "-1" else since
    run_asking(_print(places, caller, limit=limit, since=start, reverse=reverse, as_json=as_json))


async def _print(
    places: Sequence[tuple[str, str]], caller: Caller, *, limit: int, since: str | None, reverse: bool, as_json: bool
) -> None:
    from tidewire.cli.show import choose_printer

    printer = choose_printer(as_json)
    async with session_at([session for session, _ in places], caller) as (client, number):
        found = await client.history(places[number][1], limit=limit, since=since, reverse=reverse)
        for message in found.messages:
            printer.show(_as_received(message))


def _as_received(message: Message[Any]) -> Received:
    """As ``sub`` has it. A session does not tell text from a string in JSON."""
    from tidewire.client.resume import Received

    kind: Literal["json", "text", "bytes"] = "json"
    if isinstance(message.data, str):
        kind = "text"
    elif isinstance(message.data, bytes):
        kind = "bytes"
    return Received(message.data, message.position, message.gap, message.key, message.removed, kind, message.snapshot)
