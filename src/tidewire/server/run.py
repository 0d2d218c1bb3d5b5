"""``run``: uvicorn with our protocol classes, our drain before its shutdown, and no surprise at the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.supervisors import ChangeReload, Multiprocess

from tidewire.errors import AddressInUse, SeveralProcesses
from tidewire.limits import RAW_MESSAGE_BYTES_MAX
from tidewire.wire.uvicorn import HttpProtocol
from tidewire.wire.uvicorn import Protocol as WebSocketProtocol

logger = logging.getLogger("uvicorn.error")

App = Callable[..., Any] | str
# What all connections get from the signal on, and at least after ours were drained: gone within 5 s, with time to spare
_GRACE_S = 3
_GRACE_AFTER_DRAIN_S = 1
_BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn's server, which lets every ``Live`` say goodbye before it waits for connections to end.

    uvicorn runs the lifespan's shutdown only after waiting for connections, so a library that ends its streams
    there never gets to (CONTRACTS 10).
    """

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[str], None] | None = None) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that we listen when we do."""
        await super().startup(sockets=sockets)
        if self.started and sockets:
            url = url_of(sockets[0], "https" if self.config.is_ssl else "http")
            if self._on_listening is None:
                logger.info("Tidewire is listening on %s (Ctrl-C stops it)", url)
            else:
                self._on_listening(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, drain, then uvicorn's own way, and abort what is left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for server in self.servers:
            server.close()
        lives = [value for value in self.lifespan.state.values() if _is_live(value)]
        await asyncio.gather(*(live.drain() for live in lives))
        grace_s = self.config.timeout_graceful_shutdown
        if grace_s is not None:
            grace_s = max(_GRACE_AFTER_DRAIN_S, math.ceil(grace_s - (loop.time() - began)))
            self.config.timeout_graceful_shutdown = grace_s
            loop.call_later(grace_s, self._abort_all)
        await super().shutdown(sockets=sockets)

    def _abort_all(self) -> None:
        for connection in list(self.server_state.connections):
            abort = getattr(connection, "abort", None)
            if abort is not None:
                abort()


def _is_live(value: object) -> bool:
    return type(value).__name__ == "Live" and hasattr(value, "drain")


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """The address a bound socket answers at; the wildcard addresses are shown as loopback."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A listening address of our own: a busy port is an error that names it, not a ``SystemExit``."""
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, number)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from None
        raise
    sock.set_inheritable(True)
    return sock


def make_config(app: App, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration with our classes and bounds; ``options`` are uvicorn's own and win."""
    defaults: dict[str, Any] = {
        "ws": WebSocketProtocol,
        "http": HttpProtocol,
        "ws_max_size": RAW_MESSAGE_BYTES_MAX,
        "ws_per_message_deflate": False,
        "timeout_graceful_shutdown": _GRACE_S,
        "backlog": _BACKLOG,
    }
    return uvicorn.Config(app, **{**defaults, **options})


def run(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    reload: bool = False,
    workers: int = 1,
    isolated: bool = False,
    on_listening: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve ``app`` until SIGINT or SIGTERM; everything has ended within 5 s.

    After SIGINT it returns; SIGTERM then ends the process, as it would have without us.

    ``app``: an ASGI application, or ``"module:app"`` (needed for ``reload`` and ``workers``). ``port`` 0 takes a free
    one. ``on_listening`` is called with the URL once the server answers. ``options`` go to uvicorn. Raises
    ``AddressInUse``, and ``SeveralProcesses`` for ``workers`` above 1: the memory broker is one process's. ``isolated``
    says that this is meant, and belongs together with ``Live(isolated=True)``.
    """
    if workers > 1 and not isolated:
        raise SeveralProcesses(f"workers={workers}")
    if (reload or workers > 1) and not isinstance(app, str):
        raise TypeError('reload and workers need the application by name: run("module:app", reload=True)')
    config = make_config(app, host=host, port=port, reload=reload, workers=workers, **options)
    sock = bind(host, port)
    server = Server(config, on_listening)
    try:
        if reload:
            logger.info("Reloading on changes; listening on %s", url_of(sock))
            ChangeReload(config, target=server.run, sockets=[sock]).run()
        elif workers > 1:
            # uvicorn's supervisor runs uvicorn's server: each process drains at its lifespan's end, within the grace
            logger.info("Tidewire is listening on %s with %d processes (Ctrl-C stops them)", url_of(sock), workers)
            Multiprocess(config, sockets=[sock]).run()
        else:
            server.run(sockets=[sock])
    except KeyboardInterrupt:
        # uvicorn hands the signal on after its shutdown; for us the end has been reached
        return
    finally:
        sock.close()
    if not server.started and not config.use_subprocess:
        sys.exit(3)
