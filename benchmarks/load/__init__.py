"""The load clients: built from C at first use, driven by lines. ``LoadClient`` listens, ``Talker`` talks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from benchmarks import tools
from benchmarks.machine import BenchmarkError, Place
from benchmarks.processes import LineProcess

HERE = Path(__file__).parent


def build(*, tls: bool) -> None:
    """Compile the load clients, before anything is measured; raises ``BenchmarkError`` where that cannot be."""
    tools.compiled(HERE / "client.c")
    tools.compiled(HERE / "talker.c")
    if tls:
        tools.compiled(HERE / "client.c", tls=True)


class _Client:
    """A process that says ``ready`` once all of its connections are open."""

    def __init__(self, source: str, arguments: list[str], place: Place, *, tls: bool = False) -> None:
        program = tools.compiled(HERE / source, tls=tls)
        self.process = LineProcess("load client", [str(program), *arguments], place)
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self.ready = self.event("ready", 130)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """The next thing it says, which must be ``name``; raises ``BenchmarkError`` and ``TimeoutError``."""
        event = self.process.read(timeout_s)
        if event.get("event") != name:
            raise BenchmarkError(f"load client: {event.get('error', event)}")
        return event


class LoadClient(_Client):
    """Connections to one topic. ``with LoadClient(...) as client`` returns once all of them are open.

    ``connections`` are read and checked; ``stalled`` more never read after the handshake. ``latency`` records how
    long after its time ``t`` each message arrived. ``keys``: only the newest message of so many keys counts.
    ``parallel``: handshakes under way at a time; ``sources``: from so many addresses of the loopback net.
    ``spin``: never sleep. Raises ``BenchmarkError`` when one connection cannot be opened.
    """

    def __init__(
        self,
        *,
        port: int,
        path: str,
        dialect: str,
        place: Place,
        connections: int = 0,
        stalled: int = 0,
        keys: int = 0,
        parallel: int = 64,
        sources: int = 0,
        latency: bool = False,
        spin: bool = False,
        tls: bool = False,
        idle_timeout_s: float = 10,
    ) -> None:
        argv = ["--port", str(port), "--path", path, "--dialect", dialect, "--idle-timeout", str(idle_timeout_s)]
        argv += ["--connections", str(connections), "--stalled", str(stalled), "--keys", str(keys)]
        argv += ["--parallel", str(parallel), "--sources", str(sources)]
        argv += ["--latency"] * latency + ["--spin"] * spin + ["--tls"] * tls
        super().__init__("client.c", argv, place, tls=tls)
        self._idle_timeout_s = idle_timeout_s

    def until(self, last: int, timeout_s: float) -> dict[str, Any]:
        """End the phase when every connection has seen ``last`` (or none sees anything more); what arrived in it."""
        self.process.send(f"until {last}")
        return self.event("phase", timeout_s + self._idle_timeout_s)

    def now(self) -> dict[str, Any]:
        """End the phase at once; what arrived in it."""
        self.process.send("now")
        return self.event("phase", 10)


class Talker(_Client):
    """Connections that send: echoes and uploads. Raises ``BenchmarkError`` when something else comes back."""

    def __init__(
        self,
        *,
        port: int,
        path: str,
        place: Place,
        size: int,
        connections: int = 1,
        depth: int = 1,
        spin: bool = False,
        idle_timeout_s: float = 10,
    ) -> None:
        argv = ["--port", str(port), "--path", path, "--size", str(size), "--idle-timeout", str(idle_timeout_s)]
        argv += ["--connections", str(connections), "--depth", str(depth), *["--spin"] * spin]
        super().__init__("talker.c", argv, place)

    def echo(self, seconds: float) -> dict[str, Any]:
        """Keep ``depth`` messages under way on every connection for so long; what came back."""
        self.process.send(f"echo {seconds}")
        return self.event("echo", seconds + 30)

    def upload(self, messages: int, timeout_s: float) -> dict[str, Any]:
        """Send so many messages; returns when the server has said that all of their bytes have come."""
        self.process.send(f"upload {messages}")
        return self.event("upload", timeout_s)
