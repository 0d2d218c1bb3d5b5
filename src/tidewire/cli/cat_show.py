"""How ``tidewire cat`` prints a message: for eyes, or for the next program."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from tidewire.cli.show import preview
from tidewire.cli.words import defuse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Format(Protocol):
    """Turns a message that came at ``when`` into what is written."""

    def render(self, message: str | bytes, when: datetime) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ForPrograms:
    """Text on lines of its own, binary as it is."""

    is_pretty: bool = False
    has_times: bool = False

    def render(self, message: str | bytes, when: datetime) -> bytes:
        """UTF-8; the time is UTC (RFC 3339)."""
        if isinstance(message, bytes):
            return message
        text = (pretty(message) if self.is_pretty else None) or message
        return f"{_utc(when)} {text}\n".encode() if self.has_times else f"{text}\n".encode()


class ForEyes:
    """Colours where the terminal has them; nothing that comes can command it, or pass for a line of ours.

    ``mark``: before each message, where typed lines stand between them.
    """

    def __init__(self, console: Console, *, is_pretty: bool = False, has_times: bool = False, mark: str = "") -> None:
        from rich.highlighter import JSONHighlighter

        self._console = console
        self._is_pretty = is_pretty
        self._has_times = has_times
        self._mark = mark
        self._json = JSONHighlighter()

    def render(self, message: str | bytes, when: datetime) -> bytes:
        """In the terminal's encoding; the time is the local one."""
        from rich.text import Text

        line = Text()
        line.append(self._mark, "bold green")
        if self._has_times:
            line.append(f"{when.astimezone():%H:%M:%S}.{when.microsecond // 1000:03}  ", "dim cyan")
        line.append_text(self._body(message))
        with self._console.capture() as captured:
            self._console.print(line, soft_wrap=True)
        return captured.get().encode(self._console.encoding, "backslashreplace")

    def _body(self, message: str | bytes) -> Text:
        from rich.text import Text

        if isinstance(message, bytes):
            return Text(preview(message), "magenta")
        indented = pretty(message) if self._is_pretty else None
        shown = defuse(message if indented is None else indented).replace("\n", "\n" + " " * len(self._mark))
        text = Text(shown, end="")
        return text if indented is None else self._json(text)


def pretty(message: str) -> str | None:
    """JSON indented, its numbers and keys exactly as they came; None for what is no JSON."""
    try:
        return msgspec.json.format(message, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return None


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
