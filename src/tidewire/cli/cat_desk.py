"""Where the messages of ``tidewire cat`` come from and go to: a pipe, or somebody at a prompt."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from tidewire.cli.cat_input import Pipe
from tidewire.cli.cat_options import Wanted
from tidewire.cli.cat_show import ForEyes, Format, ForPrograms

if TYPE_CHECKING:
    from tidewire.cli.cat_prompt import Prompt


class Desk(Protocol):
    """What a conversation needs of either. ``can_type``: somebody sits there."""

    can_type: bool

    def messages(self) -> AsyncIterator[str | bytes]:
        """What is to be sent, until there is no more. Raises ``BadInput``, ``Interrupted``."""

    async def show(self, message: str | bytes) -> None:
        """Print what came. Raises ``BrokenPipeError``."""

    def say(self, sentence: str, style: str = "dim") -> None:
        """One sentence that is no message."""


def choose_desk(wanted: Wanted) -> Pipe | Prompt:
    """A prompt where stdin is a terminal and there is one to draw on; ``prompt_toolkit`` is imported only then."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    can_type = sys.stdin is not None and sys.stdin.isatty() and (is_terminal or sys.stderr.isatty())
    look: Format = ForPrograms(wanted.is_pretty, wanted.has_times)
    # raw bytes would tear a prompt apart
    if is_terminal and (can_type or not wanted.is_binary):
        mark = "< " if can_type else ""
        look = ForEyes(Console(highlight=False), is_pretty=wanted.is_pretty, has_times=wanted.has_times, mark=mark)
    if not can_type:
        return Pipe(look, is_binary=wanted.is_binary)
    from tidewire.cli.cat_prompt import Prompt

    return Prompt(look, is_binary=wanted.is_binary)
