"""How ``tidewire sub`` prints messages: coloured on a terminal, plain when piped, or one JSON object per line."""

from __future__ import annotations

import base64
import os
import sys
from typing import IO, TYPE_CHECKING, Any, Protocol

import msgspec

from tidewire.cli.words import defuse

if TYPE_CHECKING:
    from rich.console import Console

    from tidewire.client.resume import Received

_BYTES_SHOWN = 64


class Printer(Protocol):
    """Prints one message; returns whether anything appeared (a removed key has no payload to print)."""

    def show(self, message: Received) -> bool: ...


class JsonLines:
    """One JSON object per line: position, data (or base64), gap, and key, removed, snapshot where they are set."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def show(self, message: Received) -> bool:
        line: dict[str, Any] = {"position": message.position, "kind": message.kind}
        if message.kind == "bytes":
            line["base64"] = base64.b64encode(message.data).decode()
        else:
            line["data"] = message.data
        gap = message.gap
        line["gap"] = None if gap is None else {"from": gap.from_position, "to": gap.to_position}
        if message.key is not None:
            line["key"] = message.key
        line |= {name: True for name in ("removed", "snapshot") if getattr(message, name)}
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()
        return True


class Plain:
    """The payload, and a line end: text and bytes as they are, JSON compact."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def show(self, message: Received) -> bool:
        if message.removed:
            return False
        match message.kind:
            case "bytes":
                payload = message.data
            case "text":
                payload = message.data.encode()
            case _:
                payload = msgspec.json.encode(message.data)
        self._out.write(payload + b"\n")
        self._out.flush()
        return True


class Pretty:
    """For eyes: the number of the message, its key, and its payload in colour."""

    def __init__(self, console: Console) -> None:
        from rich.highlighter import JSONHighlighter

        self._console = console
        self._json = JSONHighlighter()

    def show(self, message: Received) -> bool:
        from rich.text import Text

        line = Text()
        if message.position is not None:
            line.append(f"{int(message.position.partition(':')[2]):>6}  ", "dim cyan")
        if message.key is not None:
            line.append(f"{defuse(message.key)}  ", "bold")
        if message.snapshot:
            line.append("as it stands  ", "dim")
        line.append_text(self._payload(message))
        self._console.print(line, soft_wrap=True)
        return True

    def _payload(self, message: Received) -> Any:
        from rich.text import Text

        if message.removed:
            return Text("removed", "dim red")
        if message.kind == "bytes":
            return Text(preview(message.data), "magenta")
        if message.kind == "text":
            return Text(defuse(message.data))
        return self._json(Text(defuse(msgspec.json.encode(message.data).decode())))


def preview(data: bytes) -> str:
    """How many bytes there are, and the first of them in hex."""
    more = f" and {len(data) - _BYTES_SHOWN} more" if len(data) > _BYTES_SHOWN else ""
    return f"{len(data)} bytes: {data[:_BYTES_SHOWN].hex(' ')}{more}"


def choose_printer(as_json: bool) -> Printer:
    """The printer that fits where standard output goes."""
    if as_json:
        return JsonLines(sys.stdout.buffer)
    if not sys.stdout.isatty():
        return Plain(sys.stdout.buffer)
    from rich.console import Console

    return Pretty(Console(highlight=False))


def say(sentence: str, style: str = "dim") -> None:
    """One sentence on standard error, never mixed with the messages."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(defuse(sentence), style=style, markup=False, soft_wrap=True)


def mute_stdout() -> None:
    """The reader of a pipe has left: nothing more can be said there, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
