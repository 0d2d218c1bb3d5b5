"""Programs that a run starts: each has a log and a deadline, and none outlives the run.

They stay in the run's process group, so that Ctrl-C in a terminal, and what stops a step of CI, reaches them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LINE_BYTES_MAX = 1024 * 1024
_END_S = 8.0
_TAIL_BYTES = 2000


class ConformanceError(Exception):
    """A run that could not come to a result; the text says why and where to look."""


class Child:
    """A program that has been started, by ``child``."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    async def read_line(self, limit_s: float) -> str:
        """The next line it prints. Raises ``ConformanceError`` when it ends first, or says nothing in time."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise self.failed(f"said nothing within {limit_s:g} s") from None
        if not line:
            raise self.failed("ended before it was ready")
        return line.decode(errors="replace").rstrip()

    async def follow(self, tell: Callable[[str], None]) -> None:
        """Hand over each line it prints, until it has closed its output."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            tell(line.decode(errors="replace").rstrip())

    async def wait(self) -> int:
        """Its exit code, when it has ended."""
        return await self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def failed(self, what: str) -> ConformanceError:
        """An error with the end of its log."""
        tail = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        where = self.log.relative_to(ROOT)
        return ConformanceError(f"{self.name} {what} ({where})" + (f":\n{tail}" if tail else ""))


@asynccontextmanager
async def child(
    name: str, argv: Sequence[str | Path], log: Path, *, keeps_pythonpath: bool = True
) -> AsyncIterator[Child]:
    """Start a program with its errors in ``log``, and end it with the block."""
    left_out = () if keeps_pythonpath else ("PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            limit=_LINE_BYTES_MAX,
        )
    try:
        yield Child(name, process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, and then make it."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        # what it still prints is read away: a full pipe would keep it
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), _END_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold ``folder``, so that no other run writes there. Raises ``ConformanceError`` when one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = folder.relative_to(ROOT)
            raise ConformanceError(f"another run is writing into {where}: wait for it, or stop it") from None
        yield


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
