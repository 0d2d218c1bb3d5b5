"""Processes that are driven by lines: the contenders (servers) and the load client."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import BenchmarkError, Place, put

ROOT = Path(__file__).parent.parent


class LineProcess:
    """A process at ``place`` that answers lines with lines of JSON; other lines of its output are skipped."""

    def __init__(self, name: str, argv: Sequence[str], place: Place) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._process.pid
        put(self.pid, place)
        self._buffer = b""
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Write one line to it; raises ``BenchmarkError`` when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise BenchmarkError(self._ended()) from None

    def read(self, timeout_s: float) -> dict[str, Any]:
        """The next line of JSON; raises ``BenchmarkError`` when it ends first, ``TimeoutError`` when it is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                continue
            self._read_more(deadline - time.monotonic())

    def _read_more(self, timeout_s: float) -> None:
        if timeout_s <= 0 or not self._selector.select(timeout_s):
            raise TimeoutError(f"{self.name} did not answer in time")
        assert self._process.stdout is not None
        data = self._process.stdout.read(1 << 20)
        if not data:
            raise BenchmarkError(self._ended())
        self._buffer += data

    def _ended(self) -> str:
        code = self._process.wait(5)
        return f"{self.name} ended with {code}:\n{self.log_tail()}"

    def log_tail(self, size_bytes: int = 3000) -> str:
        """The end of what it wrote to its standard error."""
        file = self._log.fileno()
        # pread: the process shares the file's position, and writes where it stands
        return os.pread(file, size_bytes, max(0, os.fstat(file).st_size - size_bytes)).decode(errors="replace")

    def kill(self) -> None:
        """End it at once and free what belongs to it."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._log.close()


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server:
    """One contender, running and listening. ``with Server(...) as server``."""

    def __init__(self, name: str, argv: Sequence[str], port: int, place: Place) -> None:
        self.port = port
        self._process = LineProcess(name, argv, place)
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if not self._process.running:
                raise BenchmarkError(f"{self._process.name} did not start:\n{self._process.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self._process.kill()
        raise BenchmarkError(f"{self._process.name} does not listen after 30 s")

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def command(self, timeout_s: float, **command: object) -> dict[str, Any]:
        """Send a command (see contenders/harness.py) and return its answer; ``TimeoutError`` when it is late."""
        self.begin(**command)
        return self.answer(timeout_s)

    def begin(self, **command: object) -> None:
        """Send a command whose answer is fetched with ``answer``."""
        self._process.send(json.dumps(command))

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The answer to what was begun; ``TimeoutError`` when it is late."""
        answer = self._process.read(timeout_s)
        if "error" in answer:
            raise BenchmarkError(f"{self._process.name}: {answer['error']}\n{self._process.log_tail()}")
        return answer

    def log_tail(self) -> str:
        """The end of what the server logged."""
        return self._process.log_tail()
