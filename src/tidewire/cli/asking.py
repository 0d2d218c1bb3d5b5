"""What ``call``, ``presence`` and ``history`` share: a session at a URL, one question, and how failures are told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tidewire.client.session.client import Client

Token = Annotated[
    str | None, typer.Option("--token", metavar="TOKEN", help="Who you are: the token of a connection (a JWT).")
]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds to wait for the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one value a line, also on a terminal.")]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: its token, the headers of its handshake, and its patience."""

    token: str | None
    headers: list[tuple[str, str]]
    timeout_s: float


def run_asking(asking: Coroutine[Any, Any, None]) -> None:
    """Run it; what a user can see of a failure is one sentence and an exit code."""
    from tidewire.cli.show import mute_stdout, say
    from tidewire.errors import BadPosition, ClientError

    try:
        asyncio.run(asking)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        mute_stdout()
    except (ClientError, BadPosition) as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None


@asynccontextmanager
async def session_at(urls: Sequence[str], caller: Caller) -> AsyncIterator[tuple[Client, int]]:
    """A client at the first of ``urls`` that speaks a session, and which one that was. Raises ``ClientError``."""
    client, number = await _open_first(urls, caller)
    try:
        yield client, number
    finally:
        await client.__aexit__(None, None, None)


async def _open_first(urls: Sequence[str], caller: Caller) -> tuple[Client, int]:
    from tidewire.client.errors import NotASession, Refused
    from tidewire.client.session.client import Client

    failure: NotASession | Refused | None = None
    for number, url in enumerate(urls):
        client = Client(url, token=caller.token, headers=caller.headers, timeout_s=caller.timeout_s)
        try:
            return await client.__aenter__(), number
        except NotASession as error:
            failure = error
        except Refused as error:
            if error.status not in (403, 404, 405) or error.detail not in ("", "Not Found", "no such topic here"):
                raise
            # nothing is there, in the words of frameworks and of ours
            failure = failure or error
    if len(urls) == 1 and failure is not None:
        raise failure
    raise NotASession(urls[-1], "neither this URL nor one above it does; is the server Tidewire, and the path right?")


def print_json(value: object, *, as_json: bool) -> None:
    """``value`` on standard output: in colour on a terminal, else compact on one line."""
    import msgspec

    if as_json or not sys.stdout.isatty():
        sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
        sys.stdout.buffer.flush()
        return
    from rich.console import Console

    Console(highlight=False).print_json(msgspec.json.encode(value).decode())
