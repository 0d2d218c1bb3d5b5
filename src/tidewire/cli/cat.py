"""``tidewire cat``: a raw socket at the terminal, or in a pipe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from tidewire.cli.cat_options import Wanted, check_wanted
from tidewire.cli.options import Header, parse_headers

if TYPE_CHECKING:
    from tidewire.errors import ClientError


def cat(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The WebSocket, e.g. ws://127.0.0.1:8000/chat; http means ws.")
    ],
    count: Annotated[
        int | None, typer.Option("--count", "-n", metavar="N", min=1, help="Leave after this many received messages.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait", metavar="SECONDS", help="At the end of stdin, leave after so long a silence (see above)."
        ),
    ] = None,
    header: Header = None,
    origin: Annotated[
        str | None, typer.Option(metavar="ORIGIN", help="Come as a page of this origin, e.g. https://example.org")
    ] = None,
    subprotocol: Annotated[
        list[str] | None,
        typer.Option("--subprotocol", metavar="NAME", help="Offer this subprotocol; may be repeated, best first."),
    ] = None,
    as_binary: Annotated[
        bool, typer.Option("--binary", help="Send binary: chunks of stdin, or typed lines; print bytes as they are.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON indented, and coloured on a terminal.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Say when each message came.")] = False,
    ping: Annotated[
        float | None, typer.Option("--ping", metavar="SECONDS", help="Ping this often, and say the round trips.")
    ] = None,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Come back when the connection ends, and wait for a server.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not check the certificate of a wss server.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say the handshake and the close codes; secrets are left out.")
    ] = False,
) -> None:
    """Open a WebSocket: type to it, or pipe through it.

    **At the terminal** every line you type is sent as a text message, and what comes is printed above the prompt.
    The arrows edit the line and bring back earlier ones, Ctrl-R searches them; Ctrl-D leaves.

    **In a pipe** every line of stdin is a message. At its end cat waits for answers until nothing has come for 2
    seconds; with **-n**, until they have all come; when there was nothing to send, until the server closes.
    **--wait** sets another limit in seconds; 0 leaves at once, inf never.

    `echo hello | tidewire cat -n 1 ws://127.0.0.1:8000`

    Received text goes to stdout, a line per message, binary as it is; everything else is said on stderr. On a
    terminal, binary is shown as hex, and control characters are written out.

    Exit codes:

    - 0 closed normally, nothing left to say, or -n reached
    - 1 could not connect, or refused (the sentence says why)
    - 2 wrong usage
    - 3 the connection was lost, or closed with an error code
    - 4 ended well, but with fewer messages than -n
    - 130 Ctrl-C
    """
    wanted = Wanted(
        url=url,
        count=count,
        wait_s=wait,
        headers=parse_headers(header),
        origin=origin,
        subprotocols=tuple(subprotocol or ()),
        is_binary=as_binary,
        is_pretty=as_json,
        has_times=timestamps,
        ping_s=ping,
        reconnects=reconnect,
        is_insecure=insecure,
        is_verbose=verbose,
    )
    check_wanted(wanted)
    raise typer.Exit(_run(wanted))


def _run(wanted: Wanted) -> int:
    """The exit code of the whole conversation; errors have been said."""
    from tidewire.cli.cat_input import BadInput, Interrupted
    from tidewire.cli.cat_talk import talk
    from tidewire.cli.show import mute_stdout, say
    from tidewire.errors import ClientError

    try:
        return asyncio.run(talk(wanted))
    except (KeyboardInterrupt, Interrupted):
        return 130
    except BrokenPipeError:
        mute_stdout()
        return 0
    except BadInput as error:
        say(str(error), "bold red")
        return 2
    except ClientError as error:
        return _explain(error, wanted)


def _explain(error: ClientError, wanted: Wanted) -> int:
    from tidewire.cli.cat_words import find_answer, tell_response
    from tidewire.cli.show import say
    from tidewire.client.errors import BadURL, NothingListens, Refused

    answer = find_answer(error) if wanted.is_verbose else None
    for line in [] if answer is None else tell_response(answer):
        say(line)
    say(str(error), "bold red")
    if isinstance(error, NothingListens) and "certificate" in error.why:
        say("--insecure connects all the same, without knowing to whom")
    if isinstance(error, BadURL):
        return 2
    # a close code that advises against coming back ends --reconnect
    return 3 if isinstance(error, Refused) and error.code is not None else 1
