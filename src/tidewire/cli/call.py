"""``tidewire call``: call a method of the application, as a session does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tidewire.cli.asking import AsJson, Caller, TimeoutS, Token, print_json, run_asking, session_at
from tidewire.cli.options import Header, parse_headers


def call(
    url: Annotated[str, typer.Argument(metavar="URL", help="The router, e.g. http://127.0.0.1:8000/live")],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="As in @live.call: order.place")],
    data: Annotated[
        str | None, typer.Argument(metavar="JSON", help="What the method takes; - reads it from stdin.")
    ] = None,
    token: Token = None,
    header: Header = None,
    as_json: AsJson = False,
    timeout_s: TimeoutS = 10.0,
) -> None:
    """Call a method that is declared with **@live.call**, and print what it returns as JSON.

    The URL is that of the router; a topic of it does as well.

    Exit codes: 0 answered; 1 refused, failed there, or not known to be done (the sentence says what to do);
    2 wrong usage; 130 Ctrl-C.
    """
    value = _read_json(data)
    caller = Caller(token, parse_headers(header), timeout_s)
    from tidewire.cli.show import say
    from tidewire.client.session.place import places_of_router
    from tidewire.errors import ClientError

    try:
        places = places_of_router(url)
    except ClientError as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None
    run_asking(_call(places, caller, method, value, as_json=as_json))


def _read_json(text: str | None) -> Any:
    """What was given, untouched; None for nothing. Raises ``typer.BadParameter`` (exit code 2)."""
    import msgspec

    from tidewire.errors import BadPayload
    from tidewire.protocol.payload import check_json

    if text is None:
        return None
    data = sys.stdin.buffer.read() if text == "-" else text.encode(errors="surrogateescape")
    try:
        return msgspec.Raw(check_json(data))
    except BadPayload as error:
        raise typer.BadParameter(f"{error} (quote text: '\"like this\"')", param_hint="JSON") from None


async def _call(places: Sequence[str], caller: Caller, method: str, value: Any, *, as_json: bool) -> None:
    async with session_at(places, caller) as (client, _):
        print_json(await client.call(method, value), as_json=as_json)
