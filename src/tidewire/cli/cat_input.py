"""Standard input and output of ``tidewire cat`` in a pipe, without holding up the loop that answers pings.

Blocking reads and writes run in daemon threads: nothing that hangs in one keeps the program from ending.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TypeVar

from tidewire.cli.cat_show import Format
from tidewire.cli.show import say
from tidewire.errors import TidewireError
from tidewire.limits import RAW_MESSAGE_BYTES_MAX

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024
# a pipe that is ready takes this much at once (POSIX: PIPE_BUF is at least 512, and 4096 where we run)
_AT_ONCE_BYTES = 512


class Interrupted(Exception):
    """Ctrl-C at the prompt, where it is a key and no signal."""


class BadInput(TidewireError):
    """Standard input holds what cannot be sent; the sentence says what to do."""


class Pipe:
    """Standard input as messages, standard output for what comes."""

    can_type = False

    def __init__(self, look: Format, *, is_binary: bool) -> None:
        self._look = look
        self._is_binary = is_binary

    async def __aenter__(self) -> Pipe:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def messages(self) -> AsyncIterator[str | bytes]:
        """What is to be sent: chunks as they can be read, or lines without their ends. Raises ``BadInput``."""
        if self._is_binary:
            async for chunk in _read_stdin():
                yield chunk
            return
        number = 0
        async for line in split_lines(_read_stdin()):
            number += 1
            try:
                yield line.decode()
            except UnicodeDecodeError:
                raise BadInput(f"line {number} of stdin is not UTF-8: send bytes with --binary") from None

    async def show(self, message: str | bytes) -> None:
        """Write a message; a reader that is slow slows us. Raises ``BrokenPipeError``."""
        await write_out(sys.stdout.fileno(), self._look.render(message, datetime.now().astimezone()))

    def say(self, sentence: str, style: str = "dim") -> None:
        """One sentence on stderr."""
        say(sentence, style)


async def _read_stdin() -> AsyncIterator[bytes]:
    if sys.stdin is None:
        return
    number = sys.stdin.fileno()
    while chunk := await off_loop(lambda: os.read(number, _CHUNK_BYTES)):
        yield chunk


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without LF or CR LF, the last one also without an end. Raises ``BadInput`` for one that has no end."""
    rest: list[bytes] = []
    held = 0
    async for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*rest, line]).removesuffix(b"\r")
            rest, held = [], 0
        rest.append(tail)
        held += len(tail)
        if held > RAW_MESSAGE_BYTES_MAX:
            raise BadInput(f"a line of stdin is longer than {RAW_MESSAGE_BYTES_MAX} bytes: send chunks with --binary")
    if last := b"".join(rest):
        yield last


async def write_out(number: int, data: bytes) -> None:
    """Write all of it to the file of this number. Raises ``BrokenPipeError``."""
    # a ready pipe takes a little at once: the usual message costs no thread
    if len(data) <= _AT_ONCE_BYTES and os.name == "posix" and select.select([], [number], [], 0)[1]:
        _write_all(number, data)
    else:
        await off_loop(lambda: _write_all(number, data))


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


async def off_loop(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, from a thread that may be left behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - handed to who waits
            error = raised
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            # the loop has ended meanwhile, and nobody waits
            return

    threading.Thread(target=run, daemon=True).start()
    return await done
