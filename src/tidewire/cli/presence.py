"""``tidewire presence``: who is on a topic."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tidewire.cli.asking import AsJson, Caller, TimeoutS, Token, print_json, run_asking, session_at
from tidewire.cli.options import Header, parse_headers

if TYPE_CHECKING:
    from tidewire.client.session.messages import Member


def presence(
    url: Annotated[str, typer.Argument(metavar="URL", help="The topic, e.g. http://127.0.0.1:8000/live/room/1")],
    stats: Annotated[bool, typer.Option("--stats", help="Only how many there are.")] = False,
    token: Token = None,
    header: Header = None,
    as_json: AsJson = False,
    timeout_s: TimeoutS = 10.0,
) -> None:
    """Print who is on a topic, one connection a line: user, connection, and what is told of it.

    The topic has to be declared with **presence=True**, and its function is asked whether you may.
    Where a path could be read in two ways say which part is the topic: .../live/-/session/room/1

    Exit codes: 0 answered (nobody there is an answer); 1 refused, or no answer (the sentence says what to do);
    2 wrong usage; 130 Ctrl-C.
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
    run_asking(_ask(places, caller, stats=stats, as_json=as_json))


async def _ask(places: Sequence[tuple[str, str]], caller: Caller, *, stats: bool, as_json: bool) -> None:
    async with session_at([session for session, _ in places], caller) as (client, number):
        topic = places[number][1]
        if stats:
            found = await client.presence_stats(topic)
            if as_json:
                print_json(found, as_json=True)
            else:
                print(f"{_count(found.connections, 'connection')} of {_count(found.users, 'user')}")
            return
        for member in await client.presence(topic):
            if as_json:
                print_json(member, as_json=True)
            else:
                print(_line_of(member))
        sys.stdout.flush()


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _line_of(member: Member) -> str:
    """Fields with tabs between; whatever strangers have put there does nothing to a terminal."""
    import msgspec

    from tidewire.cli.words import defuse

    infos = [msgspec.json.encode(info).decode() for info in (member.info, member.topic_info) if info is not None]
    fields = [member.user or "-", member.client, *infos]
    return "\t".join(defuse(" ".join(field.split())) for field in fields)
