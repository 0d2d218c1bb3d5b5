"""The load client: built from client.c at first use, driven by lines."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.machine import BenchmarkError, Place
from benchmarks.processes import LineProcess

SOURCE = Path(__file__).with_name("client.c")
BUILD = Path(__file__).parent.parent / "build"


def build() -> Path:
    """The compiled client; compiles it when its source is new. Raises ``BenchmarkError`` without a C compiler."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    binary = BUILD / f"load-client-{digest}"
    if binary.exists():
        return binary
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchmarkError("the load client needs a C compiler: apt install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    subprocess.run([compiler, "-O2", "-std=gnu11", "-Wall", "-o", str(binary), str(SOURCE)], check=True)
    return binary


class LoadClient:
    """Connections to one topic. ``with LoadClient(...) as client`` returns once all of them are open.

    ``connections`` are read and checked; ``stalled`` more never read after the handshake. ``latency`` records how
    long after its time ``t`` each message arrived. ``spin``: never sleep. Raises ``BenchmarkError`` when one connection
    cannot be opened.
    """

    def __init__(
        self,
        *,
        port: int,
        path: str,
        sse: bool,
        place: Place,
        connections: int = 0,
        stalled: int = 0,
        latency: bool = False,
        spin: bool = False,
        idle_timeout_s: float = 10,
    ) -> None:
        argv = [str(build()), "--port", str(port), "--path", path, "--idle-timeout", str(idle_timeout_s)]
        argv += ["--connections", str(connections), "--stalled", str(stalled)]
        argv += ["--sse"] * sse + ["--latency"] * latency + ["--spin"] * spin
        self._idle_timeout_s = idle_timeout_s
        self._process = LineProcess("load client", argv, place)

    def __enter__(self) -> LoadClient:
        try:
            self.ready = self._event("ready", 130)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def until(self, last: int, timeout_s: float) -> dict[str, Any]:
        """End the phase when every connection has seen ``last`` (or none sees anything more); what arrived in it."""
        self._process.send(f"until {last}")
        return self._event("phase", timeout_s + self._idle_timeout_s)

    def now(self) -> dict[str, Any]:
        """End the phase at once; what arrived in it."""
        self._process.send("now")
        return self._event("phase", 10)

    def _event(self, name: str, timeout_s: float) -> dict[str, Any]:
        event = self._process.read(timeout_s)
        if event.get("event") != name:
            raise BenchmarkError(f"load client: {event.get('error', event)}")
        return event
