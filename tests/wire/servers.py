"""Servers as processes, and peers as bare sockets."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from tests.project.files import ROOT

PATIENCE_S = 20.0
"""How long a condition may take before a test fails; nothing is measured with it."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask ``condition`` again and again; returns its first true answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.005)
    raise AssertionError(f"this did not happen within {PATIENCE_S:g} s: {what}")


class Server:
    """One server process. ``log`` is all that it and its libraries have written."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Path, *, is_stock: bool, context: ssl.SSLContext | None = None
    ) -> None:
        # what a client of it trusts, where it speaks TLS
        self.context = context
        # uvicorn with its own classes
        self.is_stock = is_stock
        self.process = process
        self._log = log
        self._seen = 0
        # what a test breaks on purpose: lines of the log that are fine today
        self.expected_errors: list[str] = []
        self.url = until(self._find_url, f"the server says where it listens; so far it said:\n{self.log}")
        self.port = int(self.url.rsplit(":", 1)[1])

    def _find_url(self) -> str | None:
        assert self.process.poll() is None, self.log
        said = re.search(r"^listening on (\S+)$", self.log, re.MULTILINE)
        return said and said[1]

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def new_log(self) -> str:
        """What came since the last call."""
        log = self.log
        new, self._seen = log[self._seen :], len(log)
        return new

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        if self.context is None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        else:
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_S, context=self.context)
        try:
            connection.request(method, path, body, {"connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask_json(self, path: str, method: str = "GET") -> Any:
        status, body = self.ask(path, method)
        assert status == 200, (status, body)
        return json.loads(body)

    def stats(self) -> dict[str, int]:
        """``live.stats()``, ``rss`` in bytes, ``sockets`` and ``tasks`` beside those of this very question."""
        stats = self.ask_json("/control/stats")
        return {**stats, "sockets": stats["sockets"] - 1, "tasks": stats["tasks"] - 1}

    def publish(self, topic: str, first: int = 0, n: int = 1, size: int = 0) -> dict[str, int]:
        """Messages ``{"n": number, "pad": "x" * size}`` in one go; returns ``live.stats()``."""
        stats: dict[str, int] = self.ask_json(f"/control/publish?topic={topic}&first={first}&n={n}&size={size}", "POST")
        return stats

    def until_stats(self, what: str, **wanted: int) -> None:
        """Wait until the stats named are as given."""
        until(lambda: wanted.items() <= self.stats().items(), f"{what}: {wanted}, not {self.stats()}")

    def check_clean(self) -> None:
        """Nobody is left, and nothing was complained about that the test did not ask for."""
        self.until_stats("everybody is gone", subscriptions=0, connections=0, sockets=0, tasks=0)
        complaints = [
            line
            for line in self.new_log().splitlines()
            if re.match(r"Traceback|ERROR|CRITICAL|Fatal error|Task ", line)
        ]
        unexpected = [line for line in complaints if not any(known in line for known in self.expected_errors)]
        self.expected_errors = []
        assert unexpected == [], self.log


@contextmanager
def serving(folder: Path, flavour: str, *, context: ssl.SSLContext | None = None, **settings: Any) -> Iterator[Server]:
    """A server process until the end of the block; its log goes into ``folder``."""
    log = folder / f"{flavour}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.wire.app", flavour, json.dumps(settings)],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process, log, is_stock=flavour == "stock", context=context)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


class Peer:
    """A blocking socket that does as a test says, and nothing by itself."""

    def __init__(self, port: int, *, receive_buffer: int | None = None, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.received = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, enough: Callable[[bytes], Any]) -> bytes:
        """Read until ``enough(everything received)``; the rest stays unread."""
        while not enough(self.received):
            data = self.socket.recv(1 << 20)
            assert data, f"the server has closed after {self.received[-500:]!r}"
            self.received += data
        return self.received

    def read_to_end(self) -> str:
        """Read all there is; says how it ended: ``closed`` or ``reset``. What came is in ``received``."""
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return "reset"
            if not data:
                return "closed"
            self.received += data

    def flood(self, data: bytes, most: int) -> int:
        """Send ``data`` again and again until the server has cut the line; returns how many bytes that took."""
        sent = 0
        while sent < most:
            try:
                sent += self.socket.send(data)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                return sent
        raise AssertionError(f"the server took {sent} bytes and did not cut the line")

    def vanish(self) -> None:
        """Go without a word: the kernel sends RST, as for a machine that has restarted."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    # HTTP

    def request(self, path: str, method: str = "GET", **headers: str) -> Peer:
        """Send the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return self

    def answer(self) -> tuple[int, bytes]:
        """The next response with a length: status and body; takes it from what is received."""
        self.receive(lambda data: b"\r\n\r\n" in data)
        head, _, rest = self.received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: *(\d+)", head.lower() + b"\r\ncontent-length: 0")[1])  # type: ignore[index]
        self.received = rest
        self.receive(lambda data: len(data) >= length)
        body, self.received = self.received[:length], self.received[length:]
        return int(head.split()[1]), body


def open_events(port: int, topic: str, *, receive_buffer: int | None = None) -> Peer:
    """A peer that follows ``topic`` as an event stream; returns when it is live."""
    peer = Peer(port, receive_buffer=receive_buffer).request(f"/live/{topic}", accept="text/event-stream")
    peer.receive(lambda data: b"event: position" in data)
    return peer


def chunks_of(data: bytes) -> list[bytes]:
    """The whole chunks of a chunked body (RFC 9112 7.1)."""
    chunks = []
    while True:
        size, _, rest = data.partition(b"\r\n")
        if not size or len(rest) < int(size, 16) + 2:
            return chunks
        chunks.append(rest[: int(size, 16)])
        data = rest[int(size, 16) + 2 :]
