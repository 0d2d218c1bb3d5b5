"""`tidewire cat` typed into: a process on a pseudo-terminal."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import tidewire as tide
from tests.cli.test_end_to_end import Process, tidewire
from tests.client.fakes import run
from tidewire.cli.echo import send_back

UP, LEFT, CTRL_C, CTRL_D, ENTER = b"\x1b[A", b"\x1b[D", b"\x03", b"\x04", b"\r"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\x08")


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # this eye does not answer where the cursor is
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")


class Terminal:
    """The hand and the eye: keys go in, what was drawn since the last look comes out."""

    def __init__(self, number: int, process: Process) -> None:
        self.process = process
        self._number = number
        self._drawn = ""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(number, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._number, 65536)
        except OSError:
            # the other end has been closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._number)
        self._drawn += _CONTROL.sub("", data.decode())
        self._more.set()

    def press(self, *keys: bytes) -> None:
        os.write(self._number, b"".join(keys))

    async def ready(self) -> None:
        """Wait for the prompt. It may be drawn before what is said above it: keys pressed between both get lost."""
        await self.see("connected\n")
        await self.see("> type a message and press Enter; Ctrl-D leaves")

    async def see(self, text: str) -> None:
        """Wait until ``text`` has been drawn, after what was seen before."""
        while text not in self._drawn:
            self._more.clear()
            try:
                async with asyncio.timeout(20):
                    await self._more.wait()
            except TimeoutError:
                raise AssertionError(f"{text!r} was not drawn, but {self._drawn!r}") from None
        self._drawn = self._drawn.partition(text)[2]


@asynccontextmanager
async def typing(*arguments: str, **options: Any) -> AsyncIterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | options
    try:
        async with tidewire("cat", *arguments, **streams) as process:
            yield Terminal(ours, process)
            asyncio.get_running_loop().remove_reader(ours)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_line_its_echo_and_the_line_again() -> None:
    async def main() -> None:
        async with tide.serve(send_back, port=0) as server, typing(server.url) as terminal:
            await terminal.ready()
            terminal.press(b"helo", LEFT, b"l", ENTER)
            await terminal.see("< hello\n")
            await terminal.see(">")
            terminal.press(UP, b" again", ENTER)
            await terminal.see("< hello again\n")
            await terminal.see(">")
            # an empty line is none
            terminal.press(ENTER)
            await terminal.see("\n>")
            terminal.press(UP, UP, ENTER)
            await terminal.see("< hello\n")
            await terminal.see(">")
            terminal.press(CTRL_D)
            assert await terminal.process.wait() == 0

    run(main())


def test_what_comes_is_printed_above_a_line_that_is_being_typed() -> None:
    async def main() -> None:
        push = asyncio.Event()
        seen: list[str | bytes] = []

        async def pushes(connection: tide.Connection) -> None:
            await push.wait()
            await connection.send("news\n< no message of its own\x1b[2J")
            seen.append(await connection.recv())

        async with tide.serve(pushes, port=0) as server, typing(server.url, "-v") as terminal:
            await terminal.see("< HTTP/1.1 101 Switching Protocols\n")
            await terminal.ready()
            terminal.press(b"unfin")
            await terminal.see("unfin")
            push.set()
            await terminal.see("< news\n  < no message of its own\\x1b[2J\n")
            await terminal.see("> unfin")
            terminal.press(b"ished", ENTER)
            # the server's goodbye stands last, below the prompt
            await terminal.see("\nclosed: received 1000 (OK); then sent 1000 (OK)\n")
            assert await terminal.process.wait() == 0
            assert seen == ["unfinished"]

    run(main())


def test_ctrl_c_and_the_signal_end_it_with_a_goodbye() -> None:
    codes: list[int | None] = []

    async def main() -> None:
        left = asyncio.Event()

        async def watches(connection: tide.Connection) -> None:
            await connection.wait_closed()
            codes.append(connection.close_code)
            left.set()

        async with tide.serve(watches, port=0) as server:
            for is_signal in (False, True):
                left.clear()
                async with typing(server.url) as terminal:
                    await terminal.ready()
                    if is_signal:
                        terminal.process.send_signal(signal.SIGINT)
                    else:
                        terminal.press(b"half a line", CTRL_C)
                    assert await terminal.process.wait() == 130
                    await left.wait()

    run(main())
    assert codes == [1000, 1000]


def test_a_server_that_closes_ends_the_prompt() -> None:
    async def main() -> None:
        async def refuses(connection: tide.Connection) -> None:
            await connection.recv()
            await connection.close(4000, "no such game")

        async with tide.serve(refuses, port=0) as server, typing(server.url) as terminal:
            await terminal.ready()
            terminal.press(b"play", ENTER)
            await terminal.see("\nthe server closed the connection: 4000 (private use) no such game\n")
            assert await terminal.process.wait() == 3

    run(main())


def test_messages_go_into_a_pipe_while_somebody_types() -> None:
    async def main() -> None:
        async with (
            tide.serve(send_back, port=0) as server,
            typing(server.url, "-n", "2", stdout=asyncio.subprocess.PIPE) as terminal,
        ):
            await terminal.ready()
            terminal.press(b"one", ENTER)
            assert terminal.process.stdout is not None
            assert await terminal.process.stdout.readline() == b"one\n"
            await terminal.see("\n>")
            terminal.press(b"two", ENTER)
            assert await terminal.process.stdout.read() == b"two\n"
            assert await terminal.process.wait() == 0

    run(main())
