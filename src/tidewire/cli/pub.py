"""``tidewire pub``: publish one message, or every line of standard input."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import typer

from tidewire.cli.options import Header, parse_headers

Form = Literal["json", "text", "binary"]


def pub(
    url: Annotated[str, typer.Argument(metavar="URL", help="The topic, e.g. http://127.0.0.1:8000/live/chat/7")],
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="The message; - publishes every line of stdin.")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Publishing the same id again publishes once.")] = None,
    header: Header = None,
    as_json: Annotated[bool, typer.Option("--json", help="The data must be JSON.")] = False,
    as_text: Annotated[bool, typer.Option("--text", help="The data is text, even when it looks like JSON.")] = False,
    as_binary: Annotated[bool, typer.Option("--binary", help="Bytes; with - all of stdin is one message.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds to wait for each answer.")] = 10.0,
) -> None:
    """Publish to a topic, and print the position of each message.

    DATA that is JSON goes as JSON, anything else as text.

    Exit codes: 0 published; 1 refused, or not known to have arrived (the sentence says what to do);
    2 wrong usage; 130 Ctrl-C.
    """
    form = _choose_form(as_json, as_text, as_binary)
    if data is None and sys.stdin.isatty():
        raise typer.BadParameter("give the message, or - to publish every line of stdin", param_hint="DATA")
    is_stream = data in (None, "-")
    if is_stream and form != "binary" and id is not None:
        raise typer.BadParameter("names one message, and every line of stdin is one", param_hint="--id")
    payloads = _read_stdin(form) if is_stream else iter([str(data).encode(errors="surrogateescape")])
    headers = parse_headers(header)
    from tidewire.cli.show import mute_stdout, say
    from tidewire.errors import BadPayload, ClientError

    try:
        _publish_all(url, payloads, form=form, id=id, headers=headers, timeout_s=timeout_s)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        mute_stdout()
    except (ClientError, BadPayload) as error:
        say(str(error), "bold red")
        raise typer.Exit(1) from None


def _choose_form(as_json: bool, as_text: bool, as_binary: bool) -> Form | None:
    asked: list[tuple[Form, bool]] = [("json", as_json), ("text", as_text), ("binary", as_binary)]
    forms = [form for form, is_asked in asked if is_asked]
    if len(forms) > 1:
        raise typer.BadParameter("choose one of --json, --text and --binary")
    return forms[0] if forms else None


def _read_stdin(form: Form | None) -> Iterator[bytes]:
    """Lines without their ends (empty ones are left out), or everything at once with --binary."""
    if form == "binary":
        yield sys.stdin.buffer.read()
        return
    for line in sys.stdin.buffer:
        if line.strip():
            yield line.rstrip(b"\r\n")


def _make_message(payload: bytes, form: Form | None) -> object:
    """What is published: JSON exactly as it was written, or text, or bytes. Raises ``BadPayload``."""
    import msgspec

    from tidewire.errors import BadPayload
    from tidewire.protocol.payload import check_json, check_text

    if form == "binary":
        return payload
    if form != "text":
        try:
            return msgspec.Raw(check_json(payload))
        except BadPayload:
            if form == "json":
                raise
    return check_text(payload).decode()


def _publish_all(
    url: str,
    payloads: Iterator[bytes],
    *,
    form: Form | None,
    id: str | None,
    headers: list[tuple[str, str]],
    timeout_s: float,
) -> None:
    """One after the other. Reading stdin blocks between two runs of the loop, so that Ctrl-C works there too."""
    from tidewire.client.publish import Publisher

    publisher = Publisher(url, headers=headers, timeout_s=timeout_s)
    with asyncio.Runner() as runner:
        runner.run(publisher.__aenter__())
        try:
            for payload in payloads:
                position = runner.run(publisher.publish(_make_message(payload, form), id=id))
                print(position or "published", flush=True)
        finally:
            runner.run(publisher.__aexit__(None, None, None))
