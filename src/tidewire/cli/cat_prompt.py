"""``tidewire cat`` at a terminal: a prompt that stays below while messages come, on ``prompt_toolkit``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import datetime

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, run_in_terminal
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.output import create_output
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console

from tidewire.cli.cat_input import Interrupted, write_out
from tidewire.cli.cat_show import Format
from tidewire.cli.words import defuse

_WAITING_MAX = 500
_HINT = "type a message and press Enter; Ctrl-D leaves"


class Prompt:
    """Typed lines as messages, and what comes above them.

    The prompt is drawn where messages go, or on stderr when stdout is a pipe. At most 500 messages wait to be
    printed; then the connection is not read, which slows the server.
    """

    can_type = True

    def __init__(self, look: Format, *, is_binary: bool) -> None:
        self._look = look
        self._is_binary = is_binary
        self._shows_messages = sys.stdout.isatty()
        # all three as they are now, before they are patched
        self._stdout_number = sys.stdout.fileno()
        self._output = create_output(stdout=sys.stdout if self._shows_messages else sys.stderr)
        self._errors = Console(file=sys.stderr, highlight=False)
        # whether the hint has done its work
        self._has_typed = False
        # what waits to be printed, and whether there is any, or room for more
        self._waiting: list[str] = []
        self._filled = asyncio.Event()
        self._printed = asyncio.Event()
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> Prompt:
        self._stack.enter_context(create_app_session(output=self._output))
        # what libraries print must not break the prompt either
        self._stack.enter_context(patch_stdout(raw=True))
        self._printing = asyncio.create_task(self._print())
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._waiting:
            self._printed.clear()
            await self._printed.wait()
        self._printing.cancel()
        await asyncio.wait([self._printing])
        self._stack.close()

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Every typed line that is not empty, until Ctrl-D. Raises ``Interrupted``."""
        session: PromptSession[str] = PromptSession()
        while True:
            try:
                line = await session.prompt_async(
                    [("bold", "> ")],
                    placeholder=lambda: self._hint(session),
                    reserve_space_for_menu=0,
                    # what fails elsewhere must not hold up the typing
                    set_exception_handler=False,
                )
            except EOFError:
                return
            except KeyboardInterrupt:
                raise Interrupted from None
            if line:
                self._has_typed = True
                # keys that are no UTF-8 arrive as surrogates
                typed = line.encode(errors="surrogateescape")
                yield typed if self._is_binary else typed.decode(errors="replace")

    def _hint(self, session: PromptSession[str]) -> AnyFormattedText:
        return "" if self._has_typed or session.app.is_done else [("fg:ansibrightblack", _HINT)]

    async def show(self, message: str | bytes) -> None:
        """Print above the prompt, or into the pipe. Raises ``BrokenPipeError``."""
        rendered = self._look.render(message, datetime.now().astimezone())
        if not self._shows_messages:
            await write_out(self._stdout_number, rendered)
            return
        while len(self._waiting) >= _WAITING_MAX:
            self._printed.clear()
            await self._printed.wait()
        self._print_soon(rendered.decode(self._output.encoding()))

    def say(self, sentence: str, style: str = "dim") -> None:
        """One sentence above the prompt; into the file where stderr is one."""
        if not self._errors.is_terminal:
            self._errors.print(defuse(sentence), style=style, markup=False, soft_wrap=True)
            return
        with self._errors.capture() as captured:
            self._errors.print(defuse(sentence), style=style, markup=False, soft_wrap=True)
        self._print_soon(captured.get())

    def _print_soon(self, text: str) -> None:
        self._waiting.append(text)
        self._filled.set()

    async def _print(self) -> None:
        """Print all that waits at once: drawing the prompt again costs more than a line."""
        while True:
            await self._filled.wait()
            await run_in_terminal(self._write)
            self._printed.set()

    def _write(self) -> None:
        self._output.write_raw("".join(self._waiting))
        self._output.flush()
        self._waiting.clear()
        self._filled.clear()
