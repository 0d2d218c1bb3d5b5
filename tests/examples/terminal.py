"""A program in a terminal of its own: what it prints, what is typed, Ctrl-C, and how it ended."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.project.files import ROOT

FIRST_STEPS = ROOT / "examples" / "first_steps"
BOUND_S = 20
_IMPORT = "import tidewire as websockets\n"
_LISTENS = re.compile(r"listening on (?:port |\w+://[\w.]+:)(\d+)")


class Terminal:
    """``python program *arguments``, in the folder ``cwd``; a context manager that leaves nothing running.

    ``both`` runs a copy of the program whose one import line says plain ``import websockets``. Both streams are read
    as one, as a person sees them.
    """

    def __init__(
        self, program: str, *arguments: object, cwd: Path, both: bool = False, env: Mapping[str, str] | None = None
    ) -> None:
        path = FIRST_STEPS / program
        if both:
            path = _with_plain_websockets(path, cwd)
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, str(path), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._pump = threading.Thread(target=self._read)
        self._pump.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(BOUND_S)
        self._pump.join(BOUND_S)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def until(self, text: str) -> str:
        """Read on until a line holds ``text``; returns that line."""
        while True:
            try:
                line = self._coming.get(timeout=BOUND_S)
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {BOUND_S} s; printed: {self.lines}") from None
            if line is None:
                raise AssertionError(f"it ended without {text!r}; printed: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    def port(self) -> int:
        """Where it listens, once it says so."""
        found = _LISTENS.search(self.until("listening on "))
        assert found
        return int(found[1])

    def type(self, line: str) -> None:
        """A line and Enter."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def vanish(self) -> None:
        """The process is gone without a word."""
        self._process.kill()

    def finish(self) -> list[str]:
        """Wait until it has ended well, and return all lines."""
        code = self._process.wait(BOUND_S)
        self._pump.join(BOUND_S)
        while (line := self._coming.get_nowait()) is not None:
            self.lines.append(line)
        assert code == 0, f"exit code {code}; printed: {self.lines}"
        assert not [line for line in self.lines if "Traceback" in line], self.lines
        return self.lines

    def stop(self) -> list[str]:
        """Ctrl-C, then as ``finish``: no traceback, exit code 0."""
        self.interrupt()
        return self.finish()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def memory_bytes(self) -> int:
        """What it has in memory now; 0 when it has ended."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0


def _with_plain_websockets(path: Path, folder: Path) -> Path:
    text = path.read_text(encoding="utf-8")
    assert text.count(_IMPORT) == 1, f"{path.name} should import tidewire as websockets"
    copy = folder / path.name
    copy.write_text(text.replace(_IMPORT, "import websockets\n"), encoding="utf-8")
    return copy
